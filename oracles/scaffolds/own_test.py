"""A test of a user's own code, with the adapter that its kind needs and a point at which it runs."""

from __future__ import annotations

import inspect
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from oracles.adaptable import adapting_line, kind_of, positional
from oracles.adapters.suggestions import (
    FORWARDS,
    attributes_of,
    first_method,
    inputs_of,
    required_arguments,
)
from oracles.cli.subjects import find_target
from oracles.environment import write_atomically
from oracles.lazy_modules import torch
from oracles.registry import Unusable
from oracles.user_code import Raised, attempt

Shape: TypeAlias = tuple[int, ...]
Value: TypeAlias = Any  # whatever the user named

TEST = '''"""The gradients of {what}, judged by oracles."""

{imports}


def test_gradients_of_{slug}():
    rng = np.random.default_rng(0)
    primals = {primals}
    subject = {subject}
    # Without `against`, finite differences of the forward judge the backward. A reference judges the forward too:
    #     against=[oracles.torch_autograd(lambda {names}: ...)], the forward alone, in torch
    oracles.check(subject, primals)
'''
# The shapes that inputs are tried in: rows of three numbers, a weight to two, a bias, single numbers.
_ROWS: Shape = (4, 3)
_SHAPES: Sequence[Shape] = (_ROWS, (3, 2), (1, 2), (2,), (1, 3), (3,), (3, 3), (4, 2), (2, 3), (4,), ())
MOST_TRIED = 2000  # combinations of shapes
SIZES = (3, 2, 4, 5)  # for the arguments of a class, in their order


def write_test(target: str) -> tuple[Path, str]:
    """Write a test of ``FILE.py:NAME`` or ``MODULE:NAME``; return its path, and the line that adapts the subject.

    Raises:
        ValueError: if there is nothing of this name, no adapter fits it, or the test exists already.
    """
    subject, name, module = find_target(target)
    slug = re.sub(r"\W+", "_", name).strip("_").lower()
    file = Path(getattr(module, "__file__", None) or "")
    in_package = (file.parent / "__init__.py").exists()
    stem = re.sub(r"\W", "_", file.stem) if file.name and not in_package else module.__name__.rpartition(".")[2]
    folder = Path("tests") if in_package and Path("tests").is_dir() else Path() if in_package else file.parent
    path = folder / f"test_{slug if slug.startswith(stem) else f'{stem}_{slug}'}.py"
    if path.exists():
        raise ValueError(f"new test: {os.path.relpath(path)} exists already; nothing is written")
    text, line = test_of(subject, name, module, f"{name} in {module.__name__ if in_package else file.name}", slug)
    write_atomically(path, text)
    return Path(os.path.relpath(path)), line


def test_of(subject: Value, name: str, module: ModuleType, what: str, slug: str) -> tuple[str, str]:
    """Return the text of the test, and the line that adapts the subject.

    Raises:
        Unusable: (a ValueError) if no adapter fits; says what can be tested.
    """
    kind = kind_of(subject)
    if kind is None:
        raise Unusable(
            f"new test: no adapter fits {name}.\nFix:    name a class with forward and backward, a torch.nn.Module, a "
            "torch.autograd.Function, a jax.custom_vjp, or a pair: FILE.py:forward,backward"
        )
    make, made = _instance(subject, name)
    primals = _primals(subject, made)
    known = {n: np.zeros(shape) for n, shape in primals.items()}
    line = adapting_line(subject if made is None else made, known, name=make)
    line = line.replace(f"lambda: {name}()", name)
    imported = sorted({each for each in re.split(r"\W+", name) if each and hasattr(module, each)})
    imports = _imports(module, imported)
    parameters = _own_parameters(made, make)
    shapes = ", ".join(f'"{n}": rng.standard_normal({shape})' for n, shape in primals.items())
    text = TEST.format(
        what=what, imports=imports, slug=slug, primals=f"{{{shapes}}}{parameters}", subject=line,
        names=", ".join(n for n in primals if n.isidentifier()),
    )  # fmt: skip
    return text, line


