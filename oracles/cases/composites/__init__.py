"""Twins of `manual_bp.composites`."""
