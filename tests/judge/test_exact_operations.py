"""Every operation that is listed as exact rounds nothing: each entry of its result is an operand's, up to its sign.

The operands are random, so a sum or a product of two entries is never the value of a third.
"""

import numpy as np
import pytest

from oracles.perturbation import numpy_arrays
from oracles.perturbation.numpy_arrays import perturbed_array
from oracles.perturbation.torch_operations import EXACT_OPERATIONS, perturbed_operands
from oracles.rule import Perturbation

torch = pytest.importorskip("torch")
aten = torch.ops.aten

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
IMAGE = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
PLANE = IMAGE[0, 0]
BITS = torch.arange(24).reshape(4, 6)
REPEATED = torch.tensor([1, 1, 0, 1])  # an operation that adds where indices are equal shows it here
INDEX = torch.tensor([[1, 1, 0, 0, 1, 1]] * 4)
ONCE = torch.tensor([[0, 1, 2, 3, 1, 0]])
# A window of 3 by 3 every row and column: up to 9 windows meet in a cell.
OVERLAPPING = ([3, 3], [1, 1], [0, 0], [1, 1])

CALLS = {
    "_conj_physical": lambda: aten._conj_physical(torch.complex(X, Y)),
    "_local_scalar_dense": lambda: torch.tensor(aten._local_scalar_dense(X[0, 0]), dtype=torch.float64),
    "_to_copy": lambda: aten._to_copy(X),
    "_unsafe_view": lambda: aten._unsafe_view(X, [6, 4]),
    "abs": lambda: aten.abs(X),
    "alias": lambda: aten.alias(X),
    "amax": lambda: aten.amax(X, [0]),
    "amin": lambda: aten.amin(X, [0]),
    "argmax": lambda: aten.argmax(X, 0),
    "argmin": lambda: aten.argmin(X, 0),
    "as_strided": lambda: aten.as_strided(X, [5, 3], [2, 1]),
    "bitwise_and": lambda: aten.bitwise_and(BITS, 3),
    "bitwise_not": lambda: aten.bitwise_not(BITS),
    "bitwise_or": lambda: aten.bitwise_or(BITS, 3),
    "bitwise_xor": lambda: aten.bitwise_xor(BITS, 3),
    "broadcast_to": lambda: aten.broadcast_to(X[:1], [4, 6]),
    "cat": lambda: aten.cat([X, Y]),
    "ceil": lambda: aten.ceil(X),
    "clamp": lambda: aten.clamp(X, Y - 1, Y),
    "clamp_max": lambda: aten.clamp_max(X, Y),
    "clamp_min": lambda: aten.clamp_min(X, Y),
    "clone": lambda: aten.clone(X),
    "complex": lambda: aten.complex(X, Y),
    "conj_physical": lambda: aten.conj_physical(torch.complex(X, Y)),
    "constant_pad_nd": lambda: aten.constant_pad_nd(X, [1, 2], 0.0),
    "contiguous": lambda: aten.contiguous(X.T),
    "copy": lambda: aten.copy(X, Y),
    "copy_": lambda: aten.copy_(X.clone(), Y),
    "copysign": lambda: aten.copysign(X, Y),
    "detach": lambda: aten.detach(X),
    "diag_embed": lambda: aten.diag_embed(X),
    "diagonal": lambda: aten.diagonal(X),
    "diagonal_backward": lambda: aten.diagonal_backward(X[0, :4], [4, 6], 0, 0, 1),
    "embedding": lambda: aten.embedding(X, REPEATED),
    "empty": lambda: aten.empty([0]),
    "empty_like": lambda: aten.empty_like(X[:0]),
    "eq": lambda: aten.eq(X, Y),
    "equal": lambda: torch.tensor(aten.equal(X, Y)),
    "expand": lambda: aten.expand(X[:1], [4, 6]),
    "expand_as": lambda: aten.expand_as(X[:1], Y),
    "eye": lambda: aten.eye(3),
    "fill": lambda: aten.fill(X, Y[0, 0]),
    "fill_": lambda: aten.fill_(X.clone(), Y[0, 0]),
    "flip": lambda: aten.flip(X, [0]),
    "floor": lambda: aten.floor(X),
    "fmax": lambda: aten.fmax(X, Y),
    "fmin": lambda: aten.fmin(X, Y),
    "full": lambda: aten.full([3], 1.0),
    "full_like": lambda: aten.full_like(X, 1.0),
    "gather": lambda: aten.gather(X, 0, INDEX),
    "ge": lambda: aten.ge(X, Y),
    "gt": lambda: aten.gt(X, Y),
    "hardtanh": lambda: aten.hardtanh(X, -1.0, 1.0),
    "im2col": lambda: aten.im2col(IMAGE, [3, 3], [1, 1], [0, 0], [1, 1]),
    "index": lambda: aten.index(X, [REPEATED]),
    "index_put": lambda: aten.index_put(X, [REPEATED], Y),
    "index_select": lambda: aten.index_select(X, 0, REPEATED),
    "isfinite": lambda: aten.isfinite(X),
    "isinf": lambda: aten.isinf(X),
    "isnan": lambda: aten.isnan(X),
    "kthvalue": lambda: aten.kthvalue(X, 2)[0],
    "le": lambda: aten.le(X, Y),
    "lift_fresh": lambda: aten.lift_fresh(X),
    "lt": lambda: aten.lt(X, Y),
    "masked_fill": lambda: aten.masked_fill(X, Y > 0, 0.0),
    "masked_scatter": lambda: aten.masked_scatter(X, Y > 0, Y),
    "masked_select": lambda: aten.masked_select(X, Y > 0),
    "max": lambda: (aten.max(X, 0)[0], aten.max(X), aten.max(X, Y)),
    "max_pool2d_with_indices": lambda: aten.max_pool2d_with_indices(IMAGE, *OVERLAPPING)[0],
    "maximum": lambda: aten.maximum(X, Y),
    "median": lambda: (aten.median(X), aten.median(X, 0)[0]),
    "min": lambda: (aten.min(X, 0)[0], aten.min(X), aten.min(X, Y)),
    "minimum": lambda: aten.minimum(X, Y),
    "nan_to_num": lambda: aten.nan_to_num(X),
    "ne": lambda: aten.ne(X, Y),
    "neg": lambda: aten.neg(X),
    "new_empty": lambda: aten.new_empty(X, [0]),
    "new_empty_strided": lambda: aten.new_empty_strided(X, [0], [1]),
    "new_full": lambda: aten.new_full(X, [3], 1.0),
    "new_ones": lambda: aten.new_ones(X, [3]),
    "new_zeros": lambda: aten.new_zeros(X, [3]),
    "one_hot": lambda: aten.one_hot(REPEATED),
    "nonzero": lambda: aten.nonzero(X > 0).double().sign(),
    "ones": lambda: aten.ones([3]),
    "ones_like": lambda: aten.ones_like(X),
    "permute": lambda: aten.permute(X, [1, 0]),
    "relu": lambda: aten.relu(X),
    "repeat": lambda: aten.repeat(X, [2, 2]),
    "reshape": lambda: aten.reshape(X, [6, 4]),
    "roll": lambda: aten.roll(X, [1], [0]),
    "round": lambda: aten.round(X),
    "scalar_tensor": lambda: aten.scalar_tensor(1.0),
    "scatter": lambda: aten.scatter(X, 0, INDEX, Y),
    "select": lambda: aten.select(X, 0, 1),
    "select_backward": lambda: aten.select_backward(X[0], [4, 6], 0, 1),
    "sgn": lambda: aten.sgn(X),
    "sign": lambda: aten.sign(X),
    "signbit": lambda: aten.signbit(X),
    "slice": lambda: aten.slice(X, 0, 1, 4, 2),
    "slice_backward": lambda: aten.slice_backward(X, [8, 6], 0, 0, 8, 2),
    "sort": lambda: aten.sort(X)[0],
    "split": lambda: aten.split(X, 2),
    "split_with_sizes": lambda: aten.split_with_sizes(X, [1, 3]),
    "squeeze": lambda: aten.squeeze(X[:1]),
    "stack": lambda: aten.stack([X, Y]),
    "t": lambda: aten.t(X),
    "take": lambda: aten.take(X, REPEATED),
    "threshold_backward": lambda: aten.threshold_backward(X, Y, 0.0),
    "topk": lambda: aten.topk(X, 2)[0],
    "transpose": lambda: aten.transpose(X, 0, 1),
    "tril": lambda: aten.tril(X),
    "triu": lambda: aten.triu(X),
    "trunc": lambda: aten.trunc(X),
    "unbind": lambda: aten.unbind(X),
    "unfold": lambda: aten.unfold(X, 1, 3, 1),
    "unsqueeze": lambda: aten.unsqueeze(X, 0),
    "value_selecting_reduction_backward": lambda: aten.value_selecting_reduction_backward(
        X[:1], 0, ONCE, [4, 6], keepdim=True
    ),
    "view": lambda: aten.view(X, [6, 4]),
    "view_as": lambda: aten.view_as(X, Y),
    "where": lambda: aten.where(X > 0, X, Y),
    "zero_": lambda: aten.zero_(X.clone()),
    "zeros": lambda: aten.zeros([3]),
    "zeros_like": lambda: aten.zeros_like(X),
}
ROUNDS_TO_INTEGERS = {"ceil", "floor", "round", "trunc"}


