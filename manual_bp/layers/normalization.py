"""What batch, layer and root-mean-square normalization share: x̂ = (x − μ)/√(σ² + ε) over groups, and its pullback.

A group is a row, or a channel of a batch: whatever has a mean and a variance in common. Nothing is lost that need not
be. The deviations come before the squares, and are corrected by their own mean, which the rounding of μ has moved from
0: so a large common offset costs no digits, and equal entries deviate by 0 up to the last bit or two of ε.
Where a group has one degree of freedom only, its cotangent is ε/(σ² + ε)^{3/2} of δ, a difference of nearly equal
numbers in the general formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..precision import ones, scalar
from ..protocol import Array
from .channels import channel_products, channel_sums


class Groups(Protocol):
    """How an array falls into groups; means have a shape that broadcasts against the array."""

    def size(self, x: Array) -> int:
        """Return the number of entries in a group."""
        ...

    def mean(self, x: Array) -> Array:
        """Return the mean of each group."""
        ...

    def mean_product(self, x: Array, y: Array) -> Array:
        """Return the mean of the products x y over each group."""
        ...


class Rows:
    """Each row of (N, n) is a group."""

    def size(self, x: Array) -> int:
        """Return n."""
        return int(x.shape[1])

    def mean(self, x: Array) -> Array:
        """Return the mean of each row, (N, 1)."""
        n = x.shape[1]
        total: Array = x.dot(ones((n, 1), x.dtype))
        total /= n
        return total

    def mean_product(self, x: Array, y: Array) -> Array:
        """Return the mean of the products along each row, (N, 1)."""
        mean: Array = np.vecdot(x, y)[:, None] / x.shape[1]
        return mean


class Channels:
    """Each channel of (N, C, P) is a group, over all samples and places; over none of them, means are 0."""

    def size(self, x: Array) -> int:
        """Return N P."""
        return int(x.shape[0] * x.shape[2])

    def mean(self, x: Array) -> Array:
        """Return the mean of each channel, (C, 1)."""
        total: Array = channel_sums(x)[:, None]
        return total / max(self.size(x), 1)

    def mean_product(self, x: Array, y: Array) -> Array:
        """Return the mean of the products over each channel, (C, 1)."""
        return channel_products(x, y)[:, None] / max(self.size(x), 1)


@dataclass(frozen=True)
class Normalized:
    """x̂, with the mean μ (0 where it is not subtracted) and the variance of each group, and 1/√(σ² + ε)."""

    x_hat: Array
    mean: Any
    variance: Array
    scale: Array


def normalized(x: Array, groups: Groups, eps: Any, *, centred: bool = True) -> Normalized:
    """Return x̂ = (x − μ)/√(σ² + ε), or without μ."""
    mean: Any = 0
    deviation = x
    if centred:
        mean = groups.mean(x)
        deviation = x - mean
        correction = groups.mean(deviation)
        deviation -= correction
        mean += correction
    variance = groups.mean_product(deviation, deviation)
    scale: Array = 1 / np.sqrt(variance + scalar(eps, x))
    x_hat: Array = np.multiply(deviation, scale, out=deviation if centred else None)
    return Normalized(x_hat, mean, variance, scale)


def pull_back(g: Array, of: Normalized, groups: Groups, eps: Any, *, centred: bool = True) -> None:
    """Overwrite g = ∂L/∂x̂, of mean ḡ, with ∂L/∂x = (g − ḡ − x̂ mean(g x̂))/√(σ² + ε)."""
    if centred:
        g -= groups.mean(g)
    if groups.size(g) - centred <= 1:  # then g − ḡ is a multiple of x̂, and mean(x̂²) = 1 − ε/(σ² + ε)
        g *= scalar(eps, g) * of.scale * of.scale
    else:
        g -= of.x_hat * groups.mean_product(g, of.x_hat)
    g *= of.scale
