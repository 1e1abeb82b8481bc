"""Twins of `manual_bp.layers`."""
