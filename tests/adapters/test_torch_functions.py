"""torch.autograd.Function: what its own backward returns is judged, before the engine repairs it."""

import numpy as np
import pytest
import torch
from forms import as_function
from pair_bugs import BUGS, QUICK
from pairs import DTYPES, PAIRS, accepted, slow_except

import oracles
from manual_bp import Linear, Softmax
from oracles import Disagreement, InvalidInput, Verdict
from oracles.backends.arrays import array_of, tensor

RNG = np.random.default_rng(8)
ROWS = {"z": RNG.standard_normal((3, 4))}


def adapt(pair, backward=None):
    return oracles.torch_function(as_function(pair, backward))


@pytest.mark.parametrize("dtype", slow_except(("float64",), DTYPES))
@pytest.mark.parametrize("name", PAIRS)
def test_numpy_inside_a_function_agrees(name, dtype):
    pair = PAIRS[name]
    pair.assert_agrees(adapt(pair), dtype, seeds=1 if dtype == "float64" else 5)


@pytest.mark.parametrize("bug", slow_except(QUICK[:4], BUGS))
def test_planted_bugs_are_refused(bug):
    BUGS[bug].assert_explains(BUGS[bug].refusal_of(adapt))


def by_torch(f):
    """torch's own op as a Function that calls torch's own backward."""

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            with torch.enable_grad():
                ctx.inputs = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]
                ctx.y = f(*ctx.inputs)
            return ctx.y.detach().clone()

        @staticmethod
        def backward(ctx, delta):
            floating = [x for x in ctx.inputs if x.requires_grad]
            gradients = iter(torch.autograd.grad(ctx.y, floating, delta, retain_graph=True))
            return tuple(next(gradients) if x.requires_grad else None for x in ctx.inputs)

    Own.__name__ = f.__name__
    return Own


F = torch.nn.functional
OWN = [torch.tanh, torch.sigmoid, torch.relu, torch.exp, F.gelu, F.softplus, F.silu, torch.logsumexp, F.softmax, F.glu]


def on_rows(f):
    def apply(z):
        return f(z, -1) if f in (torch.logsumexp, F.softmax, F.glu) else f(z)

    apply.__name__ = f.__name__
    return apply


