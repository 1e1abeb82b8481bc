"""What torch and JAX call each layer of `manual_bp`, and what to draw for it: one file for each of its files."""
