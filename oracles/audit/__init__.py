"""Audit of a test suite: its comparisons of arrays are asked again, with wrong values."""
