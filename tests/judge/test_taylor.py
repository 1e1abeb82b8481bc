"""Taylor remainders of whole functions: the steps are found, wrong gradients are refused, wrong blocks are named."""

import json
import warnings

import numpy as np
import pytest

import oracles
from oracles import Disagreement, InconclusiveWarning, InvalidInput, ReferenceFailed, Verdict
from oracles.taylor_lines import limit_of

RNG = np.random.default_rng(5)
X, LABELS = RNG.standard_normal((20, 6)), RNG.integers(0, 3, 20)
N = 64  # points of the Poisson problem


def tanh_network(dtype=np.float64, width=40):
    rng = np.random.default_rng(1)
    return {
        "W1": (rng.standard_normal((6, width)) / 6**0.5).astype(dtype),
        "b1": np.zeros(width, dtype),
        "W2": (rng.standard_normal((width, 3)) / width**0.5).astype(dtype),
        "b2": np.zeros(3, dtype),
    }


def forward(params, act):
    a = X.astype(params["W1"].dtype) @ params["W1"] + params["b1"]
    z = act(a)
    logits = z @ params["W2"] + params["b2"]
    logits = logits - logits.max(-1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return a, z, p


def loss(params, act=np.tanh):
    p = forward(params, act)[2]
    return -np.log(p[np.arange(20), LABELS]).mean()


def step(params, act=np.tanh, slope=lambda a, z: 1 - z * z):
    a, z, p = forward(params, act)
    e = (p - np.eye(3, dtype=p.dtype)[LABELS]) / np.asarray(20, p.dtype)
    d = (e @ params["W2"].T) * slope(a, z)
    return {"W1": X.astype(a.dtype).T @ d, "b1": d.sum(0), "W2": z.T @ e, "b2": e.sum(0)}


def relu_loss(params):
    return loss(params, lambda a: np.maximum(a, 0))


def relu_step(params):
    return step(params, lambda a: np.maximum(a, 0), lambda a, z: (a > 0).astype(a.dtype))


def poisson_solution(m):
    """−(exp(m) u′)′ = 1 with u = 0 at both ends, by finite volumes; m at the N + 1 faces."""
    k = np.exp(m) * (N + 1) ** 2
    A = np.diag(k[:-1] + k[1:]) - np.diag(k[1:-1], 1) - np.diag(k[1:-1], -1)
    return A, np.linalg.solve(A, np.ones(N))


DATA = np.sin(np.pi * np.arange(1, N + 1) / (N + 1)) / 8


def misfit(m):
    u = poisson_solution(m)[1]
    return 0.5 * ((u - DATA) ** 2).sum() / N + 1e-3 * (np.diff(m) ** 2).sum()


def adjoint(m, sign=1.0):
    A, u = poisson_solution(m)
    q = np.linalg.solve(A.T, (u - DATA) / N)
    jumps = lambda v: np.diff(np.concatenate([[0.0], v, [0.0]]))  # noqa: E731
    g = -sign * np.exp(m) * (N + 1) ** 2 * jumps(u) * jumps(q)
    g[1:] += 2e-3 * np.diff(m)
    g[:-1] -= 2e-3 * np.diff(m)
    return g


M = 0.3 * np.sin(np.arange(N + 1))
VECTOR = RNG.standard_normal(500)


def quartic(x):
    return (x**4).sum()


def cubed(x):
    return 4 * x**3


RIGHT = {
    "tanh network": (loss, step, tanh_network()),
    "tanh network in float32": (loss, step, tanh_network(np.float32, 200)),
    "relu network": (relu_loss, relu_step, tanh_network() | {"b1": RNG.standard_normal(40)}),
    "Poisson": (misfit, adjoint, M),
    "quartic": (quartic, cubed, VECTOR),
    "a quadratic, whose third remainder is rounding alone": (lambda x: x @ x, lambda x: 2 * x, VECTOR),
    "linear": (lambda x: x.sum(), np.ones_like, VECTOR),
    "a large offset": (lambda x: 1e6 + np.sin(x).sum(), np.cos, VECTOR),
    "fast oscillations": (lambda x: np.sin(300 * x).sum(), lambda x: 300 * np.cos(300 * x), VECTOR),
    "a list of arrays": (lambda p: (p[0] * p[1]).sum(), lambda p: [p[1], p[0]], [VECTOR, VECTOR + 1]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_agree(name):
    f, gradient, at = RIGHT[name]
    result = oracles.taylor(f, gradient, at)
    assert result.verdict is Verdict.AGREES
    assert 0 < result.detects_above < 0.1
    assert not result.blocks
    assert result.evaluations["gradients"] <= 4


def edited(gradient, name, edit):
    def wrong(params):
        g = gradient(params)
        return g | {name: edit(g[name])}

    return wrong


def with_entry(array, index, factor):
    array = array.copy()
    array[index] *= factor
    return array


WRONG = {
    "a mean for a sum": (loss, edited(step, "b1", lambda g: g / 20), tanh_network(), "params[\"b1\"]"),
    "one row": (loss, edited(step, "W1", lambda g: with_entry(g, 2, 1.5)), tanh_network(), "params[\"W1\"][2]"),
    "a transposed weight": (loss, edited(step, "W2", lambda g: g[::-1]), tanh_network(), "params[\"W2\"]"),
    "the slope of tanh forgotten": (loss, lambda p: step(p, slope=lambda a, z: 1.0), tanh_network(), "params[\"W1\"]"),
    "float32": (
        loss, edited(step, "W2", lambda g: 2 * g), tanh_network(np.float32, 200), "params[\"W2\"]"
    ),
    "relu": (relu_loss, edited(relu_step, "b2", np.negative), tanh_network() | {"b1": RNG.standard_normal(40)}, "b2"),
    "the sign of the adjoint": (misfit, lambda m: adjoint(m, -1.0), M, "m"),
    "the regulariser left out": (misfit, lambda m: adjoint(m) + 1e-3 * m, M, "m"),
    "a factor": (quartic, lambda x: x**3, VECTOR, "x"),
    "one part in a million": (quartic, lambda x: cubed(x) * (1 + 1e-6), VECTOR, "x"),
    "kinks in reach of the larger steps": (
        lambda x: np.where(abs(x) < 1, x * x / 2, abs(x) - 0.5).mean(), lambda x: 1.3 * np.clip(x, -1, 1) / x.size,
        VECTOR, "x",
    ),
    "none at all": (quartic, np.zeros_like, VECTOR, "x"),
    "NaN": (quartic, lambda x: with_entry(cubed(x), 3, np.nan), VECTOR, None),
    "another shape": (quartic, lambda x: cubed(x)[:, None], VECTOR, None),
    "an exception": (quartic, lambda x: cubed(x)[700], VECTOR, None),
}  # fmt: skip


@pytest.mark.parametrize("bug", WRONG)
def test_wrong_gradients_are_refused_and_located(bug):
    f, gradient, at, address = WRONG[bug]
    with pytest.raises(Disagreement) as refused:
        oracles.taylor(f, gradient, at)
    assert refused.value.verdict is Verdict.WRONG
    result = refused.value.result
    if address:
        assert any(address in block.address for block in result.blocks), result.blocks
        assert address in refused.value.diagnosis
    json.loads(refused.value.to_json())


def test_a_wrong_block_among_a_million():
    """At most 60 pairs of values name it; the gradient is evaluated three times."""
    x = np.random.default_rng(2).uniform(1, 2, (1000, 1000))

    def wrong(x):
        g = 2 * x
        g[608, 300:340] += 0.1
        return g

    calls = []

    def f(x):
        calls.append(0)
        return float(np.vdot(x, x))

    with pytest.raises(Disagreement) as refused:
        oracles.taylor(f, wrong, x)
    blocks, evaluations = refused.value.result.blocks, refused.value.result.evaluations
    assert blocks
    assert all(block.address.startswith("x[608, ") and block.entries <= 64 for block in blocks)
    assert evaluations["pairs of values for blocks"] <= 60
    assert evaluations["gradients"] <= 4
    assert len(calls) == evaluations["values of f"] <= 256  # the noise of f decides how many tables are drawn


def test_a_small_array_is_not_hidden_by_a_large_one():
    """A bias of size 1e-6 next to a weight of size 1 moves the whole projection by nothing that is seen in float32."""
    at = {"W": np.ones(1000) * 1e3, "b": np.full(10, 1e-6)}
    with pytest.raises(Disagreement) as refused:
        oracles.taylor(
            lambda p: (p["W"] ** 2).sum() + p["b"].sum(), lambda p: {"W": 2 * p["W"], "b": 2 + 0 * p["b"]}, at
        )
    assert [block.address for block in refused.value.result.blocks] == ['p["b"]']


def test_the_range_of_a_rate_is_found():
    """The third remainder of a quadratic is rounding: it has no range, and the gradient is right all the same."""
    result = oracles.taylor(quartic, cubed, VECTOR)
    low, high = result.remainders[0].range_of(2)
    assert 0 < low < high
    result = oracles.taylor(lambda x: x @ x, lambda x: 2 * x, VECTOR)
    assert result.remainders[0].range_of(1)
    assert result.remainders[0].range_of(2) is None


def test_kinks():
    """At a kink no gradient exists, and torch's choice is no error; a wrong formula is wrong nearby too."""
    zeros = np.zeros(300)
    assert oracles.taylor(lambda x: np.abs(x).sum(), np.sign, zeros).verdict is Verdict.KINK
    right = oracles.taylor(lambda x: np.maximum(x, 0).sum(), lambda x: 1.0 * (x > 0), zeros)
    assert right.verdict is Verdict.KINK
    with pytest.raises(Disagreement):
        oracles.taylor(lambda x: np.maximum(x, 0).sum(), lambda x: 2.0 * (x > 0) + 0.1, zeros)


@pytest.mark.parametrize(
    ("f", "gradient", "at"),
    [
        (lambda x: np.floor(1e4 * x).sum() / 3, np.zeros_like, VECTOR),
        (lambda x: (x.astype(np.float16) ** 2).sum(), lambda x: 2 * x, VECTOR),
        (
            lambda x: ((1 + 1e-4 * x) ** 2).sum() - x.dtype.type(x.size), lambda x: 2e-4 * (1 + 1e-4 * x),
            VECTOR.astype("f4"),
        ),
        (lambda x: (x * x).sum(), lambda x: 2 * x, np.zeros(5)),
    ],
    ids=["steps", "float16 inside", "float32 cancels", "stationary"],
)  # fmt: skip
def test_no_range_converges(f, gradient, at):
    with pytest.warns(InconclusiveWarning):
        result = oracles.taylor(f, gradient, at)
    assert result.verdict is Verdict.VACUOUS
    assert result.findings[0].evidence.reason


def test_random_functions_are_named():
    rng = np.random.default_rng()
    with pytest.raises(InvalidInput, match="deterministic"):
        oracles.taylor(lambda x: (x * (rng.random(500) > 0.5)).sum(), np.ones_like, VECTOR)
    with pytest.raises(Disagreement, match="another gradient"):
        oracles.taylor(lambda x: x.sum(), lambda x: 1.0 * (rng.random(500) > 0.5), VECTOR)


def test_invalid_input():
    def raising(x):
        raise ValueError("no")

    with pytest.raises(ReferenceFailed):
        oracles.taylor(raising, cubed, VECTOR)
    for f, gradient, at, more in (
        (lambda x: x, cubed, VECTOR, {}),
        (lambda x: np.nan, cubed, VECTOR, {}),
        (quartic, cubed, np.arange(3), {}),
        (quartic, 3, VECTOR, {}),
        (quartic, cubed, VECTOR, {"along": np.ones(3)}),
        (quartic, cubed, VECTOR, {"along": np.zeros(500)}),
        (quartic, cubed, VECTOR, {"directions": 0}),
        (lambda p: p["a"].sum(), lambda p: {"b": 1}, {"a": VECTOR}, {}),
    ):
        with pytest.raises(InvalidInput):
            oracles.taylor(f, gradient, at, **more)


def test_a_given_direction_and_the_hessian():
    result = oracles.taylor(quartic, cubed, VECTOR, along=np.ones(500), hessian=lambda x, v: 12 * x * x * v)
    assert result.verdict is Verdict.AGREES
    assert [f.quantity for f in result.findings if "Hessian" in f.quantity] == ["⟨w1, Hessian v1⟩"]
    with pytest.raises(Disagreement, match="Hessian"):
        oracles.taylor(quartic, cubed, VECTOR, hessian=lambda x, v: 6 * x * x * v)


def test_writing_into_the_parameters_is_refused():
    def in_place(x):
        x *= 4 * x * x
        return x

    with pytest.raises(Disagreement, match="writes"):
        oracles.taylor(quartic, in_place, VECTOR)


def test_arrays_of_torch_and_jax():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    at = {"a": torch.tensor(VECTOR), "b": torch.ones(3, dtype=torch.float32)}

    def grad(p):
        leaves = {n: t.clone().requires_grad_() for n, t in p.items()}
        (leaves["a"].sin().sum() + (leaves["b"] ** 3).sum()).backward()
        return {n: t.grad for n, t in leaves.items()}

    assert oracles.taylor(lambda p: p["a"].sin().sum() + (p["b"] ** 3).sum(), grad, at).verdict is Verdict.AGREES
    x = jax.numpy.ones(50) * 0.3
    assert oracles.taylor(lambda x: jax.numpy.exp(x).sum(), jax.grad(lambda x: jax.numpy.exp(x).sum()), x)


def test_the_chance_of_missing_is_what_it_is():
    """The stated chance, of an error in a random direction, against how often it is missed."""
    rng, missed, stated, trials = np.random.default_rng(0), 0, 0.0, 60
    x = rng.standard_normal(50).astype(np.float32)
    for seed in range(trials):
        delta = rng.standard_normal(50)
        delta *= 2e-3 * np.linalg.norm(cubed(x.astype(float)) * 1.0) / np.linalg.norm(delta)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = oracles.taylor(
                    lambda x: quartic(x.astype(np.float64)).astype(np.float32),
                    lambda x, delta=delta: cubed(x) + delta, x,
                    seed=seed, directions=1, blocks=False,
                )  # fmt: skip
            missed += 1
        except Disagreement as refused:
            result = refused.result
        stated += result.chance_of_missing(2e-3)
    deviation = (max(stated * (1 - stated / trials), 1)) ** 0.5
    assert missed <= stated + 4 * deviation


def test_the_limit_of_a_series():
    steps = [4.0**-k for k in range(1, 9)]
    value, radius, _ = limit_of([2 + 3 * h**2 - h**4 for h in steps], [1e-16 / h for h in steps], 2)
    assert abs(value - 2) <= radius < 1e-9
    value, radius, _ = limit_of([2 + 3 * h for h in steps], [1e-16 / h for h in steps], 2)
    assert abs(value - 2) <= radius < 1e-2
    assert limit_of([(-1.0) ** k for k in range(8)], [1e-16 / h for h in steps], 2)[1] > 1


def test_a_result_reads_well():
    result = oracles.taylor(quartic, cubed, VECTOR)
    assert "agrees" in str(result)
    assert "order 0, 1, 2" in result._repr_html_()
    contents = json.loads(result.to_json())
    assert contents["verdict"] == "agrees"
    assert len(contents["remainders"]) == 3
    assert result.chance_of_missing(1.0) < 1e-20