def numbers(results):
    """The absolute values among results, as a set of floats."""
    parts = results if isinstance(results, tuple | list) else [results]
    flat = [torch.view_as_real(p.resolve_conj()) if p.is_complex() else p for p in parts]
    return {v for p in flat for v in p.double().abs().reshape(-1).tolist()}


@pytest.mark.parametrize("name", sorted(EXACT_OPERATIONS))
def test_an_exact_operation_returns_entries_of_its_operands(name):
    assert hasattr(aten, name)
    result = numbers(CALLS[name]())
    known = {0.0, 1.0} | numbers([X, Y, IMAGE, Y - 1])
    assert {v for v in result - known if not v.is_integer()} == set()
    if name not in ROUNDS_TO_INTEGERS and not name.startswith(("arg", "bitwise")):
        assert {v for v in result - known if v.is_integer()} == set()


def add_scatter():
    return aten.scatter(X, 0, INDEX, Y, reduce="add")


# Their results are sums wherever indices are equal or windows overlap.
SUMS = {
    "max-pooling": lambda x: torch.nn.functional.max_pool2d(x, 3, 1),
    "gather": lambda x: x.reshape(-1).gather(0, INDEX.reshape(-1)),
    "index": lambda x: x.reshape(-1)[INDEX.reshape(-1)],
    "index_select": lambda x: x[0, 0].index_select(0, REPEATED),
    "embedding": lambda x: torch.nn.functional.embedding(REPEATED, x[0, 0]),
    "unfold": lambda x: x.unfold(3, 4, 1),
    "im2col": lambda x: torch.nn.functional.unfold(x, 3),
    "as_strided": lambda x: x.as_strided([4, 4], [1, 1]),
    "repeat": lambda x: x.repeat(3, 1, 1, 1),
    "expand": lambda x: x.expand(3, 2, 6, 6),
    "average pooling": lambda x: torch.nn.functional.avg_pool2d(x, 3, 1),
    "cumsum": lambda x: x.cumsum(0) + x.flip(3).cumsum(3),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_backward_that_sums_is_perturbed(name):
    x = IMAGE.clone().requires_grad_()
    y = SUMS[name](x)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    (plain,) = torch.autograd.grad(y, x, seed, retain_graph=True)
    with perturbed_operands(Perturbation(np.random.default_rng(0), 2.0**-20), [x, seed]):
        (moved,) = torch.autograd.grad(y, x, seed)
    assert torch.any(moved != plain)
    assert torch.all((moved - plain).abs() <= 2.0**-12 * seed.abs().max() * 36)


@pytest.mark.parametrize("add", [add_scatter, lambda: aten.index_put(X, [REPEATED], Y, True)])
def test_the_same_operation_that_adds_is_perturbed(add):
    with perturbed_operands(Perturbation(np.random.default_rng(0), 2.0**-20), [X, Y]):
        moved = add()
    assert torch.any(moved != add())


def test_a_copy_into_a_coarser_dtype_is_perturbed():
    x = torch.full((64,), 1 + 2.0**-24, dtype=torch.float64)  # halfway between two numbers of float32
    with perturbed_operands(Perturbation(np.random.default_rng(0), 2.0**-40), [x]):
        assert len(set(x.to(torch.float32).tolist())) == 2
        wide = x.to(torch.float64)
    assert torch.equal(wide, x)


@pytest.mark.parametrize("name", ["abs", "sgn"])
def test_the_modulus_of_a_complex_number_is_perturbed(name):
    z = torch.complex(X, Y)
    with perturbed_operands(Perturbation(np.random.default_rng(0), 2.0**-20), [z]):
        assert torch.all(getattr(z, name)() != getattr(z.clone(), name)().new_zeros(1))
        moved = getattr(z, name)()
    assert torch.any(moved != getattr(z, name)())


A, B = np.random.default_rng(0).standard_normal((2, 4, 6))


@pytest.mark.parametrize("name", sorted(numpy_arrays._EXACT))
def test_an_exact_ufunc_of_numpy_returns_entries_of_its_operands(name):
    ufunc = getattr(np, name)
    operands = [A, B][: ufunc.nin]
    if name.startswith(("bitwise", "invert", "logical")):
        operands = [np.arange(24), np.arange(24)[::-1]][: ufunc.nin]
    elif name == "ldexp":
        operands = [A, np.ones((4, 6), int)]
    results = ufunc(*operands)
    values = {abs(float(v)) for r in (results if isinstance(results, tuple) else (results,)) for v in np.ravel(r)}
    # Binary exponents scale exactly; the neighbours of a number and their distance are numbers, too.
    if name in {"ldexp", "frexp", "modf", "nextafter", "spacing"}:
        assert all(np.isfinite(v) for v in values)
        return
    known = {0.0, 1.0} | {abs(float(v)) for a in operands for v in np.ravel(a)}
    assert {v for v in values - known if not v.is_integer()} == set()


def test_numpy_sums_of_an_exact_ufunc_are_exact_and_other_sums_are_not():
    a = perturbed_array(A, Perturbation(np.random.default_rng(0), 2.0**-20))
    assert np.array_equal(np.maximum.reduce(a), np.maximum.reduce(A))
    assert np.any(np.add.reduce(a) != np.add.reduce(A))
    assert np.any(np.abs(a + 1j * B) != np.abs(A + 1j * B))
