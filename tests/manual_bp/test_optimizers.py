"""The optimizers by hand: exact fractions where they are rational, a few steps worked out where they have roots."""

import re
from fractions import Fraction

import numpy as np
import pytest

import manual_bp as m

ALL = [
    m.SGD(0.25), m.SGD(0.25, 0.5), m.SGD(0.25, 0.5, True),
    m.Adam(0.25), m.AdamW(0.25), m.Clipped(m.SGD(0.25, 0.5), 1.0), m.Clipped(m.Adam(), 0.5),
]  # fmt: skip


def refuses(error, message, call, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        call(*args, **kwargs)


def run(optimizer, params, gradients):
    state, path = optimizer.init(params), []
    for grads in gradients:
        params, state = optimizer.step(params, grads, state)
        path.append(params)
    return path, state


def objects(*numbers):
    return np.array([Fraction(n) for n in numbers], object)


@pytest.mark.parametrize(
    ("optimizer", "path"),
    [
        # v is 4, 6, 7 of gradients 4, 4, 4; plain descent goes down by v/4, Nesterov by (4 + v/2)/4.
        (m.SGD(Fraction(1, 4), Fraction(1, 2)), [0, Fraction(-3, 2), Fraction(-13, 4)]),
        (m.SGD(Fraction(1, 4), Fraction(1, 2), nesterov=True), [Fraction(-1, 2), Fraction(-9, 4), Fraction(-33, 8)]),
        (m.SGD(Fraction(1, 4)), [0, -1, -2]),
    ],
)
def test_momentum_by_hand(optimizer, path):
    result, state = run(optimizer, {"w": objects(1)}, [{"w": objects(4)}] * 3)
    assert [p["w"][0] for p in result] == path
    assert [v[0] for v in state.values()] == ([7] if optimizer.momentum else [])


def test_adam_by_hand():
    """β₁ = ½, β₂ = 0, ε = 1, η = 1: m is 3/2 and ¼, m̂ 3 and ⅓, v̂ 9 and 1; the steps are ¾ and ⅙."""
    optimizer = m.Adam(1.0, 0.5, 0.0, 1.0)
    path, state = run(optimizer, {"w": np.array([1.0])}, [{"w": np.array([3.0])}, {"w": np.array([-1.0])}])
    assert path[0]["w"][0] == 0.25
    assert abs(Fraction(path[1]["w"][0]) - Fraction(1, 12)) <= Fraction(1, 2**53)  # two roundings of ⅙ and of the sum
    assert (state["step"], state["mean.w"][0], state["square.w"][0]) == (2, 0.25, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_the_first_step_of_adam_is_the_rate_whatever_the_gradient(dtype):
    """m̂ = g and v̂ = g² then, however small g is: in half precision g² and ε would be 0, so the state is wider."""
    gradient = np.array([1.0, -1e-3, 300.0, 0.0], dtype)
    path, state = run(m.Adam(0.25), {"w": np.zeros(4, dtype)}, [{"w": gradient}])
    moved = path[0]["w"]
    assert moved.dtype == dtype
    assert state["mean.w"].dtype == state["square.w"].dtype == (np.float32 if dtype is np.float16 else dtype)
    # ε makes the step shorter by 1e-8 of 1/|g| and each operation rounds once.
    expected = np.array([-0.25, 0.25, -0.25, 0.0])
    assert np.abs(moved - expected).max() <= 0.25 * (1e-5 + 16 * max(np.finfo(dtype).eps, 2.0**-52))


def test_weights_decay_by_themselves():
    """Without a gradient W is multiplied by 1 − ηλ; Adam leaves it."""
    params, grads = {"w": np.array([8.0, -4.0])}, {"w": np.zeros(2)}
    (_, second), _ = run(m.AdamW(0.5, weight_decay=0.5), params, [grads, grads])
    np.testing.assert_array_equal(second["w"], [4.5, -2.25])
    np.testing.assert_array_equal(run(m.Adam(0.5), params, [grads])[0][0]["w"], params["w"])
    one, other = ([{"w": np.array([3.0, -2.0])}] * 3 for _ in range(2))
    without = m.AdamW(0.5, weight_decay=0.0)
    np.testing.assert_array_equal(run(without, params, one)[0][-1]["w"], run(m.Adam(0.5), params, other)[0][-1]["w"])


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_optimizers_follow_the_contract(optimizer, dtype):
    rng = np.random.default_rng(0)
    params, grads = ({n: rng.standard_normal(s).astype(dtype) for n, s in SHAPES.items()} for _ in range(2))
    state = optimizer.init(params)
    arrays = [*params.values(), *grads.values(), *state.values()]
    before = [a.copy() for a in arrays]
    for array in arrays:
        array.flags.writeable = False
    new_params, new_state = optimizer.step(params, grads, state)
    again, _ = optimizer.step(params, grads, state)
    assert {n: (a.shape, a.dtype) for n, a in new_params.items()} == {n: (a.shape, a.dtype) for n, a in params.items()}
    assert {n: (a.shape, a.dtype) for n, a in new_state.items()} == {n: (a.shape, a.dtype) for n, a in state.items()}
    for n, a in new_params.items():
        np.testing.assert_array_equal(a, again[n])
    for a, old in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, old)
    for a in (*new_params.values(), *new_state.values()):
        assert type(a) is np.ndarray
        assert not any(np.shares_memory(a, b) for b in arrays)


SHAPES = {"W": (2, 3), "b": (1, 3), "none": (0, 3), "s": ()}


def test_clipping_by_hand():
    grads = {"W": np.array([[3.0, 0.0]]), "b": np.array([-4.0])}
    clipped, norm = m.clip_by_global_norm(grads, 2.5)
    assert norm == 5
    np.testing.assert_array_equal(clipped["W"], [[1.5, 0]])
    np.testing.assert_array_equal(clipped["b"], [-2])
    for enough in (5, 100.0):
        cache, norm = m.clip_by_global_norm(grads, enough)
        assert all(np.array_equal(cache[n], g) and not np.shares_memory(cache[n], g) for n, g in grads.items())
        assert norm == 5
    assert m.clip_by_global_norm({}, 1.0) == ({}, 0)
    assert m.clip_by_global_norm({"w": np.zeros(3)}, 1.0)[1] == 0


@pytest.mark.parametrize(("dtype", "huge"), [(np.float16, 2.0**14), (np.float32, 2.0**126), (np.float64, 2.0**1021)])
def test_no_square_of_a_gradient_overflows(dtype, huge):
    clipped, norm = m.clip_by_global_norm({"w": np.array([3.0, -4.0], dtype) / 4 * dtype(huge)}, 5.0)
    assert norm == 1.25 * huge
    assert clipped["w"].dtype == dtype
    np.testing.assert_array_equal(clipped["w"], [3, -4])


@pytest.mark.parametrize(("bad", "finite"), [(np.inf, 0.0), (-np.inf, 0.0), (np.nan, np.nan)])
def test_gradients_that_are_not_finite_follow_the_formula(bad, finite):
    """g · c/∞: no finite gradient takes an unclipped step."""
    clipped, norm = m.clip_by_global_norm({"w": np.array([1.0, bad]), "b": np.array([-2.0])}, 0.5)
    np.testing.assert_array_equal(clipped["w"], [finite, np.nan])
    np.testing.assert_array_equal(clipped["b"], [finite])
    assert not np.isfinite(norm)


def test_construction_refuses():
    for kind in (m.SGD, m.Adam, m.AdamW):
        for rate in (0, -1.0):
            refuses(ValueError, f"{kind.__name__}: learning_rate", kind, rate)
    refuses(ValueError, "SGD: momentum", m.SGD, 0.1, 1)
    refuses(ValueError, "SGD: nesterov", m.SGD, 0.1, 0.0, True)
    refuses(TypeError, "SGD: nesterov", m.SGD, 0.1, 0.5, 1)
    refuses(ValueError, "Adam: beta1", m.Adam, 0.1, 1.0)
    refuses(ValueError, "AdamW: beta2", m.AdamW, 0.1, 0.9, -0.1)
    refuses(ValueError, "Adam: epsilon", m.Adam, epsilon=0)
    refuses(ValueError, "AdamW: weight_decay", m.AdamW, weight_decay=-0.01)
    refuses(TypeError, "Clipped: optimizer", m.Clipped, m.Adam, 1.0)
    refuses(ValueError, "Clipped: max_norm", m.Clipped, m.Adam(), 0)
    refuses(
        ValueError,
        "clip_by_global_norm: max_norm",
        m.clip_by_global_norm,
        {},
        np.inf,
    )


def test_another_state_is_refused():
    params, grads = {"w": np.ones(2)}, {"w": np.ones(2)}
    adam, momentum = m.Adam(), m.SGD(0.1, 0.9)
    state = adam.init(params)
    refuses(ValueError, "SGD.step: state", momentum.step, params, grads, state)
    refuses(ValueError, "Adam.step: state", adam.step, params, grads, {})
    refuses(ValueError, "Adam.step: grads", adam.step, params, {}, state)
    refuses(
        ValueError,
        "AdamW.step: grads['w']",
        m.AdamW().step,
        params,
        {"w": np.ones(1)},
        state,
    )
    wrong = state | {"mean.w": np.ones(3)}
    refuses(ValueError, "Adam.step: state['mean.w']", adam.step, params, grads, wrong)
    wrong = state | {"square.w": np.ones(2, np.float32)}
    refuses(TypeError, "Adam.step: state['square.w']", adam.step, params, grads, wrong)
    for step in (np.array(-1), np.array(1.0), np.array([1])):
        message = "Adam.step: state['step']"
        refuses(ValueError, message, adam.step, params, grads, state | {"step": step})


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_a_run_is_saved_and_goes_on(optimizer, tmp_path):
    """Ten epochs at once, and five with everything written to disk between them: the same bits."""
    network, loss = m.Sequential(m.Linear(2, 4), m.GELU(), m.Linear(4, 2)), m.CrossEntropy()
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((12, 2)), rng.integers(2, size=12)
    params = network.init(rng)
    whole = m.fit(network, loss, params, x, target, optimizer, epochs=10)
    half = m.fit(network, loss, params, x, target, optimizer, epochs=5)
    m.save_params(tmp_path / "params.npz", half.params)
    m.save_params(tmp_path / "state.npz", half.state)
    params = m.load_params(tmp_path / "params.npz", params)
    state = m.load_params(tmp_path / "state.npz", optimizer.init(params))
    rest = m.fit(network, loss, params, x, target, optimizer, epochs=5, state=state)
    assert half.losses + rest.losses == whole.losses
    assert whole.losses[-1] < whole.losses[0]
    for name in params:
        np.testing.assert_array_equal(rest.params[name], whole.params[name])
    for name in state:
        np.testing.assert_array_equal(rest.state[name], whole.state[name])
