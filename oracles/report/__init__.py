"""Reports of a result: text, JSON, a script that reproduces it, and the exception that carries it."""
