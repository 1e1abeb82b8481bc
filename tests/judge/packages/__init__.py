"""Gradients that the packages autograd and mygrad have written by hand, with what torch or JAX call each function."""
