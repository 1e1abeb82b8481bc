"""Gradients that the packages autograd and mygrad have written by hand, each with what torch or JAX call the function."""
