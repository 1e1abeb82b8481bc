"""The private interfaces of torch that perturbation needs; see `oracles.perturbation.torch_operations`."""

from importlib import import_module

import numpy as np
import pytest

from oracles import manual, torch_autograd
from oracles.constants import SIGN_SIZES
from oracles.decision.judge import judge
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
    assert torch.all((x - 3.0).abs() <= 3 * 2.0**-10 * 1.01 * SIGN_SIZES[1])


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


def test_integer_constants_are_exact_and_given_integers_are_not():
    x = torch.full((8,), 3.0, dtype=torch.float64)
    assert torch.equal(_perturbed(lambda: x * torch.full((8,), 2.0, dtype=torch.float64)), 2 * x)
    assert torch.any(_perturbed(lambda x: x * 2.0, x) != 2 * x)


def _moved(f):
    """Whether the output and the gradient of f are perturbed, and neither is NaN."""
    x = torch.linspace(-1.0, 1.0, 9, dtype=torch.float64).requires_grad_()
    plain = f(x)
    (gradient,) = torch.autograd.grad(plain.sum(), x)
    with perturbed_operands(Perturbation(np.random.default_rng(0), 2.0**-10), [x], careful=True):
        y = f(x)
        (dx,) = torch.autograd.grad(y.sum(), x)
    assert not any(part.isnan().any() for part in (y, dx))
    return bool((y != plain).any()), bool((dx != gradient).any())


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x ** torch.tensor(3.0, dtype=x.dtype),  # an exponent beside 3 has no value at negative numbers
        lambda x: torch.acos(x.detach()) + x,  # 1 and -1 are the ends of the domain
        lambda x: torch.nn.functional.binary_cross_entropy(x.abs(), x.detach().sign().clamp(0), reduction="none"),
        lambda x: torch.nn.functional.binary_cross_entropy(x.abs(), torch.full_like(x, 1 / 3), reduction="none"),
    ],
)
def test_operands_stay_inside_the_domain(f):
    assert any(_moved(f))


def test_an_operation_that_raises_is_evaluated_inside_its_domain():
    p = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)

    def raises_outside(p):  # not decomposed, and it refuses numbers beyond [0, 1]
        return torch.bernoulli(p)

    with perturbed_operands(Perturbation(np.random.default_rng(0), 2.0**-10), [p]):
        assert raises_outside(p)[0].abs() < 2.0**-9


def test_every_use_of_a_sum_sees_a_rounding_of_its_own():
    """Σ a·b = 0 in exact arithmetic: a rounding error relative to the sum would be none."""
    a = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.1], [-1.1]], dtype=torch.float64)

    def difference_of_uses(seed):
        with perturbed_operands(Perturbation(np.random.default_rng(seed), 2.0**-10), [a, b]):
            y = a @ b
            first, second = y * 1.0, y.reshape(1, 1) * 1.0
        return (first - second).abs()

    # In some samples both uses meet the same signs.
    assert max(map(difference_of_uses, range(8))) > 2.0**-12


def test_attention_in_one_kernel_is_taken_apart():
    q = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = []
    with perturbed_operands(Perturbation(np.random.default_rng(0), 0.0), [q]) as operations:
        run = operations.run
        operations.run = lambda operation, *rest: (
            seen.append(operation.overloadpacket.__name__) or run(operation, *rest)
        )
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert "bmm" in seen
    assert not any("attention" in name for name in seen)


def test_complex_numbers_move_by_a_share_of_their_modulus():
    z = torch.complex(torch.full((64,), 1.0, dtype=torch.float64), torch.full((64,), 1e-6, dtype=torch.float64))
    moved = _perturbed(lambda z: z * 1.0, z) - z
    least, most = SIGN_SIZES
    for part in (moved.real.abs() * 2**10, moved.imag.abs() * 2**10):
        assert torch.all((part > least - 2.0**-10) & (part < most + 2.0**-10))


@pytest.mark.parametrize("factor", [1.0, 1 + 2e-3])
def test_exponential_of_a_small_matrix_rounds_by_its_norm(factor):
    def skew(w, stack):
        zero = 0 * w[0]
        return stack([stack([zero, -w[2], w[1]]), stack([w[2], zero, -w[0]]), stack([-w[1], w[0], zero])])

    def rotation(w):
        angle, k = np.sqrt(w @ w), skew(w, np.stack)
        return np.eye(3) + np.sin(angle) / angle * k + factor * (1 - np.cos(angle)) / angle**2 * k @ k, w

    reference = torch_autograd(lambda w: torch.matrix_exp(skew(w, torch.stack)))
    subject = manual(rotation, lambda w, delta: {"w": None})
    result = judge(subject, {"w": np.array([1e-3, 2e-3, -1e-3])}, np.ones((3, 3)), [reference], only=["output"])
    assert result.refuses == (factor != 1)
