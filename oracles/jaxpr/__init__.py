"""JAX derives, NumPy evaluates: a jaxpr with symbolic dimensions, written out as NumPy source."""
