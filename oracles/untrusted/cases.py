"""The points at which an untrusted subject is judged: from shapes whose extents may be drawn, or from stored arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from oracles.adapters.conventions import declared
from oracles.cli.stored_arrays import arrays_of
from oracles.drawn_shapes import parse_shapes
from oracles.numerics import PRECISIONS, precision_of
from oracles.options import did_you_mean
from oracles.rule import Array, InvalidInput, Pullback, Rule, is_differentiable
from oracles.untrusted.schema import require_valid
from oracles.untrusted.wire import DTYPES

# What entries are replaced by at every third point: what kinks, masks and rounding to integers depend on.
SPECIAL_VALUES = (0.0, -0.0, 0.5, -0.5, 1.0, -1.0)
SPECIAL_SHARE = 0.2
# How the magnitudes of real primals are drawn, by the number of the point.
MAGNITUDES = (1.0, 1.0, 1.0, 0.05, 6.0)
DEFAULT_POINTS = 3
_DECLARATIONS = tuple(name for name in signature(declared).parameters if name != "rule")


@dataclass(frozen=True)
class UntrustedCase:
    """What one case of a job says.

    Attributes:
        shapes: as of ``oracles check --shapes``; an extent may be a name of ``extents``: ``z=n,3``.
        stored: the primals themselves, in place of shapes.
        stored_in: the file that these are from.
        extents: the least and the largest extent by name, or those of which one is drawn.
        dtypes: the dtypes of the real primals.
        points: how many points are drawn in each dtype.
        wrt: the primals whose gradients are required; by default all real ones.
        options: of `oracles.check`: "kinks", "precision".
        declared: the arguments of `oracles.declared`.
    """

    shapes: str = ""
    stored: Mapping[str, Array] | None = None
    stored_in: str = ""
    extents: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ("float64",)
    points: int = DEFAULT_POINTS
    wrt: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    declared: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class UntrustedPoint:
    """One point of a case: the position of both, and the primals by name."""

    case: int
    point: int
    dtype: str
    primals: Mapping[str, Array]


def cases_of(cases: str | Path | Sequence[Mapping[str, Any]]) -> list[UntrustedCase]:
    """Return the cases of a job.

    Args:
        cases: a list of objects, see `oracles.untrusted.schema.CASES`; or a file: JSON of ``{"cases": [...]}``, or
            ``.npz`` with the primals of one point.

    Raises:
        InvalidInput: if it cannot be read.
    """
    if isinstance(cases, str | Path):
        path = Path(cases)
        if path.suffix == ".npz":
            return [_of_arrays(arrays_of(str(path), "--primals"), {})]
        try:
            contents = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InvalidInput(f"cases: {path} cannot be read: {error}") from None
        require_valid(contents, "cases file", f"cases: {path}")
        cases = contents["cases"]
    assert not isinstance(cases, str | Path)
    listed = [dict(each) for each in cases]
    require_valid(listed, "cases", "cases")
    return [_case(each) for each in listed]


def _case(contents: Mapping[str, Any]) -> UntrustedCase:
    options = {name: contents[name] for name in ("kinks", "precision") if name in contents}
    _require_declarations(options, contents.get("declared", {}))
    wrt = tuple(contents["wrt"]) if "wrt" in contents else None
    shared = {"wrt": wrt, "options": options, "declared": contents.get("declared", {})}
    if "primals" in contents:
        return _of_arrays(arrays_of(contents["primals"], "--primals"), {**shared, "stored_in": contents["primals"]})
    extents, dtypes = contents.get("extents", {}), tuple(contents.get("dtypes", ("float64",)))
    unknown = [dtype for dtype in dtypes if dtype not in DTYPES or DTYPES[dtype].kind in "iub"]
    if unknown:
        raise InvalidInput(f"cases: dtypes: expected floating ones, got {unknown[0]!r}")
    case = UntrustedCase(
        contents["shapes"], None, "", extents, dtypes, contents.get("points", DEFAULT_POINTS), **shared
    )
    parse_shapes(_with_extents(case, {name: bounds[0] for name, bounds in extents.items()}))  # an error now, not later
    return case


def _identity(z: Array) -> tuple[Array, Pullback]:
    return z, lambda delta: {"z": delta}


def _require_declarations(options: Mapping[str, Any], declarations: Mapping[str, Any]) -> None:
    """Require a known precision, and declarations that `oracles.declared` takes.

    Raises:
        InvalidInput: for others.
    """
    if "precision" in options and options["precision"] not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise InvalidInput(f"cases: precision: expected one of {known}, got {options['precision']!r}")
    unknown = [name for name in declarations if name not in _DECLARATIONS]
    if unknown:
        near = did_you_mean(unknown[0], _DECLARATIONS)
        raise InvalidInput(f"cases: declared: expected {', '.join(_DECLARATIONS)}, got {unknown[0]!r}{near}")
    try:
        declared(Rule(_identity), **declarations)
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"cases: declared: {error}") from None


def _of_arrays(arrays: Mapping[str, Array], shared: Mapping[str, Any]) -> UntrustedCase:
    return UntrustedCase(stored=arrays, dtypes=(precision_of(arrays),), points=1, **shared)


def points_of(cases: Sequence[UntrustedCase], seed: int) -> list[UntrustedPoint]:
    """Return the points of all cases in random order. They are the same for the same seed."""
    points = [
        UntrustedPoint(i, j, dtype, _primals(case, dtype, j, np.random.default_rng((seed, i, j, k))))
        for i, case in enumerate(cases)
        for k, dtype in enumerate(case.dtypes)
        for j in range(case.points)
    ]
    order = np.random.default_rng((seed, 1)).permutation(len(points))
    return [points[i] for i in order]


def _primals(case: UntrustedCase, dtype: str, number: int, rng: np.random.Generator) -> dict[str, Array]:
    if case.stored is not None:
        return dict(case.stored)
    drawn = parse_shapes(_with_extents(case, {n: _extent(bounds, rng) for n, bounds in case.extents.items()}))
    magnitude = MAGNITUDES[number % len(MAGNITUDES)]
    primals = {n: np.asarray(each.sample(rng, DTYPES[dtype], magnitude)) for n, each in drawn.items()}
    if number % 3 == 2:
        for name, each in drawn.items():
            if each.special and is_differentiable(primals[name]):
                _set_special(primals[name], rng)
    return primals


def _set_special(array: Array, rng: np.random.Generator) -> None:
    """Replace some entries by special values, and some by others of the same array, so that there are ties."""
    if array.ndim == 0:
        return
    chosen = rng.random(array.shape) < SPECIAL_SHARE
    array[chosen] = rng.choice(SPECIAL_VALUES, int(chosen.sum())).astype(array.dtype)
    tied = rng.random(array.shape) < SPECIAL_SHARE / 2
    if array.size:
        array[tied] = array.flat[int(rng.integers(array.size))]


def _extent(bounds: Sequence[int], rng: np.random.Generator) -> int:
    if len(bounds) == 2 and bounds[0] < bounds[1]:
        return int(rng.integers(bounds[0], bounds[1] + 1))
    return int(bounds[int(rng.integers(len(bounds)))])


def _with_extents(case: UntrustedCase, extents: Mapping[str, int]) -> str:
    """Return the shapes with numbers for the names of extents."""

    def numbers(match: re.Match[str]) -> str:
        dims = [str(extents[dim]) if dim in extents else dim for dim in match["dims"].split(",")]
        return f"{match['name']}={','.join(dims)}"

    text = re.sub(r"(?P<name>[^\s=]+)=(?P<dims>[\w,]*)", numbers, case.shapes)
    left = re.search(r"=[\d,]*([A-Za-z_]\w*)[\w,]*(?=[\s:]|$)", text)
    if left:
        raise InvalidInput(
            f"cases: shapes: {left[1]!r} is no number and no name of extents.\n"
            f'Fix:    "extents": {{"{left[1]}": [1, 65]}}'
        )
    return text
