"""nn.Modules: torch's own agree, and a Function inside is refused if the engine repairs what it returns."""

import numpy as np
import pytest
import torch
from forms import as_module
from pair_bugs import BUGS, QUICK
from pairs import DTYPES, PAIRS, accepted, slow_except
from torch import nn

import oracles
from oracles import Disagreement, Inconclusive, InvalidInput, Verdict

RNG = np.random.default_rng(9)


def adapt(pair, backward=None):
    return oracles.torch_module(as_module(pair, backward))


@pytest.mark.parametrize("dtype", slow_except(("float64",), DTYPES))
@pytest.mark.parametrize("name", slow_except(("dense", "two outputs", "embedding"), PAIRS))
def test_numpy_inside_a_module_agrees(name, dtype):
    pair = PAIRS[name]
    pair.assert_agrees(adapt(pair), dtype, seeds=1 if dtype == "float64" else 3)


@pytest.mark.parametrize("bug", slow_except(QUICK[:3], BUGS))
def test_planted_bugs_are_refused(bug):
    error = BUGS[bug].refusal_of(adapt)
    if bug == "bias gradient not summed over the batch":
        assert error.result.worst.quantity == "the call"
        assert all(part in str(error) for part in ("Function.backward", "(3, 2)", "(1, 2)"))
    else:
        BUGS[bug].assert_explains(error)


def normal(*shape):
    return RNG.standard_normal(shape)


