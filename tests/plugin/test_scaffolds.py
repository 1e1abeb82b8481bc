"""``oracles new`` writes files that pass as soon as the formula is there, overwrites none, and ``explain`` explains."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
from projects import ROOT, outcomes

from oracles.__main__ import main
from oracles.properties import PROPERTIES
from oracles.registry import entries
from oracles.scaffolds.layer import file_name
from oracles.verdict import NOT_JUDGED, SKIPPED, Verdict

NET = """
import jax
import jax.numpy as jnp
import numpy as np
import torch


class Dense:
    def __init__(self, n_in, n_out):
        self.W, self.b = np.ones((n_in, n_out)), np.zeros(n_out)

    def fprop(self, z):
        self.z = z
        return z @ self.W + self.b

    def bprop(self, delta):
        self.grad_W, self.grad_b = self.z.T @ delta, delta.sum(0)
        return delta @ self.W.T


class Network:
    def __init__(self):
        self.params = {"W": np.ones((3, 2)), "b": np.ones((1, 2))}

    def forward(self, z):
        self.z = z
        return np.tanh(z @ self.params["W"] + self.params["b"])

    def backward(self, delta):
        e = delta / np.cosh(self.z @ self.params["W"] + self.params["b"]) ** 2
        self.grads = {"W": self.z.T @ e, "b": e.sum(axis=0, keepdims=True)}
        return e @ self.params["W"].T


class Layer:
    def __init__(self, n):
        self.n = n

    def init(self, rng, dtype=np.float64):
        return {"g": np.ones((1, self.n), dtype)}

    def forward(self, params, z):
        return z * params["g"], (z, params["g"])

    def backward(self, cache, delta):
        z, g = cache
        return delta * g, {"g": (delta * z).sum(axis=0, keepdims=True)}


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, delta):
        x, w = ctx.saved_tensors
        return delta @ w.T, x.T @ delta


