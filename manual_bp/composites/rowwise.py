"""A layer of rows, on every step of a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..protocol import Arrays, Cache, Params, as_tuple, untupled
from ..validation import require_parts, require_ranked, require_shape
from .around import Around


@dataclass(frozen=True)
class Rowwise(Around):
    """y_{n…} = f(z_{n…}) (74) for every index before the last; the rows' cotangents are f's, row by row (75).

    f sees all rows at once, (rows, columns), as it sees a batch: its gradients are sums over all of them, as in (8)
    and (9). So a `Linear` stands on every step of a sequence, or on every pixel. Parameters and side arrays are f's,
    under f's names.

    Shapes: z (…, n), y (…, m) where f maps (rows, n) to (rows, m). Dtypes: f's.
    Raises: ValueError where z has no axes or f gives another number of rows, TypeError for no layer.
    """

    @property
    def preserves_shape(self) -> bool:
        """Whether f does."""
        return bool(getattr(self.f, "preserves_shape", False))

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return f of every row, and f's side outputs."""
        z, *rest = require_parts(self, "forward", "z", z, self.inputs)
        require_ranked(self, "forward", "z", z)
        count = prod(z.shape[:-1])
        came, cache = self.f.forward(params, untupled((z.reshape(count, z.shape[-1]), *rest)))
        rows, *beside = as_tuple(came)
        require_shape(self, "forward", "f(z)", rows, (count, rows.shape[-1]), z, "z")
        y = rows.reshape(*z.shape[:-1], rows.shape[-1])
        return untupled((y, *beside)), (cache, z, y, rows.shape)

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return what f passes back to every row (75)."""
        inner, z, y, shape = cache
        delta, *rest = require_parts(self, "backward", "delta", delta, self.outputs)
        require_shape(self, "backward", "delta", delta, y.shape, y, "y")
        came, dparams = self.f.backward(inner, untupled((delta.reshape(shape), *rest)))
        rows, *beside = as_tuple(came)
        return untupled((rows.reshape(z.shape), *beside)), dparams
