"""Show which tools refuse the wrong gradients of the gallery, and which refuse right ones.

Every tool sees the same subject at the same point:
  oracles       oracles.check as the script of docs/gallery/bugs calls it
  gradcheck     torch.autograd.gradcheck as it comes, and with fast_mode, of an autograd.Function around the subject
  check_grads   jax.test_util.check_grads(order=1, modes=["rev"]) of a jax.custom_vjp around the subject
  assert_close  torch.testing.assert_close as it comes, to torch's gradient for a random cotangent
  allclose 1e-2 np.allclose(rtol=1e-2, atol=1e-2), the rule of many kernel tests, after y.sum().backward()
"""

from __future__ import annotations

import ast
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be a benchmark

from oracles.environment import pin_threads  # noqa: E402

pin_threads()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import manual_bp  # noqa: E402
import oracles  # noqa: E402
from benchmarks.peers import HandWritten  # noqa: E402

BUGS = Path(__file__).resolve().parent.parent / "docs" / "gallery" / "bugs"
TOOLS = ("oracles", "gradcheck", "fast", "check_grads", "assert_close", "allclose 1e-2")
# The adapter makes a fresh object for each call, so that no other tool would meet the object's state.
NOT_ASKED = ("memory_stale_cache",)
Case = tuple[oracles.Rule, dict[str, Any], list[oracles.Rule]]


def bug(path: Path) -> tuple[str, Case]:
    """Return the heading of a script of the gallery, and its subject, primals and references."""
    source = path.read_text(encoding="utf-8")
    space: dict[str, Any] = {}
    exec(compile(source.rpartition("oracles.check(")[0], path.name, "exec"), space)
    words = ast.get_docstring(ast.parse(source)) or ""
    return words.split(". ")[0].split(": ")[0].removesuffix("."), (space["subject"], space["primals"], space["against"])


def right() -> dict[str, Case]:
    """Return right gradients at points that are not easy, by name."""
    rng = np.random.default_rng(0)
    dense, z = manual_bp.Linear(64, 32), rng.standard_normal((128, 64)).astype(np.float32)
    weights = dense.init(rng, np.float32)
    return {
        "a dense layer in float32": (
            oracles.manual_layer(dense),
            {"z": z, **weights},
            [oracles.torch_autograd(lambda z, W, b: z @ W + b)],
        ),
        "the same, inputs of size 1000": (
            oracles.manual_layer(dense),
            {"z": 1000 * z, **weights},
            [oracles.torch_autograd(lambda z, W, b: z @ W + b)],
        ),
        "ReLU at 0": (
            oracles.manual_layer(manual_bp.ReLU()),
            {"z": np.array([[0.0, 1.0, -2.0]])},
            [oracles.torch_autograd(torch.relu)],
        ),
        "ReLU within 1e-7 of 0": (
            oracles.manual_layer(manual_bp.ReLU()),
            {"z": np.array([[1e-7, 1.0, -1e-7]])},
            [oracles.torch_autograd(torch.relu)],
        ),
        "e^z from 10 to 25": (
            oracles.elementwise(np.exp, np.exp),
            {"z": np.linspace(10.0, 25.0, 6)[None]},
            [oracles.torch_autograd(torch.exp)],
        ),
    }


def _floating(case: Case) -> list[str]:
    """Return the primals that have a gradient."""
    subject, primals, _ = case
    y, pullback = subject(**primals)
    claimed = pullback(np.ones_like(y))
    return [name for name in primals if claimed.get(name) is not None and np.asarray(primals[name]).dtype.kind == "f"]


def by_oracles(case: Case) -> bool:
    """Whether this project refuses it."""
    try:
        oracles.check(*case)
    except oracles.Disagreement:
        return True
    return False


def by_gradcheck(case: Case, fast: bool = False) -> bool:
    """Whether gradcheck refuses it."""
    subject, primals, _ = case
    names = tuple(_floating(case))
    fixed = {name: value for name, value in primals.items() if name not in names}
    leaves = [torch.tensor(np.array(primals[name]), requires_grad=True) for name in names]
    return not torch.autograd.gradcheck(
        lambda *leaves: HandWritten.apply(subject, names, fixed, *leaves), leaves, fast_mode=fast, raise_exception=False
    )


