"""The private interfaces of torch that perturbation needs; see `oracles.perturbation.torch_operations`."""

from importlib import import_module

import numpy as np
import pytest

from oracles.perturbation.torch_operations import FUSED, perturbed_operands
from oracles.rule import Perturbation

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("module", "name"), [("torch.utils._python_dispatch", "TorchDispatchMode"), ("torch._decomp", "get_decompositions")]
)
def test_torch_has_the_private_interface(module, name):
    assert hasattr(import_module(module), name), f"torch {torch.__version__} has no {module}.{name}"


@pytest.mark.parametrize("name", FUSED.split())
def test_torch_decomposes(name):
    operation = getattr(torch.ops.aten, name, None)
    assert operation is not None, f"torch {torch.__version__} has no aten.{name}"
    decompositions = import_module("torch._decomp").get_decompositions([operation])
    assert decompositions, f"torch {torch.__version__} does not decompose aten.{name}"


def _perturbed(f, *tensors):
    with perturbed_operands(Perturbation(np.random.default_rng(0), 2.0**-10), tensors):
        return f(*tensors)


def test_an_operation_in_place_writes_into_its_operand():
    x = torch.ones(8)
    result = _perturbed(lambda x: x.mul_(3.0), x)
    assert result is x
    assert torch.any(x != 3.0)
    assert torch.all((x - 3.0).abs() <= 3 * 2.0**-10 * 1.01)


def test_an_operator_of_python_is_not_in_place():
    x, y = torch.tensor([True, True]), torch.tensor([True, False])
    result = _perturbed(lambda x, y: x & y, x, y)
    assert result.tolist() == [True, False]
    assert x.tolist() == [True, True]
    assert _perturbed(lambda x: x.__iand__(y), x) is x
    assert x.tolist() == [True, False]


def test_exact_operations_are_not_perturbed():
    x = torch.linspace(-1, 1, 7)
    assert torch.equal(_perturbed(lambda x: x.neg().relu().flip(0), x), x.neg().relu().flip(0))
