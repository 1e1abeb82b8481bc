"""A command imports what it uses, and nothing else: the packages that a small check loads."""

import json
import subprocess
import sys

import pytest
from projects import ROOT

from oracles.lazy_modules import LazyModule

PAIR = """
import numpy as np

def forward(z):
    return np.tanh(z), np.tanh(z)

def backward(y, delta):
    return {"z": delta * (1 - y * y)}
"""
LOADED = """
import json, sys
from oracles.__main__ import main
status = main(sys.argv[1:])
print(json.dumps([status, sorted(sys.modules)]))
"""
# Each takes a tenth of a second or more to import.
HEAVY = {
    "torch", "torch._dynamo", "sympy", "jax", "hypothesis", "pytest", "scipy", "pandas", "matplotlib", "rich",
    "cloudpickle", "manual_bp", "flint", "oracles.search", "oracles.perturbation.torch_operations",
    "oracles.perturbation.jaxpr", "oracles.diagnosis.diagnose",
}  # fmt: skip


def loaded(folder, *arguments):
    """The heavy modules that the command loads."""
    (folder / "pair.py").write_text(PAIR)
    process = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    status, modules = json.loads(process.stdout.splitlines()[-1])
    assert status == 0, process.stdout
    return HEAVY & set(modules)


CHECK = ("check", "pair.py:forward,backward", "--shapes", "z=3,2")


def test_a_numpy_pair_without_a_reference_loads_no_framework_and_no_search(tmp_path):
    assert loaded(tmp_path, *CHECK) <= {"flint"}


@pytest.mark.slow
def test_a_torch_reference_loads_torch_and_not_its_compiler(tmp_path):
    reference = "torch:lambda z: 1 - 2 / (1 + torch.exp(2 * z))"
    expected = {"torch", "oracles.perturbation.torch_operations"}
    assert expected <= loaded(tmp_path, *CHECK, "--against", reference) <= {*expected, "flint"}


def test_help_loads_nothing(tmp_path):
    code = "import sys, oracles.__main__ as m; m.make_parser(); print(sorted(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not any(f"'{name}'" in process.stdout for name in (*HEAVY, "numpy"))


def test_a_lazy_module_is_imported_at_its_first_attribute():
    module = LazyModule("fractions")
    assert module.Fraction(1, 2) == 0.5
