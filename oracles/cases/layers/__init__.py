"""Twins of `manual_bp.layers`."""

from __future__ import annotations

from hypothesis import strategies as st


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    """Draw a number for rows and another for columns."""
    return st.tuples(st.integers(least, most), st.integers(least, most))
