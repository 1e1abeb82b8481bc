"""How many terms an operation sums, in torch and in NumPy: the size of its rounding errors follows from that alone."""

import numpy as np
import pytest

from oracles import torch_autograd
from oracles.constants import CONFIDENCE, SIGN_SIZES
from oracles.numerics import unit_roundoff
from oracles.perturbation.numpy_arrays import perturbed_array
from oracles.perturbation.torch_operations import perturbed_operands
from oracles.rule import Perturbation, RoundingErrors
from oracles.tolerance import tolerance_at

torch = pytest.importorskip("torch")
aten = torch.ops.aten
H = 2.0**-20


class Lengths(list):
    """Stands for the method of a perturbation; remembers the lengths that it is asked for."""

    def __call__(self, perturbation, terms):
        self.append(terms)
        return RoundingErrors(perturbation.relative)


@pytest.fixture
def lengths(monkeypatch):
    asked = Lengths()
    monkeypatch.setattr(Perturbation, "of_length", lambda self, terms, product=False: asked(self, terms))
    return asked


def ones(*shape):
    return torch.ones(shape, dtype=torch.float64)


TORCH = {
    "x * x": (lambda: ones(1000) * ones(1000), 1),
    "x + 1": (lambda: ones(1000) + 1, 1),
    "exp": (lambda: ones(1000).exp(), 1),
    "leaky_relu": (lambda: aten.leaky_relu(ones(1000)), 1),
    "in place": (lambda: ones(1000).mul_(2.5), 1),
    "sum": (lambda: ones(10, 7).sum(), 70),
    "sum of an axis": (lambda: ones(10, 7).sum(0), 10),
    "mean of two axes": (lambda: ones(10, 7, 3).mean((0, 2)), 30),
    "cumsum": (lambda: ones(10, 7).cumsum(1), 7),
    "norm": (lambda: torch.linalg.vector_norm(ones(10, 7), dim=1), 7),
    "mm": (lambda: ones(3, 5) @ ones(5, 90), 5),
    "bmm": (lambda: ones(2, 3, 5) @ ones(2, 5, 90), 5),
    "dot": (lambda: ones(9) @ ones(9), 9),
    "baddbmm": (lambda: torch.baddbmm(ones(2, 3, 90), ones(2, 3, 5), ones(2, 5, 90)), 5),
    "conv2d": (lambda: torch.conv2d(ones(2, 4, 50, 50), ones(6, 4, 3, 3)), 37),
    "conv2d in groups": (lambda: torch.conv2d(ones(2, 4, 50, 50), ones(6, 2, 3, 3), groups=2), 19),
    "conv_transpose2d": (lambda: torch.conv_transpose2d(ones(2, 4, 50, 50), ones(4, 6, 3, 3)), 37),
    "avg_pool2d": (lambda: torch.nn.functional.avg_pool2d(ones(1, 1, 50, 50), 3), 9),
    "fft": (lambda: torch.fft.rfft(ones(3, 16)), 16),
    "inverse fft": (lambda: torch.fft.irfft(torch.fft.rfft(ones(3, 16)), n=16), 16),
    "index_add": (lambda: ones(5, 40).index_add(0, torch.tensor([0, 2, 2, 2]), ones(4, 40)), 4),
    "scatter_add": (lambda: ones(50).scatter_add(0, torch.tensor([0, 2, 2, 2]), ones(4)), 4),
    "index_put": (lambda: ones(50).index_put((torch.tensor([0, 2, 2]),), ones(3), accumulate=True), 3),
    "embedding": (lambda: aten.embedding_dense_backward(ones(3, 30), torch.tensor([1, 2, 2]), 9, -1, False), 2),
    "windows that do not overlap": (lambda: aten.max_pool2d_with_indices_backward(
        ones(1, 1, 4, 4), ones(1, 1, 8, 8), [2, 2], [2, 2], [0, 0], [1, 1], False, torch.zeros(1, 1, 4, 4, dtype=int)
    ), 1),
    "windows that overlap": (lambda: aten.max_pool2d_with_indices_backward(
        ones(1, 1, 7, 7), ones(1, 1, 8, 8), [2, 2], [1, 1], [0, 0], [1, 1], False, torch.zeros(1, 1, 7, 7, dtype=int)
    ), 4),
    "col2im": (lambda: torch.nn.functional.fold(ones(1, 9, 16), 6, 3), 9),
    "unknown": (lambda: torch.linalg.inv(torch.eye(7, dtype=torch.float64) / 3), 7),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_torch_operations(name, lengths):
    call, expected = TORCH[name]
    with perturbed_operands(Perturbation(np.random.default_rng(0), H), []):
        call()
    assert max(lengths) == expected


def test_each_cotangent_of_a_convolution_has_its_own_length(lengths):
    x, w, b = ones(2, 4, 10, 10).requires_grad_(), ones(6, 4, 3, 3).requires_grad_(), ones(6).requires_grad_()
    y = torch.conv2d(x, w, b)
    with perturbed_operands(Perturbation(np.random.default_rng(0), H), [x, w, y]):
        y.backward(torch.ones_like(y))
    assert lengths == [55, 128, 128]  # 6·3·3 and one for the bias; 2·8·8


def numpy_array(*shape):
    return perturbed_array(np.ones(shape), Perturbation(np.random.default_rng(0), H))


NUMPY = {
    "x * x": (lambda: numpy_array(1000) * numpy_array(1000), 1),
    "exp": (lambda: np.exp(numpy_array(1000)), 1),
    "outer": (lambda: np.multiply.outer(numpy_array(30), numpy_array(40)), 1),
    "sum": (lambda: numpy_array(10, 7).sum(), 70),
    "sum of an axis": (lambda: np.sum(numpy_array(10, 7), axis=0), 10),
    "mean": (lambda: numpy_array(10, 7, 3).mean((0, 2)), 30),
    "cumsum": (lambda: numpy_array(10, 7).cumsum(1), 7),
    "accumulate": (lambda: np.add.accumulate(numpy_array(10, 7), axis=1), 7),
    "matmul": (lambda: numpy_array(3, 5) @ numpy_array(5, 90), 5),
    "dot": (lambda: numpy_array(9).dot(numpy_array(9)), 9),
    "tensordot": (lambda: np.tensordot(numpy_array(3, 4, 5), numpy_array(4, 5, 90), axes=2), 20),
    "einsum": (lambda: np.einsum("bij,bjk->bik", numpy_array(90, 3, 5), numpy_array(90, 5, 2)), 5),
    "einsum with dots": (lambda: np.einsum("...ij,...j->...i", numpy_array(90, 3, 5), numpy_array(90, 5)), 5),
    "einsum without an output": (lambda: np.einsum("ij,jk", numpy_array(90, 5), numpy_array(5, 80)), 5),
    "convolve": (lambda: np.convolve(numpy_array(90), numpy_array(3)), 3),
    "add.at": (lambda: np.add.at(numpy_array(50), np.array([0, 2, 2, 2]), numpy_array(4)), 4),
    "fft": (lambda: np.fft.rfft(numpy_array(3, 16)), 16),
    "fft2": (lambda: np.fft.fft2(numpy_array(3, 4, 16)), 64),
    "unknown": (lambda: np.linalg.inv(perturbed_array(np.eye(7), Perturbation(np.random.default_rng(0), H))), 7),
}


@pytest.mark.parametrize("name", NUMPY)
def test_numpy_operations(name, lengths):
    call, expected = NUMPY[name]
    call()
    assert max(lengths) == expected


@pytest.mark.parametrize("n", [2, 100, 100_000])
def test_the_tolerance_of_a_product_does_not_grow_with_its_size(n):
    square, z = torch_autograd(lambda z: z * z), np.random.default_rng(0).standard_normal(n)
    tolerance = tolerance_at([square], {"z": z}, np.ones(n), "float32", fallback=square).estimate(20)
    largest = SIGN_SIZES[1] * CONFIDENCE * unit_roundoff("float32")
    assert np.all(tolerance["output"] <= 2.01 * largest * z * z)
    assert np.all(tolerance["z"] <= 6.01 * CONFIDENCE * unit_roundoff("float32") * np.abs(2 * z))