F = nn.functional
OWN = {
    "linear": (
        lambda: nn.Linear(4, 2),
        lambda input, weight, bias: F.linear(input, weight, bias),
        {"input": normal(3, 4), "weight": normal(2, 4), "bias": normal(2)},
    ),
    "two layers": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2), nn.Softmax(-1)),
        lambda input, **p: torch.tanh(input @ p["0.weight"].T + p["0.bias"])
        .matmul(p["2.weight"].T).add(p["2.bias"]).softmax(-1),
        {"input": normal(3, 4), "0.weight": normal(3, 4), "0.bias": normal(3), "2.weight": normal(2, 3),
         "2.bias": normal(2)},
    ),
    "lazy": (
        lambda: nn.LazyLinear(2),
        lambda input, weight, bias: F.linear(input, weight, bias),
        {"input": normal(3, 4), "weight": normal(2, 4), "bias": normal(2)},
    ),
    "layer norm": (
        lambda: nn.LayerNorm(5),
        lambda input, weight, bias: F.layer_norm(input, (5,), weight, bias),
        {"input": normal(3, 5), "weight": normal(5), "bias": normal(5)},
    ),
    "conv": (
        lambda: nn.Conv2d(2, 3, (2, 3), stride=2, padding=1),
        lambda input, weight, bias: F.conv2d(input, weight, bias, 2, 1),
        {"input": normal(2, 2, 4, 5), "weight": normal(3, 2, 2, 3), "bias": normal(3)},
    ),
    "embedding": (
        lambda: nn.Embedding(4, 3),
        lambda input, weight: F.embedding(input, weight),
        {"input": np.array([1, 1, 0, 3]), "weight": normal(4, 3)},
    ),
    "cross-entropy": (
        lambda: nn.CrossEntropyLoss(),
        lambda input, target: F.cross_entropy(input, target),
        {"input": normal(3, 4), "target": np.array([0, 3, 3])},
    ),
    "gru cell": (
        lambda: nn.GRUCell(3, 2),
        None,
        {"input": normal(3, 3), "hx": normal(3, 2), "weight_ih": normal(6, 3), "weight_hh": normal(6, 2),
         "bias_ih": normal(6), "bias_hh": normal(6)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", slow_except(("float64",), ("float64", "bfloat16")))
@pytest.mark.parametrize("name", slow_except([n for n in OWN if n != "gru cell"], OWN))
def test_torch_modules_agree(name, dtype):
    make, reference, point = OWN[name]
    at = {n: a.astype(DTYPES[dtype]) if a.dtype.kind == "f" else a for n, a in point.items()}
    against = [oracles.torch_autograd(reference)] if reference else []
    assert not accepted(oracles.torch_module(make), at, against, dtype).not_claimed


def test_an_instance_is_copied_and_left_alone():
    module = nn.Linear(4, 2)
    before = module.weight.detach().clone()
    _, reference, at = OWN["linear"]
    result = oracles.check(oracles.torch_module(module), at, [oracles.torch_autograd(reference)])
    assert result.verdict is Verdict.AGREES
    assert torch.equal(module.weight, before)
    assert module.weight.grad is None


def test_parameters_by_other_names_and_inputs_in_order():
    subject = oracles.torch_module(lambda: nn.Linear(4, 2), params={"W": "weight", "b": "bias"})
    at = {"z": normal(3, 4), "W": normal(2, 4), "b": normal(2)}
    against = [oracles.torch_autograd(lambda z, W, b: z @ W.T + b)]
    assert oracles.check(subject, at, against).verdict is Verdict.AGREES


def verdict_of(subject, at, against):
    try:
        return oracles.check(subject, at, against).verdict
    except (Disagreement, Inconclusive) as outcome:
        return outcome.result.verdict


@pytest.mark.slow
@pytest.mark.parametrize(
    "against", [[], [oracles.torch_autograd(lambda input: +input)]], ids=["alone", "against torch"]
)
def test_a_module_that_draws_does_not_agree(against):
    """What is drawn decides whether it is inconclusive, a kink or wrong, so the generator is seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        verdict = verdict_of(oracles.torch_module(lambda: nn.Dropout(0.5)), {"input": normal(4, 5)}, against)
    assert verdict is not Verdict.AGREES


class KeepsFirst(nn.Module):
    """A buffer of the first forward is used by the second."""

    def __init__(self):
        super().__init__()
        self.scale = None

    def forward(self, z):
        self.scale = z.detach().abs().max() if self.scale is None else self.scale
        return z / self.scale


def test_a_module_that_keeps_the_first_input_is_refused():
    with pytest.raises(Disagreement, match="forward twice"):
        oracles.check(
            oracles.torch_module(KeepsFirst),
            {"z": normal(3, 4)},
            [oracles.torch_autograd(lambda z: z / z.detach().abs().max())],
        )


@pytest.mark.parametrize(
    ("params", "at", "message"),
    [
        ({"W": "weights"}, {"z": normal(3, 4), "W": normal(2, 4)}, "weight, bias"),
        ({"W": "weight"}, {"z": normal(3, 4), "W": normal(4, 2)}, "(2, 4)"),
    ],
)  # fmt: skip
def test_invalid_input(params, at, message):
    with pytest.raises(InvalidInput) as excinfo:
        oracles.check(oracles.torch_module(lambda: nn.Linear(4, 2), params=params), at)
    assert "params" in str(excinfo.value)
    assert message in str(excinfo.value)


def inside_a_module(backward):
    """A module with a Function of two tensors that are no leaves, so that its gradients go to other nodes."""

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z, W):
            ctx.save_for_backward(z, W)
            return z @ W

        @staticmethod
        def backward(ctx, delta):
            return backward(delta, *ctx.saved_tensors)

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.W = nn.Parameter(torch.zeros(4, 2))

        def forward(self, z):
            return Product.apply(z.tanh(), self.W.tanh())

    return oracles.torch_module(Module)


PRODUCT = {"z": normal(3, 4), "W": normal(4, 2)}
BY_TORCH = oracles.torch_autograd(lambda z, W: z.tanh() @ W.tanh())


def test_a_function_between_other_operations_agrees():
    subject = inside_a_module(lambda d, z, W: (d @ W.T, z.T @ d))
    assert oracles.check(subject, PRODUCT, [BY_TORCH]).verdict is Verdict.AGREES


@pytest.mark.parametrize(
    ("backward", "returned", "expected"),
    [
        (lambda d, z, W: ((d @ W.T)[None].expand(2, -1, -1) / 2, z.T @ d), "(2, 3, 4), torch.float64", "(3, 4)"),
        (lambda d, z, W: (d @ W.T, (z.T @ d).float()), "(4, 2), torch.float32", "(4, 2), torch.float64"),
    ],
    ids=["shape", "dtype"],
)
def test_gradient_repaired_by_the_engine_is_refused_between_other_operations(backward, returned, expected):
    """The engine's repaired gradient is right; this fails if torch no longer runs hooks after the repair."""
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(inside_a_module(backward), PRODUCT, [BY_TORCH])
    assert isinstance(excinfo.value.__cause__, TypeError)
    assert returned in str(excinfo.value.__cause__)
    assert expected in str(excinfo.value.__cause__)


def test_gradient_that_the_engine_cannot_repair_is_refused():
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(inside_a_module(lambda d, z, W: (d @ W.T, d)), PRODUCT, [BY_TORCH])
    assert excinfo.value.result.worst.quantity == "the call"


# ---- layouts: a module's own parameters are contiguous, its inputs and cotangents need not be


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.linear(x))


def with_a_gap(array):
    wide = np.full((*array.shape, 2), np.nan)
    wide[..., 0] = array
    return wide[..., 0]


@pytest.mark.parametrize("strided", ["norm.weight", "norm.bias", "linear.weight", "x"])
def test_parameters_are_contiguous_whatever_the_layout_of_their_primals(strided):
    """torch's batch norm reads a strided weight as a contiguous one in its backward, on the CPU."""
    point = {"x": normal(5, 3), "linear.weight": normal(4, 3), "norm.weight": normal(4), "norm.bias": normal(4)}
    point[strided] = with_a_gap(point[strided])
    reference = oracles.torch_autograd(
        lambda **p: F.batch_norm(
            p["x"] @ p["linear.weight"].T, None, None, p["norm.weight"].contiguous(), p["norm.bias"], True
        )
    )
    result = oracles.check(oracles.torch_module(Normalized), point, [reference], order=2, mode="both")
    assert result.verdict is Verdict.AGREES


class FlatSquare(torch.autograd.Function):
    """x², whose backward reads one of its arrays as if it were contiguous."""

    @staticmethod
    def forward(ctx, x, misread):
        ctx.save_for_backward(x)
        ctx.misread = misread
        return x * x

    @staticmethod
    def backward(ctx, delta):
        (x,) = ctx.saved_tensors
        arrays = {"x": x, "delta": delta}
        if ctx.misread:
            read = arrays[ctx.misread]
            entries = read.untyped_storage().nbytes() // read.itemsize - read.storage_offset()
            flat = read.as_strided((entries,), (1,))
            arrays[ctx.misread] = flat.repeat(-(-read.numel() // entries))[: read.numel()].view(read.shape)
        return 2 * arrays["x"] * arrays["delta"], None


@pytest.mark.parametrize("misread", ["", "x", "delta"])
def test_module_that_misreads_a_strided_input_or_cotangent_is_refused(misread):
    class Squares(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return FlatSquare.apply(x, misread) if misread == "delta" else FlatSquare.apply(x, misread) * self.scale

    point = {"x": normal(4, 3)} if misread == "delta" else {"x": normal(4, 3), "scale": normal(3)}
    against = [oracles.torch_autograd(lambda x, scale=1.0: x * x * scale)]
    if not misread:
        assert oracles.check(oracles.torch_module(Squares), point, against).verdict is Verdict.AGREES
        return
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.torch_module(Squares), point, against)
    assert excinfo.value.verdict is Verdict.WRONG
    assert "with strides" in excinfo.value.evidence.reason
