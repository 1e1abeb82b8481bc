"""Judge one subject in this very process, as most verifiers do: exit status 0 means that it passes.

    python benchmarks/red_team_in_process.py naive|check FILE:NAME REFERENCE_FILE:NAME SHAPES DTYPE COMPARISON

It is run by benchmarks/red_team.py, in a process of its own, since a subject may do anything to it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be a benchmark

from oracles.environment import pin_threads  # noqa: E402

pin_threads()

import numpy as np  # noqa: E402
import torch  # noqa: E402

import oracles  # noqa: E402
from oracles.cli.subjects import adapt, find_target  # noqa: E402

TOLERANCE = 1e-5
# How verifiers compare. Each is a habit that is found in public ones.
COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "np.allclose": lambda actual, expected: np.allclose(actual, expected),
    "assert_allclose": lambda actual, expected: np.testing.assert_allclose(actual, expected, rtol=TOLERANCE) is None,
    "torch.allclose": lambda actual, expected: torch.allclose(torch.as_tensor(actual), torch.as_tensor(expected)),
    "np.abs": lambda actual, expected: not np.abs(actual - expected).max() > TOLERANCE,
    "np.all": lambda actual, expected: np.all(np.less_equal(np.abs(np.subtract(actual, expected)), TOLERANCE)),
    "relative": lambda actual, expected: (
        not (np.max(np.abs(actual - expected) / np.maximum(np.abs(actual), np.abs(expected))) > TOLERANCE)
    ),
    "builtins": lambda actual, expected: all(
        abs(a - e) <= TOLERANCE for a, e in zip(np.asarray(actual).flat, np.asarray(expected).flat, strict=False)
    ),
}


def load(path: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def point(shapes: str, seed: int, dtype: str) -> dict[str, Any]:
    """Draw the primals of ``z=4,3 W=3,2``, which are real."""
    rng = np.random.default_rng(seed)
    named = (part.split("=") for part in shapes.split())
    return {n: rng.standard_normal([int(extent) for extent in dims.split(",")]).astype(dtype) for n, dims in named}


def gradients_of(module: ModuleType, name: str, primals: Mapping[str, Any]) -> tuple[Any, Any, Mapping[str, Any]]:
    """Return the output, its cotangent, which is all ones, and the gradients."""
    if name == "forward,backward":
        y, cache = module.forward(**primals)
        delta = np.ones_like(y)
        return y, delta, module.backward(cache, delta)
    function = getattr(module, name)
    tensors = {n: torch.tensor(a, requires_grad=True) for n, a in primals.items()}
    output = function.apply(*tensors.values())
    output.sum().backward()
    y = output.detach().numpy()
    return y, np.ones_like(y), {n: t.grad.numpy() for n, t in tensors.items()}


def naive(target: str, reference_file: str, shapes: str, dtype: str, comparison: str) -> None:
    """Compare with torch in the way that is usual: the gradient of the sum, np.allclose, the seeds 0 and 1."""
    path, _, name = target.partition(".py:")
    module = load(f"{path}.py", "subject")
    reference_path, _, reference_name = reference_file.rpartition(":")
    opened = open(reference_path)  # noqa: SIM115  # as a verifier that reads it for its cache
    reference = getattr(load(reference_path, "references"), reference_name)
    for seed in range(2):
        primals = point(shapes, seed, dtype)
        y, delta, gradients = gradients_of(module, name, primals)
        tensors = {n: torch.tensor(a, requires_grad=a.dtype.kind == "f") for n, a in primals.items()}
        output = reference(**tensors)
        real = [n for n, t in tensors.items() if t.requires_grad]
        answers = torch.autograd.grad(output, [tensors[n] for n in real], torch.from_numpy(delta), allow_unused=True)
        expected = {n: g.numpy() for n, g in zip(real, answers, strict=True)}
        same = COMPARISONS[comparison]
        if not same(y, output.detach().numpy()):
            raise AssertionError("the outputs differ")
        for each, gradient in gradients.items():
            if gradient is not None and not same(gradient, expected[each]):
                raise AssertionError(f"the gradients of {each} differ")
    opened.close()
    print("PASSED")


def check(target: str, reference_file: str, shapes: str, dtype: str) -> None:
    """Judge by oracles.check, in this process."""
    subject, name, _ = find_target(target)
    rule = adapt(subject, name=name)
    path, _, reference_name = reference_file.rpartition(":")
    reference = getattr(load(path, "references"), reference_name)
    for seed in range(2):
        oracles.check(rule, point(shapes, seed, dtype), [oracles.torch_autograd(reference)], seed=seed)
    print("PASSED")


if __name__ == "__main__":
    which, *arguments = sys.argv[1:]
    if which == "naive":
        naive(*arguments)
    else:
        check(*arguments[:4])
