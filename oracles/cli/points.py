"""The points of ``oracles check``: primals from a file, from shapes, or from the subject's own file."""

from __future__ import annotations

import inspect
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import numpy as np

from oracles.registry import Unusable, display_name
from oracles.rule import Array, Primals, Rule, is_differentiable
from oracles.strategies import LEAST_POSITIVE, Drawn, indices, probabilities, real

# (seed, dtype, or None to keep the dtypes) -> primals
Source: TypeAlias = Callable[[int, str | None], dict[str, Array]]

_SHAPE = re.compile(r"(?P<name>[^\s=:]+)=(?P<dims>\d*(?:,\d+)*),?(?::(?P<kind>\w+)(?:<(?P<below>\d+))?)?")
_SHAPES_HELP = (
    'expected "name=extents" separated by spaces, with a kind where it is no signed number: '
    "positive, probabilities, int<K, bool.\n"
    'Fix:    --shapes "z=4,3 W=3,2 b=1,2 idx=4:int<3 s="'
)


def source(primals: str | None, shapes: str | None, module: ModuleType, subject: Rule) -> Source:
    """Return the function that gives the primals for a seed and a dtype, by the first source that is given.

    Raises:
        Unusable: (a ValueError) if there is no source, or it cannot be read; lists the possible ones.
    """
    if primals is not None:
        stored = arrays_of(primals, "--primals")
        return lambda seed, dtype: _cast(stored, dtype)
    if shapes is not None:
        drawn = parse_shapes(shapes)
        return lambda seed, dtype: _draw(drawn, subject, seed, dtype or "float64")
    if hasattr(module, "primals"):
        return partial(_from_module, module.primals, f"primals in {display_name(module)}")
    raise Unusable(
        f"no primals are given for {subject.name}.\n"
        'Fix:    --shapes "z=4,3 W=3,2", or --primals FILE.npz, or primals = {"z": ...} in the file'
    )


def arrays_of(path: str, option: str) -> dict[str, Array]:
    """Read a ``.npz`` file (or one ``.npy`` array, under the name "delta").

    Raises:
        Unusable: (a ValueError) if there is no such file, or it holds something else; says how to write it.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise Unusable(f"{option}: no file {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise Unusable(
            f"{option}: {path} is no file of arrays: {error}.\nFix:    np.savez({path!r}, z=z, W=W)"
        ) from None
    if isinstance(loaded, np.ndarray):
        if option == "--primals":
            raise Unusable(
                f"{option}: {path} holds one array without a name.\nFix:    np.savez({str(Path(path).stem)!r}, z=array)"
            )
        return {"delta": loaded}
    with loaded:
        return {name: loaded[name] for name in loaded.files}


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


def _draw(drawn: Mapping[str, Drawn], subject: Rule, seed: int, dtype: str) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    arrays = {name: np.asarray(each.sample(rng, dtype, 1.0)) for name, each in drawn.items()}
    return arrays | {n: a for n, a in _parameters(subject, rng, dtype).items() if n not in arrays}


def _parameters(subject: Rule, rng: np.random.Generator, dtype: str) -> dict[str, Array]:
    """Return what a layer's own ``init`` draws, constant arrays (zeros, ones) replaced: they hide errors."""
    init = getattr(subject.implementation, "init", None)
    if init is None:
        return {}
    params = {name: np.asarray(a) for name, a in init(rng, np.dtype(dtype)).items()}
    constant = {name for name, a in params.items() if a.dtype.kind == "f" and a.size and np.ptp(a) == 0}
    return {name: rng.standard_normal(a.shape).astype(a.dtype) if name in constant else a for name, a in params.items()}


def _from_module(primals: object, what: str, seed: int, dtype: str | None) -> dict[str, Array]:
    """Return the primals that a file defines: a mapping, or a function of a random generator or of nothing."""
    if callable(primals):
        takes = len(inspect.signature(primals).parameters)
        primals = primals(np.random.default_rng(seed)) if takes else primals()
    if not isinstance(primals, Mapping) or not primals:
        raise Unusable(
            f"{what}: expected a dict of arrays by name, or a function rng -> dict, got {primals!r:.60} "
            f'({type(primals).__name__}).\nFix:    primals = {{"z": np.ones((4, 3))}}'
        )
    return _cast({str(name): np.asarray(a) for name, a in primals.items()}, dtype)


def _cast(primals: Primals, dtype: str | None) -> dict[str, Array]:
    return {n: a.astype(dtype) if dtype and is_differentiable(a) else a for n, a in primals.items()}