@pytest.mark.parametrize("dtype", slow_except(("float32",), DTYPES))
@pytest.mark.parametrize("f", slow_except(OWN[::3], OWN), ids=lambda f: f.__name__)
def test_torch_functions_agree(f, dtype):
    for seed, shape in enumerate([(3, 4), (1, 2), (0, 4), (2, 3, 6)]):
        at = {"z": np.random.default_rng(seed).standard_normal(shape).astype(DTYPES[dtype])}
        against = [oracles.torch_autograd(on_rows(f))]
        accepted(oracles.torch_function(by_torch(on_rows(f))), at, against, dtype, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_layers_agree(dtype):
    def norm(z, g, b):
        return F.layer_norm(z, (z.shape[-1],), g, b)

    def cross(z, target):
        return F.cross_entropy(z, target)

    def conv(x, w):
        return F.conv1d(x, w, stride=2, padding=1)

    draws = {
        norm: {"z": (3, 5), "g": (5,), "b": (5,)},
        conv: {"x": (2, 2, 7), "w": (3, 2, 3)},
        cross: {"z": (3, 4)},
        F.linear: {"input": (3, 4), "weight": (2, 4), "bias": (2,)},
    }
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for f, shapes in draws.items():
            at = {n: rng.standard_normal(shape).astype(DTYPES[dtype]) for n, shape in shapes.items()}
            at |= {"target": rng.integers(4, size=3)} if f is cross else {}
            subject, against = oracles.torch_function(by_torch(f)), [oracles.torch_autograd(f)]
            accepted(subject, at, against, dtype, seed=seed)


class OurLinear(torch.autograd.Function):
    """manual_bp's Linear inside a Function, arguments by name."""

    @staticmethod
    def forward(ctx, z, W, b):
        params = {"W": array_of(W), "b": array_of(b)}
        y, ctx.cache = Linear(*W.shape).forward(params, array_of(z))
        return tensor(y)

    @staticmethod
    def backward(ctx, delta):
        dz, grads = Linear(4, 2).backward(ctx.cache, array_of(delta))
        return tensor(dz), tensor(grads["W"]), tensor(grads["b"])


class OurSoftmax(torch.autograd.Function):
    """The same with setup_context, whose forward takes no ctx."""

    @staticmethod
    def forward(z):
        return tensor(Softmax().forward({}, array_of(z))[0])

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.cache = Softmax().forward({}, array_of(inputs[0]))[1]

    @staticmethod
    def backward(ctx, delta):
        return tensor(Softmax().backward(ctx.cache, array_of(delta))[0])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_our_own_layers_agree_as_functions(dtype):
    pair = PAIRS["dense"]
    at = pair.at(1, dtype)
    for order in (at, dict(reversed(at.items()))):  # forward's parameters decide, not the order of the primals
        assert oracles.check(oracles.torch_function(OurLinear), order, [pair.torch]).verdict is Verdict.AGREES
    z = {"z": at["z"]}
    assert oracles.check(oracles.torch_function(OurSoftmax), z, [PAIRS["softmax"].torch]).verdict is Verdict.AGREES


class Clamped(torch.autograd.Function):
    """Has options, an integer input, and no gradient for either."""

    @staticmethod
    def forward(ctx, z, rows, low=-1.0, high=1.0):
        ctx.save_for_backward(z, rows)
        ctx.bounds = low, high
        return z[rows].clamp(low, high)

    @staticmethod
    def backward(ctx, delta):
        z, rows = ctx.saved_tensors
        low, high = ctx.bounds
        inside = (z[rows] > low) & (z[rows] < high)
        return torch.zeros_like(z).index_add(0, rows, delta * inside), None, None, None


def test_options_and_integers():
    at = {"z": ROWS["z"], "rows": np.array([2, 0, 2, 1])}
    for options in ({}, {"low": -0.5}, {"low": -0.25, "high": 0.75}):
        against = [oracles.torch_autograd(lambda z, rows, o=options: z[rows].clamp(o.get("low", -1), o.get("high", 1)))]
        subject = oracles.torch_function(Clamped, options=options)
        assert oracles.check(subject, at, against).verdict is Verdict.AGREES


def dense_but(backward, forward=None):
    class Dense(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z, W, b):
            ctx.save_for_backward(z, W)
            return z @ W + b if forward is None else forward(ctx, z, W, b)

        @staticmethod
        def backward(ctx, delta):
            return backward(ctx, delta, *ctx.saved_tensors)

    return Dense


def right(ctx, d, z, W):
    return d @ W.T, z.T @ d, d.sum(0, keepdim=True)


def only_what_is_needed(ctx, d, z, W):
    needed = ctx.needs_input_grad
    return tuple(g if need else None for g, need in zip(right(ctx, d, z, W), needed, strict=True))


def needs_all_or_nothing(ctx, d, z, W):
    """W's gradient is computed only if z's is requested."""
    needed = ctx.needs_input_grad
    return d @ W.T if needed[0] else None, z.T @ d if needed[0] else torch.zeros_like(W), d.sum(0, keepdim=True)


@pytest.mark.parametrize(
    ("backward", "quantity", "message"),
    [
        (lambda c, d, z, W: (d @ W.T, z.T @ d, d.clone()), "b", "shape (3, 2), expected (1, 2)"),
        (lambda c, d, z, W: (d @ W.T, z.T @ d, d.sum(0)), "b", "shape (2,), expected (1, 2)"),
        (lambda c, d, z, W: (d @ W.T, z.T @ d, d.sum(0, keepdim=True).float()), "b", "float32"),
        (lambda c, d, z, W: (d @ W.T, (z.T @ d).double() * 2, d.sum(0, keepdim=True)), "W", "2 times the oracle's"),
        (lambda c, d, z, W: (d @ W.T, z.T @ d.abs(), d.sum(0, keepdim=True)), "W", "|delta|"),
        (lambda c, d, z, W: (d @ W.T, z.T @ d), "the call", "backward returned 2 gradients for the 3 arguments"),
        (needs_all_or_nothing, "W", "one gradient requested alone"),
        (lambda c, d, z, W: (d.mul_(1) @ W.T, z.T @ d, d.add_(1).sum(0, keepdim=True) - 3), "delta[0]", "written into"),
        (
            lambda c, d, z, W: (d @ W.T, z.mul_(2).T @ d / 2, d.sum(0, keepdim=True)),
            "the primal z",
            "z was written into",
        ),
        (lambda c, d, z, W: (d @ W.T, (z.view(-1).view(4, 3)) @ d, d.sum(0, keepdim=True)), "W", None),
    ],
)
def test_gradients_that_the_engine_repairs_are_refused(backward, quantity, message):
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.torch_function(dense_but(backward)), PAIRS["dense"].at(5), [PAIRS["dense"].torch])
    assert excinfo.value.result.worst.quantity == quantity
    assert message is None or message in " ".join(str(excinfo.value).split())


def test_gradients_that_are_not_needed_may_be_none():
    subject = oracles.torch_function(dense_but(only_what_is_needed))
    assert oracles.check(subject, PAIRS["dense"].at(5), [PAIRS["dense"].torch]).verdict is Verdict.AGREES


def test_none_is_not_claimed():
    subject = oracles.torch_function(dense_but(lambda c, d, z, W: (d @ W.T, None, None)))
    result = oracles.check(subject, PAIRS["dense"].at(5), [PAIRS["dense"].torch])
    assert result.not_claimed == ("W", "b")


def test_outputs_pulled_back_one_at_a_time():
    """A backward that takes the second output's delta for granted: the engine passes zeros, or None."""

    class Polar(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            return a * b.cos(), a * b.sin()

        @staticmethod
        def backward(ctx, d, e):
            a, b = ctx.saved_tensors
            e = e if bool((e != 0).any()) else d
            return d * b.cos() + e * b.sin(), a * (e * b.cos() - d * b.sin())

    pair = PAIRS["two outputs"]
    with pytest.raises(Disagreement, match="one output's cotangent at a time"):
        oracles.check(oracles.torch_function(Polar), pair.at(), [pair.torch])


@pytest.mark.parametrize(
    ("function", "at", "message", "fix"),
    [
        (OurLinear.apply, ROWS, "expected a torch.autograd.Function", "oracles.torch_function(MyFunction)"),
        (torch.tanh, ROWS, "expected a torch.autograd.Function", "oracles.torch_function(MyFunction)"),
        (OurLinear, {"z": ROWS["z"], "weight": ROWS["z"]}, "expected forward's parameters z, W, b, got z, weight",
         "oracles.check(subject, {'z': ..., 'W': ..., 'b': ...}, ...)"),
    ],
)  # fmt: skip
def test_invalid_input(function, at, message, fix):
    with pytest.raises(InvalidInput) as excinfo:
        oracles.check(oracles.torch_function(function), at)
    assert message in str(excinfo.value)
    assert fix in str(excinfo.value)
