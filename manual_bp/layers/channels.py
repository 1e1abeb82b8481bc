"""What layers over channels (N, C, …) share: sums for each channel, and channels in groups."""

from __future__ import annotations

from math import prod

import numpy as np

from ..precision import ones
from ..protocol import Array


def channel_sums(x: Array) -> Array:
    """Return the sums over everything but the channels, axis 1: shape (C,)."""
    n, channels, places = x.shape[0], x.shape[1], prod(x.shape[2:])
    each = x.reshape(n * channels, places).dot(ones(places, x.dtype)) if places != 1 else x
    total: Array = ones(n, x.dtype).dot(each.reshape(n, channels))
    return total


def channel_products(x: Array, y: Array) -> Array:
    """Return the sums of the products x y, both (N, C, P), over everything but the channels: shape (C,)."""
    if x.shape[2] == 1:
        return channel_sums(x * y)
    total: Array = ones(len(x), x.dtype).dot(np.vecdot(x, y))
    return total


def require_divisible(owner: object, groups: int, **channels: int) -> None:
    """Refuse groups that do not share the channels out evenly."""
    for name, count in channels.items():
        if count % groups:
            raise ValueError(f"{type(owner).__name__}: groups: {groups} groups do not divide {name}, {count}")
