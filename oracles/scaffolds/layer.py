"""The files of a new layer of `manual_bp`: layer, reference case, planted bugs, test, and the lines in existing files.

What stands in them is right for any layer of one parameter; the formula is missing, and every place that needs it
raises NotImplementedError with a sentence of what to write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

LAYER = '''"""{name}: say in one line what the layer does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from ._precision import ones
from ._validation import real_dtype, require_affine, require_count, require_shape
from .protocol import Array, Cache, Params


@dataclass(frozen=True)
class {name}:
    """Say in one line what the layer does to each row.

        y = …                           ({eq})
        ∂L/∂g = Σ_rows …                ({eq1})
        ∂L/∂z = …                       ({eq1})

    Args:
        n: the number of columns of z and y.

    Shapes: z, y (N, n), g (1, n); N may be 0.
    Dtypes: z, g share one of float16, float32, float64, longdouble, object; y and gradients have it too.

    Raises:
        ValueError: for a wrong shape or parameter name.
        TypeError: for a wrong or mixed dtype.

    Source: docs/derivation.md, eq. ({eq})–({eq1}).
    """

    n: int

    def __post_init__(self) -> None:
        require_count(self, "", "n", self.n)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return g = 1."""
        return {{"g": np.ones((1, self.n), real_dtype(self, dtype))}}

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return y ({eq})."""
        require_affine(self, "forward", z, self.n, params, {{"g": (1, self.n)}})
        return _value(z, params["g"]), (z, params["g"])

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return ∂L/∂z, and ∂L/∂g with the sum over the rows ({eq1})."""
        z, g = cache
        require_shape(self, "backward", "delta", delta, z.shape, z, "y")
        dz, dg_of_rows = _cotangents(z, g, delta)
        return dz, {{"g": ones((1, len(z)), z.dtype).dot(dg_of_rows)}}


def _value(z: Array, g: Array) -> Array:
    """Return y ({eq}); a new array."""
    raise NotImplementedError("{name}: write y of equation ({eq}) in _value, manual_bp/{file}.py")


def _cotangents(z: Array, g: Array, delta: Array) -> tuple[Array, Array]:
    """Return ∂L/∂z and the part of each row in ∂L/∂g ({eq1}), both of the shape of z."""
    raise NotImplementedError("{name}: write the gradients of equation ({eq1}) in _cotangents, manual_bp/{file}.py")
'''

REFERENCE = '''"""Reference cases of `{name}`."""

from __future__ import annotations

from hypothesis import strategies as st

from manual_bp import {name}
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import JaxArray, Tensor
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import real, rows, widths


def {file}_torch(z: Tensor, g: Tensor) -> Tensor:
    """Say how torch writes it: the forward alone, as its users would."""
    raise NotImplementedError("{name}: write y in torch, in {file}_torch of oracles/references/{file}.py")


def {file}_jax(z: JaxArray, g: JaxArray) -> JaxArray:
    """Say how JAX writes it: the forward alone, in another way than torch if there is one."""
    raise NotImplementedError("{name}: write y in JAX, in {file}_jax of oracles/references/{file}.py")


{upper}_REFERENCE = Reference({file}_torch, {file}_jax)


@oracle_for({name}, reference={upper}_REFERENCE)
def {file}(draw: st.DrawFn) -> Case:
    """Any width and any number of rows."""
    n_rows, layer = draw(rows()), {name}(draw(widths()))
    primals = {{"z": real(n_rows, layer.n), "g": real(1, layer.n)}}
    return {upper}_REFERENCE.case(manual_layer(layer), primals, batched=("z",))
'''

BUGS = '''"""Bugs in {name}: replace them by the mistakes that somebody would make with this very formula."""

from __future__ import annotations

import numpy as np

import manual_bp as m
from oracles.strategies import real
from planted_bugs.planting import Mutant, bug, case_of


def {file}():
    return case_of(m.{name}(3), z=real(4, 3))


@bug("constant_factor", {file}())
def gradient_of_the_wrong_sign(layer):
    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        return -dz, grads

    return Mutant(layer, backward)


@bug("delta_abs", {file}(), refused_by="additive_in_delta")
def absolute_value_of_delta(layer):
    return Mutant(layer, lambda cache, delta: layer.backward(cache, np.abs(delta)))


@bug("delta_ones", {file}(), refused_by="additive_in_delta")
def delta_assumed_to_be_ones(layer):
    return Mutant(layer, lambda cache, delta: layer.backward(cache, np.ones_like(delta)))
'''

TEST = '''"""{name}: shapes, dtypes, empty batches, and errors; `oracles verify {name}` judges its gradients."""

import numpy as np
import pytest

import manual_bp as m


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("n_rows", [0, 1, 4])
def test_shapes_and_dtypes(n_rows, dtype):
    layer, rng = m.{name}(3), np.random.default_rng(0)
    params, z = layer.init(rng, dtype), rng.standard_normal((n_rows, 3)).astype(dtype)
    y, cache = layer.forward(params, z)
    dz, grads = layer.backward(cache, np.ones_like(y))
    assert (y.shape, dz.shape, grads["g"].shape) == (z.shape, z.shape, (1, 3))
    assert y.dtype == dz.dtype == grads["g"].dtype == dtype
    assert not np.shares_memory(y, z)


def test_{file}_refuses():
    with pytest.raises(ValueError, match="{name}: n"):
        m.{name}(-1)
    layer = m.{name}(3)
    params = layer.init(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"{name}.forward: z: expected shape \\(N, 3\\)"):
        layer.forward(params, np.ones((2, 4)))
    _, cache = layer.forward(params, np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"{name}.backward: delta"):
        layer.backward(cache, np.ones((2, 4)))
'''

FILES = {
    "manual_bp/{file}.py": LAYER,
    "oracles/references/{file}.py": REFERENCE,
    "tests/planted_bugs/{file}.py": BUGS,
    "tests/manual_bp/test_{file}.py": TEST,
}
EXPORTS = "manual_bp/__init__.py"
DERIVATION = "docs/derivation.md"
_ROW = re.compile(r"^\| \((?:\d+\)–\()?(?P<last>\d+)\) \|.*$", re.MULTILINE)


def file_name(name: str) -> str:
    """Return the name of a layer as that of its file: "GroupNorm" is in group_norm.py."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def layer_files(root: Path, name: str) -> dict[Path, str]:
    """Return the texts of the new files of a layer, and of the files that get a line, by path.

    Args:
        root: the folder of the project.
        name: the name of the layer's class.

    Raises:
        ValueError: if the folder is not the project's, the name is no class name, or a file exists already.
    """
    if not (re.fullmatch(r"[A-Z]\w*", name) and name.isidentifier()):
        raise ValueError(f"NAME: expected the name of a class, such as GroupNorm, got {name!r}")
    missing = [path for path in (EXPORTS, "oracles/references", DERIVATION) if not (root / path).exists()]
    if missing:
        raise ValueError(
            f"new layer: {root} is not the folder of this project: it has no {missing[0]}.\n"
            "Fix:    run it there; in a project of your own, oracles new test FILE.py:CLASS"
        )
    file = file_name(name)
    derivation = (root / DERIVATION).read_text(encoding="utf-8")
    rows = list(_ROW.finditer(derivation))
    number = max((int(row["last"]) for row in rows), default=0) + 1
    names = {"name": name, "file": file, "upper": file.upper(), "eq": str(number), "eq1": str(number + 1)}
    texts = {root / path.format(file=file): text.format(**names) for path, text in FILES.items()}
    existing = [str(path.relative_to(root)) for path in texts if path.exists()]
    if existing:
        raise ValueError(f"new layer: {', '.join(existing)} exists already; nothing is written")
    return texts | {
        root / EXPORTS: _with_export((root / EXPORTS).read_text(encoding="utf-8"), file, name),
        root / DERIVATION: _with_rows(derivation, rows, names),
    }


def _with_export(text: str, file: str, name: str) -> str:
    """Return the text of the package with one more export, in the order of the modules."""
    line = f"from .{file} import {name} as {name}"
    lines = text.splitlines()
    exports = [i for i, each in enumerate(lines) if each.startswith("from .")]
    at = next((i for i in exports if lines[i].split()[1] > f".{file}"), exports[-1] + 1)
    return "\n".join([*lines[:at], line, *lines[at:]]) + "\n"


def _with_rows(text: str, rows: list[re.Match[str]], names: Mapping[str, str]) -> str:
    """Return the derivation with two more rows in the table of its end."""
    new = ("| ({eq}) | y = … | `{name}.forward` |\n| ({eq1}) | ∂L/∂z = …, ∂L/∂g = … | `{name}.backward` |").format(
        **names
    )
    end = rows[-1].end() if rows else len(text)
    return f"{text[:end]}\n{new}{text[end:]}"
