"""Twins of `manual_bp.optimizers`."""