class Module(torch.nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.linear = torch.nn.Linear(n_in, n_out)

    def forward(self, z):
        return torch.tanh(self.linear(z))


@jax.custom_vjp
def softplus(z):
    return jnp.logaddexp(z, 0)


softplus.defvjp(lambda z: (softplus(z), z), lambda z, delta: (delta / (1 + jnp.exp(-z)),))


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": delta.sum(axis=0, keepdims=True)}


three = 3
"""
ADAPTERS = {
    "Dense": "oracles.stateful(lambda: Dense(3, 2), forward='fprop', backward='bprop', params=['W', 'b']",
    "Network": "oracles.stateful(Network, params={'W': \"params['W']\"",
    "Layer": "oracles.manual_layer(Layer(3))",
    "Product": "oracles.torch_function(Product)",
    "Module": "oracles.torch_module(Module(3, 2))",
    "softplus": "oracles.jax_function(softplus)",
    "forward,backward": "oracles.manual(forward, backward)",
}
WRONG = [
    ("self.z.T @ delta, delta.sum(0)", "self.z.T @ delta, delta.mean(0)"),
    ("(delta * z).sum(", "(delta * z).mean("),
    ("return delta @ w.T, x.T @ delta", "return delta @ w.T, -(x.T @ delta)"),
    ("(delta / (1 + jnp.exp(-z)),)", "(delta / (1 + jnp.exp(z)),)"),
    ('"b": delta.sum(axis=0', '"b": delta.mean(axis=0'),
    ('"b": e.sum(axis=0', '"b": e.mean(axis=0'),
]


@pytest.mark.slow
def test_a_test_of_each_kind_judges_it(project, monkeypatch, capsys):
    project.write("net.py", NET)
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, line in ADAPTERS.items():
        assert main(["new", "test", f"net.py:{name}"]) == 0
        assert line in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "net", raising=False)
    assert outcomes(project.pytest()) == {"passed": len(ADAPTERS)}
    wrong = NET
    for right, mistake in WRONG:
        assert wrong.count(right) == 1
        wrong = wrong.replace(right, mistake)
    project.write("net.py", wrong)
    assert outcomes(project.pytest()) == {"failed": len(WRONG), "passed": len(ADAPTERS) - len(WRONG)}


@pytest.mark.parametrize("file", ["colorsys.py", "my-net.py"])
def test_a_file_is_imported_by_its_own_name(project, monkeypatch, file):
    """Here another module has the name of the first already; the second name is no identifier."""
    project.write(file, NET)
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "colorsys", sys)
    assert main(["new", "test", f"{file}:Network"]) == 0
    assert outcomes(project.pytest()) == {"passed": 1}


def test_nothing_is_overwritten_and_what_cannot_be_tested_is_said(project, monkeypatch, capsys):
    project.write("net.py", NET)
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["new", "test", "net.py:Network"]) == 0
    (file,) = project.folder.glob("test_*.py")
    file.write_text("mine")
    for arguments, message in {
        ("test", "net.py:Network"): f"{file.name} exists already",
        ("test", "net.py:three"): "no adapter fits three",
        ("test", "net.py:Netwerk"): "did you mean Network?",
        ("layer", "Scale"): "is not the folder of this project",
        ("layr", "Scale"): "did you mean layer?",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            main(["new", *arguments])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
    assert file.read_text() == "mine"
    monkeypatch.delitem(sys.modules, "net", raising=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of this project with the scaffold of a layer."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("manual_bp", "oracles", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "docs").mkdir()
    for name in ("pyproject.toml", "conftest.py", "docs/derivation.md"):
        shutil.copy(ROOT / name, folder / name)
    process = run(folder, "-m", "oracles", "new", "layer", "RowScale")
    assert process.returncode == 0, process.stderr
    assert "manual_bp/row_scale.py" in process.stdout
    return folder


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=environment(folder)
    )


def environment(folder):
    return {**os.environ, "PYTHONPATH": str(folder), "CI": "1"}


FILES = ["manual_bp/row_scale.py", "oracles/references/row_scale.py", "tests/planted_bugs/row_scale.py"]
FILES += ["tests/manual_bp/test_row_scale.py", "manual_bp/__init__.py"]
FORMULA = {
    "manual_bp/row_scale.py": {
        'raise NotImplementedError("RowScale: write y of': "return z * g  # ",
        'raise NotImplementedError("RowScale: write the gradients': "return delta * g, delta * z  # ",
    },
    "oracles/references/row_scale.py": {
        'raise NotImplementedError("RowScale: write y in torch': "return z * g  # ",
        'raise NotImplementedError("RowScale: write y in JAX': "return z * g  # ",
    },
}


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("ruff") and find_spec("mypy")), reason="ruff and mypy are of the extra dev")
def test_a_new_layer_says_what_is_missing_and_passes_with_its_formula(copy):
    lint = ("-m", "ruff", "check", "--no-cache", *FILES)
    form = ("-m", "ruff", "format", "--no-cache", "--check", *FILES)
    types = ("-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache"), "manual_bp/row_scale.py", FILES[1])
    verify = ("-m", "oracles", "verify", "RowScale", "--max-examples", "6", "--against", "torch", "--dtype", "float64")
    for command in (lint, form, types):
        assert (process := run(copy, *command)).returncode == 0, process.stdout + process.stderr
    process = run(copy, *verify)
    assert process.returncode == 1
    assert "1 layer not judged (RowScale)" in process.stdout
    assert "write y of equation (103) in _value, manual_bp/row_scale.py" in process.stdout
    assert "| (103) | y = … | `RowScale.forward` |" in (copy / "docs" / "derivation.md").read_text()
    for file, formulas in FORMULA.items():
        text = (copy / file).read_text()
        for missing, formula in formulas.items():
            assert text.count(missing) == 1
            text = text.replace(missing, formula)
        (copy / file).write_text(text)
    assert (process := run(copy, *verify)).returncode == 0, process.stdout + process.stderr
    tests = ("tests/manual_bp/test_row_scale.py", "tests/test_planted_bugs.py", "tests/test_completeness.py")
    own = ("-k", "RowScale or row_scale or three_bugs", "-p", "no:randomly", "-p", "no:cacheprovider")
    assert (process := run(copy, "-m", "pytest", "-q", *tests, *own)).returncode == 0, process.stdout
    again = run(copy, "-m", "oracles", "new", "layer", "RowScale")
    assert again.returncode == 2
    assert "exists already; nothing is written" in again.stderr


def test_names_of_files():
    names = {"Linear": "linear", "GroupNorm": "group_norm", "LSTM": "lstm", "RMSNorm": "rms_norm", "Conv3d": "conv3d"}
    assert {name: file_name(name) for name in names} == names


@pytest.mark.parametrize(
    ("layer", "parts"),
    [
        ("Linear", ["∂L/∂W = zᵀδ", "W (n_in, n_out)", "F.linear(", "jnp.einsum(", "bias=draw(st.booleans())"]),
        ("ReLU", ["at 0: 0", "torch.relu(z)", "jax.nn.relu(z)"]),
        ("SGD", ["torch", "primal_agrees"]),
    ],
)
def test_a_layer_is_explained(layer, parts, capsys):
    assert main(["explain", layer]) == 0
    printed = capsys.readouterr().out
    assert [part for part in parts if part not in printed] == []


def test_everything_that_is_named_is_explained(capsys):
    for word in (*map(str, Verdict), *PROPERTIES, NOT_JUDGED, SKIPPED, "inconclusive", *(e.name for e in entries())):
        assert main(["explain", word]) == 0
        assert len(capsys.readouterr().out) > len(word) + 20
    with pytest.raises(SystemExit):
        main(["explain", "wrnog"])
    assert "did you mean wrong?" in capsys.readouterr().err
