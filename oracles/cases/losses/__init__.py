"""Twins of `manual_bp.losses`."""
