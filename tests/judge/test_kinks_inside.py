"""Kinks of an intermediate, and kinks without a reference: subgradients agree there, and no other number does."""

import numpy as np
import pytest

import oracles
from oracles import Disagreement, Verdict

torch = pytest.importorskip("torch")
jnp = pytest.importorskip("jax.numpy")

ACCEPTED = (Verdict.AGREES, Verdict.KINK)
# Half-integers and zeros add up to exactly 0 once; so does 0.3 - 0.3, whose rounding errors are in another last place.
POINTS = {
    "halves": {"x": np.array([[1.5, -1.0], [2.0, 3.0]]), "b": np.array([-1.0, 1.0])},
    "zeros": {"x": np.array([[1.5, 0.0], [2.0, 3.0]]), "b": np.array([-1.0, 0.0])},
    "thirds": {"x": np.array([[0.3, 0.2], [1.0, 2.0]]), "b": np.array([-0.3, 0.7])},
}
REFERENCES = {
    "none": [],
    "relu": [oracles.torch_autograd(lambda x, b: torch.relu(x + b))],
    "clamp": [oracles.torch_autograd(lambda x, b: (x + b).clamp(min=0))],
    "half": [oracles.jax_vjp(lambda x, b: jnp.maximum(x + b, 0))],
}
FORWARDS = {
    "maximum": lambda x, b: (np.maximum(x + b, 0), x + b),
    "where": lambda x, b: (np.where(x + b > 0, x + b, 0), x + b),
}


def relu(forward, slope):
    """Return a subject that takes a slope at 0."""

    def backward(s, d):
        g = d * np.where(s == 0, slope, s > 0)
        return {"x": g, "b": g.sum(0)}

    return oracles.manual(FORWARDS[forward], backward, name="relu")


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("against", REFERENCES)
@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_either_slope_where_a_sum_is_zero(point, against, forward, slope):
    result = oracles.check(relu(forward, slope), POINTS[point], REFERENCES[against])
    assert result.verdict in ACCEPTED
    assert not result.refuses


@pytest.mark.parametrize("point", ["halves", "zeros"])
@pytest.mark.parametrize("against", REFERENCES)
@pytest.mark.parametrize("slope", [-1.0, 5.0])
def test_no_other_slope(point, against, slope):
    with pytest.raises(Disagreement) as refusal:
        oracles.check(relu("where", slope), POINTS[point], REFERENCES[against])
    assert refusal.value.verdict is Verdict.WRONG


def alone(name, weight):
    """Return a function of one primal with a tie, whose subgradient there is given, and the point."""

    def of_abs(x, d):
        return {"x": d * np.where(x == 0, weight, np.sign(x))}

    def of_clip(x, d):
        return {"x": d * np.where(np.abs(x) == 1, weight, np.abs(x) < 1)}

    def of_maximum(x, d):
        tied = x == x.max(1, keepdims=True)
        return {"x": d[:, None] * tied * np.where(tied.sum(1, keepdims=True) > 1, weight, 1.0)}

    forward, backward, point = {
        "abs": (np.abs, of_abs, [0.0, 1.0, -2.0]),
        "clip": (lambda x: np.clip(x, -1, 1), of_clip, [1.0, 0.5, -1.0, -2.0]),
        "maximum": (lambda x: x.max(1), of_maximum, [[1.0, 1.0, 0.0], [2.0, 3.0, 4.0]]),
    }[name]
    return oracles.manual(lambda x: (forward(x), x), backward), {"x": np.array(point)}


@pytest.mark.parametrize(
    ("name", "weight"), [("abs", 0.0), ("abs", 1.0), ("clip", 0.0), ("clip", 1.0), ("maximum", 0.5)]
)
def test_a_subgradient_needs_no_reference(name, weight):
    assert oracles.check(*alone(name, weight)).verdict in ACCEPTED


@pytest.mark.parametrize(
    ("name", "weight"), [("abs", 100.0), ("clip", 50.0), ("clip", -1.0), ("maximum", 1.0), ("maximum", 3.0)]
)
def test_what_is_no_subgradient_is_refused_without_a_reference(name, weight):
    """What the subject chooses at the tie is not among the gradients next to it."""
    with pytest.raises(Disagreement) as refusal:
        oracles.check(*alone(name, weight))
    assert refusal.value.verdict is Verdict.WRONG


@pytest.mark.parametrize("slope", [0.0, 1.9])
def test_a_second_derivative_at_a_kink_of_the_first(slope):
    assert not oracles.check(*curved(slope), order=2).refuses


@pytest.mark.parametrize("slope", [5.0, 1e6])
def test_no_other_second_derivative(slope):
    with pytest.raises(Disagreement) as refusal:
        oracles.check(*curved(slope), order=2)
    assert refusal.value.verdict is Verdict.WRONG


def curved(slope):
    """Return x·|x| with a second derivative at 0, which may be anything from -2 to 2."""
    subject = oracles.manual(
        lambda x: (np.abs(x) * x, x),
        lambda x, d: {"x": 2 * np.abs(x) * d},
        second=lambda x, d, w: {
            "x": np.where(x == 0, slope, 2 * np.sign(x)) * d * w["x"],
            "delta": 2 * np.abs(x) * w["x"],
        },
    )
    return subject, {"x": np.array([0.0, -2.0, 0.5])}


