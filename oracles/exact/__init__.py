"""A subject's own forward in exact arithmetic: balls of python-flint, and the oracle made of them."""
