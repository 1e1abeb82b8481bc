"""Shapes of primals as text, ``z=4,3 idx=4:int<3``: how each is drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from oracles.constants import LEAST_POSITIVE
from oracles.registry import Unusable
from oracles.strategies import Drawn, indices, probabilities, real

_SHAPE = re.compile(r"(?P<name>[^\s=:]+)=(?P<dims>\d*(?:,\d+)*),?(?::(?P<kind>\w+)(?:<(?P<below>\d+))?)?")
_SHAPES_HELP = (
    'expected "name=extents" separated by spaces, with a kind where it is no signed number: '
    "positive, probabilities, int<K, bool.\n"
    'Fix:    --shapes "z=4,3 W=3,2 b=1,2 idx=4:int<3 s="'
)


def parse_shapes(text: str) -> dict[str, Drawn]:
    """Return how to draw each primal that ``--shapes`` names.

    Raises:
        Unusable: (a ValueError) where the text cannot be read; quotes the part and shows the syntax.
    """
    drawn: dict[str, Drawn] = {}
    for part in text.split():
        match = _SHAPE.fullmatch(part)
        kind = _KINDS.get((match["kind"] or "real") if match else "")
        if match is None or kind is None or (match["kind"] == "int") != (match["below"] is not None):
            raise Unusable(f"--shapes: cannot read {part!r}: {_SHAPES_HELP}")
        if match["name"] in drawn:
            raise Unusable(f"--shapes: {match['name']!r} is named twice")
        dims = tuple(int(extent) for extent in match["dims"].split(",") if extent)
        if match["below"] is not None and int(match["below"]) < 1:
            raise Unusable(f"--shapes: {part!r}: there is no integer from 0 below {match['below']}")
        drawn[match["name"]] = kind(dims, int(match["below"] or 1))
    if not drawn:
        raise Unusable(f"--shapes: nothing in {text!r}: {_SHAPES_HELP}")
    return drawn


def _probabilities(dims: tuple[int, ...], below: int) -> Drawn:
    if not dims:
        raise Unusable("--shapes: probabilities need at least one axis, over which they sum to one")
    return probabilities(*dims)


_KINDS: Mapping[str, Callable[[tuple[int, ...], int], Drawn]] = {
    "real": lambda dims, below: real(*dims),
    "positive": lambda dims, below: Drawn(dims, lambda rng, shape, _: LEAST_POSITIVE + rng.exponential(size=shape)),
    "probabilities": _probabilities,
    "int": lambda dims, below: indices(*dims, below=below),
    "bool": lambda dims, below: Drawn(dims, lambda rng, shape, _: np.asarray(rng.random(shape) < 0.5)),
}