class Normalized(torch.nn.Module):
    """A linear layer whose bias is subtracted again: its gradient is zero."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 4)

    def forward(self, x):
        z = self.linear(x)
        z = z - z.mean(0)
        return z / (z.pow(2).mean(0) + 1e-5).sqrt()


class Attention(torch.nn.Module):
    """Attention whose keys have a bias, which moves every row of the softmax by one number: its gradient is zero."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (torch.nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        return (self.q(x) @ self.k(x).T / 2).softmax(-1) @ self.v(x)


@pytest.mark.filterwarnings("ignore::oracles.InconclusiveWarning")
@pytest.mark.parametrize("module", [Normalized, Attention])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_that_is_zero_for_every_input_may_be_rounding(module, dtype):
    torch.manual_seed(0)
    parameters = {name: torch.randn_like(p).to(dtype) for name, p in module().named_parameters()}
    x = torch.randn(5, 3 if module is Normalized else 4, dtype=dtype)
    assert not oracles.check(oracles.torch_module(module), {"x": x, **parameters}).refuses


class Tenth(torch.autograd.Function):
    """A linear map and a normalization, whose backward gives the bias a part of what it should not have."""

    @staticmethod
    def forward(ctx, x, W, b):
        z = x @ W.T + b
        z = z - z.mean(0)
        scale = (z.pow(2).mean(0) + 1e-5).rsqrt()
        ctx.save_for_backward(x, W, z * scale, scale)
        return z * scale

    @staticmethod
    def backward(ctx, d):
        x, W, y, scale = ctx.saved_tensors
        e = scale * (d - d.mean(0) - y * (d * y).mean(0))
        return e @ W, e.T @ x, 0.1 * (scale * d).sum(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_that_should_be_zero_is_refused(dtype):
    torch.manual_seed(0)
    point = {"x": torch.randn(5, 3, dtype=dtype), "W": torch.randn(4, 3, dtype=dtype), "b": torch.randn(4, dtype=dtype)}
    with pytest.raises(Disagreement) as refusal:
        oracles.check(oracles.torch_function(Tenth), point)
    assert refusal.value.verdict is Verdict.WRONG


def polar_factor(A):
    U, s, V = np.linalg.svd(A)
    return U @ V, (U, s, V)


def polar_back(c, d, scale=1.0, symmetric_part=False):
    U, s, V = c
    P = U.T @ d @ V.T
    P = P if symmetric_part else P - P.T
    return {"A": scale * (U @ (P / (s[:, None] + s)) @ V)}


@pytest.mark.parametrize("size", [1.0, 2.0])
def test_where_the_reference_is_no_number_finite_differences_decide(size):
    """The backward of torch's singular vectors is NaN at equal singular values; the polar factor is smooth there."""
    A = size * np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    reference = oracles.torch_autograd(lambda A: (lambda U, s, V: U @ V)(*torch.linalg.svd(A)))
    assert oracles.check(oracles.manual(polar_factor, polar_back), {"A": A}, [reference]).verdict is Verdict.AGREES
    for wrong in ({"scale": 7.0}, {"symmetric_part": True}):
        with pytest.raises(Disagreement) as refusal:
            oracles.check(
                oracles.manual(polar_factor, lambda c, d, w=wrong: polar_back(c, d, **w)), {"A": A}, [reference]
            )
        assert refusal.value.verdict is Verdict.WRONG


def maximum_of_two(weights):
    """Return max(a, b) with weights of a and b where they are equal."""

    def backward(c, d):
        a, b = c
        tied = a == b
        return {"a": d * np.where(tied, weights[0], a > b), "b": d * np.where(tied, weights[1], b > a)}

    return oracles.manual(lambda a, b: (np.maximum(a, b), (a, b)), backward)


def pinball(weights):
    """Return the loss of the quantile 0.3, with slopes by the target and minus the prediction where they are equal."""

    def backward(c, d):
        error = c[1] - c[0]
        slopes = [np.where(error == 0, w, np.where(error > 0, 0.3, -0.7)) for w in weights]
        return {"y": -d * slopes[1], "t": d * slopes[0]}

    return oracles.manual(lambda y, t: (np.maximum(0.3 * (t - y), -0.7 * (t - y)), (y, t)), backward)


TIED = {
    "maximum": (
        maximum_of_two, {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([1.0, 1.0, 4.0])}, torch.maximum,
    ),
    "pinball": (
        pinball, {"y": np.array([1.0, 2.0, 3.0]), "t": np.array([1.0, 1.5, 4.0])},
        lambda y, t: torch.maximum(0.3 * (t - y), -0.7 * (t - y)),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("maximum", (1.0, 0.0)), ("maximum", (0.0, 1.0)), ("maximum", (0.5, 0.5)), ("maximum", (0.25, 0.75)),
        ("pinball", (0.3, 0.3)), ("pinball", (-0.7, -0.7)), ("pinball", (0.0, 0.0)),
    ],
)  # fmt: skip
def test_weights_of_a_tie_between_two_primals(name, weights):
    subject, point, reference = TIED[name]
    assert oracles.check(subject(weights), point, [oracles.torch_autograd(reference)]).verdict in ACCEPTED


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("maximum", (1.0, 1.0)), ("maximum", (0.0, 0.0)), ("maximum", (1.0, 0.5)),
        ("pinball", (0.3, -0.7)), ("pinball", (-0.7, 0.3)), ("pinball", (0.0, 0.3)),
    ],
)  # fmt: skip
def test_weights_that_do_not_sum_to_one(name, weights):
    """Each alone is a subgradient."""
    subject, point, reference = TIED[name]
    with pytest.raises(Disagreement) as refusal:
        oracles.check(subject(weights), point, [oracles.torch_autograd(reference)])
    assert refusal.value.verdict is Verdict.WRONG