def by_check_grads(case: Case) -> bool:
    """Whether check_grads refuses it."""
    subject, primals, _ = case
    names = _floating(case)
    fixed = {name: value for name, value in primals.items() if name not in names}
    y, _ = subject(**primals)

    def forward(*leaves: Any) -> Any:
        return np.asarray(subject(**dict(zip(names, map(np.array, leaves), strict=True)), **fixed)[0])

    def backward(delta: Any, *leaves: Any) -> tuple[Any, ...]:
        cotangents = subject(**dict(zip(names, map(np.array, leaves), strict=True)), **fixed)[1](np.array(delta))
        return tuple(np.asarray(cotangents[name]) for name in names)

    shapes = [jax.ShapeDtypeStruct(primals[name].shape, primals[name].dtype) for name in names]

    @jax.custom_vjp
    def f(*leaves: Any) -> Any:
        return jax.pure_callback(forward, jax.ShapeDtypeStruct(np.shape(y), np.asarray(y).dtype), *leaves)

    def bwd(kept: tuple[Any, ...], delta: Any) -> Any:
        return jax.pure_callback(backward, shapes, delta, *kept)

    f.defvjp(lambda *leaves: (f(*leaves), leaves), bwd)
    with jax.enable_x64(True):
        try:
            check_grads(f, [jax.numpy.asarray(primals[name]) for name in names], order=1, modes=["rev"])
        except Exception:  # an AssertionError, or what JAX raises when the callback's result has another shape
            return True
    return False


def _to_torch(case: Case, delta: Any, equal: Callable[[Any, Any], bool]) -> bool | None:
    """Whether a comparison with torch's gradient refuses the subject; None without a reference."""
    subject, primals, against = case
    if not against:
        return None
    expected = against[0](**primals)[1](delta)
    actual = subject(**primals)[1](delta.copy())
    right = {n: np.asarray(expected[n]).astype(primals[n].dtype) for n in _floating(case)}
    return not all(equal(np.asarray(actual[n]), g) for n, g in right.items())


def _assert_close(actual: Any, expected: Any) -> bool:
    try:
        torch.testing.assert_close(torch.tensor(actual), torch.tensor(expected))
    except AssertionError:
        return False
    return True


def by_assert_close(case: Case) -> bool | None:
    """Whether assert_close refuses it, for a random cotangent."""
    y = np.asarray(case[0](**case[1])[0])
    delta = np.asarray(np.random.default_rng(1).standard_normal(y.shape)).astype(y.dtype)
    return _to_torch(case, delta, _assert_close)


def by_allclose(case: Case) -> bool | None:
    """Whether a loose allclose refuses it, for a cotangent of ones."""
    y = np.asarray(case[0](**case[1])[0])
    return _to_torch(case, np.ones_like(y), lambda a, b: bool(np.allclose(a, b, rtol=1e-2, atol=1e-2)))


BY: Mapping[str, Callable[[Case], bool | None]] = {
    "oracles": by_oracles,
    "gradcheck": by_gradcheck,
    "fast": lambda case: by_gradcheck(case, fast=True),
    "check_grads": by_check_grads,
    "assert_close": by_assert_close,
    "allclose 1e-2": by_allclose,
}


def table(title: str, cases: Mapping[str, Case], only: Mapping[str, tuple[str, ...]] | None = None) -> list[str]:
    """Return a Markdown table: which tool refuses which case; a wrong answer is bold."""
    words = {None: "–", True: "refused", False: "passes"}
    mistaken = title.startswith("right")
    lines = [f"| {title} | {' | '.join(TOOLS)} |", f"| --- |{' --- |' * len(TOOLS)}"]
    totals = dict.fromkeys(TOOLS, 0)
    asked = dict.fromkeys(TOOLS, 0)
    for name, case in cases.items():
        answers = []
        for tool in TOOLS:
            refused = None if only and tool not in only.get(name, TOOLS) else BY[tool](case)
            answers.append(f"**{words[refused]}**" if refused is mistaken else words[refused])
            totals[tool] += refused is True
            asked[tool] += refused is not None
        lines.append(f"| {name} | {' | '.join(answers)} |")
    return [*lines, f"| **refused** | {' | '.join(f'{totals[tool]} of {asked[tool]}' for tool in TOOLS)} |"]


def main() -> None:
    """Print both tables."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    bugs = {path.stem: bug(path) for path in sorted(BUGS.glob("*.py"))}
    only = {bugs[name][0]: ("oracles",) for name in NOT_ASKED}
    print("\n".join(table("wrong gradient", dict(bugs.values()), only)), end="\n\n")
    print("\n".join(table("right gradient", right())))


if __name__ == "__main__":
    main()
