"""A verdict as text, JSON and a script that reproduces it, and the exception that carries it."""
