"""Evaluate a rule with every rounding operation perturbed: in torch, in traced JAX programs, in NumPy code."""
