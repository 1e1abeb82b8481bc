"""Twins of `manual_bp.layers`."""

from __future__ import annotations

from hypothesis import strategies as st


def pairs(least: int, most: int) -> st.SearchStrategy[tuple[int, int]]:
    """Draw a number for rows and another for columns."""
    return st.tuples(st.integers(least, most), st.integers(least, most))


def hanging_over(n: int, span: int, stride: int, padding: int, *, ceil_mode: bool) -> int:
    """Return how far the last window reaches beyond an axis of n entries; less than 0 where it falls short."""
    room = n + 2 * padding - span
    last = (-(-room // stride) if ceil_mode else room // stride) * stride
    if ceil_mode and last >= n + padding:  # it would begin after the image
        last -= stride
    return last + span - padding - n