def _imports(module: ModuleType, names: Sequence[str]) -> str:
    """Return the imports of a test: it finds a file outside of packages by its own name, whatever this process has."""
    file = Path(getattr(module, "__file__", None) or "")
    alone = bool(file.name) and not (file.parent / "__init__.py").exists()
    name = file.stem if alone else module.__name__
    packages = "import numpy as np\n\nimport oracles\n"
    if all(part.isidentifier() for part in name.split(".")):
        return f"{packages}from {name} import {', '.join(names)}"
    lines = "\n".join(f"{each} = _file.{each}" for each in names)
    return f'import importlib\n\n{packages}\n_file = importlib.import_module("{name}")\n{lines}'


def _instance(subject: Value, name: str) -> tuple[str, Value]:
    """Return how to make an instance of a class, and the instance; the sizes among its arguments are small."""
    if not isinstance(subject, type) or _is_function_of_torch(subject):
        return name, subject
    required = required_arguments(subject)
    for sizes in itertools.permutations(SIZES, min(len(required), len(SIZES))):
        made = attempt(lambda sizes=sizes: subject(*sizes))  # type: ignore[misc]
        if not isinstance(made, Raised):
            return f"{name}({', '.join(map(str, sizes))})", made
    return f"{name}({', '.join(f'{n}=...' for n in required)})", None


def _is_function_of_torch(subject: type) -> bool:
    kind = kind_of(subject)
    return kind is not None and "autograd.Function" in kind.description


def _own_parameters(made: Value, make: str) -> str:
    """Return the part of the point that a layer or a module draws itself, as an expression."""
    if hasattr(made, "named_parameters"):
        return f" | {{n: p.detach().double().numpy() for n, p in {make}.named_parameters()}}"
    if hasattr(made, "init") and _is_layer(made):  # zeros and ones, which many layers draw, would hide errors
        return f" | {{n: rng.standard_normal(a.shape) for n, a in {make}.init(rng).items()}}"
    return ""


def _is_layer(made: Value) -> bool:
    kind = kind_of(made)
    return kind is not None and kind.made


def _primals(subject: Value, made: Value) -> dict[str, Shape]:
    """Return the names and the shapes of the primals at which the forward runs; rows of numbers where none is found."""
    if made is None:
        return dict.fromkeys(inputs_of(subject) or ["z"], _ROWS)
    names, call, fixed = _forward(made)
    for shapes in itertools.islice(_combinations(len(names)), MOST_TRIED):
        arrays = [np.ones(shape) for shape in shapes]
        y = attempt(lambda arrays=arrays: call(*arrays))  # type: ignore[misc]
        if not isinstance(y, Raised):
            return dict(zip(names, shapes, strict=True)) | fixed
    return dict.fromkeys(names, _ROWS) | fixed


def _combinations(count: int) -> Iterator[tuple[Shape, ...]]:
    """Yield shapes for so many inputs, those first that matrices, weights and biases have."""
    first = (_ROWS, (3, 2), (1, 2), (1, 2))
    if count <= len(first):
        yield first[:count]
    yield from itertools.product(_SHAPES, repeat=count)


def _forward(made: Value) -> tuple[list[str], Callable[..., Value], dict[str, Shape]]:
    """Return the names of the inputs of a forward, the forward itself, and the shapes of its parameters."""
    if isinstance(made, tuple | list):
        return positional(made[0]), made[0], {}
    if isinstance(made, type):  # a torch.autograd.Function
        return inputs_of(made), _on_tensors(getattr(made, "apply", made)), {}
    if hasattr(made, "named_parameters"):  # an nn.Module
        return inputs_of(made), _on_tensors(made), {}
    if _is_layer(made):
        params = made.init(np.random.default_rng(0)) if hasattr(made, "init") else {}
        names = [n for n in inputs_of(made) if n != "params"]
        return names, (lambda *arrays: made.forward(params, *arrays)) if len(names) == 1 else made.forward, {}
    if inspect.isroutine(made) or (callable(made) and not first_method(made, FORWARDS)) or hasattr(made, "fwd"):
        return positional(getattr(made, "fun", made)), made, {}
    attributes = attributes_of(made)
    shapes = {n: attributes.shapes[place] for n, place in attributes.parameters.items() if place in attributes.shapes}
    return inputs_of(made), getattr(made, first_method(made, FORWARDS)), shapes


def _on_tensors(f: Value) -> Callable[..., Value]:
    return lambda *arrays: f(*(torch.as_tensor(a, dtype=torch.get_default_dtype()) for a in arrays))
