"""Reference cases of `manual_bp`: what torch and JAX call each layer, and what to draw for it.

One file for each file of `manual_bp`, with the same name; the registry finds them without a list.
"""
