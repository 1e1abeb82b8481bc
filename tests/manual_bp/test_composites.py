"""Composites: routing of side inputs and outputs, graphs that are not chains, errors."""

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

import manual_bp as m


@dataclass(frozen=True)
class Gain:
    """A layer with side arrays: y = z·gain + shift, and a side output 2·gain; the integers `which` are not used."""

    inputs = ("z", "gain", "which")
    outputs = ("y", "gain")

    def init(self, rng, dtype=np.float64):
        return {"shift": np.ones((), dtype)}

    def forward(self, params, z):
        z, gain, which = z
        assert which.dtype.kind == "i"
        return (z * gain + params["shift"], 2 * gain), (z, gain)

    def backward(self, cache, delta):
        z, gain = cache
        delta, d_gain = delta
        dgain = (delta * z).sum(0, keepdims=True) + 2 * d_gain
        return (delta * gain, dgain, None), {"shift": np.asarray(delta.sum())}


def exact(rng, *shape):
    return np.vectorize(Fraction)(rng.integers(-9, 10, shape), rng.integers(1, 5, shape))


def exact_params(layer, rng):
    return {name: exact(rng, *value.shape) for name, value in layer.init(np.random.default_rng(0)).items()}


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert (a is None) == (b is None)
        assert a is None or np.array_equal(a, b)


def test_side_arrays_find_their_layers():
    rng, which = np.random.default_rng(1), np.array([1, 2])
    inner = m.Sequential(Gain(), m.Tanh())
    network = m.Sequential(m.Linear(3, 2), Gain(), m.Sequential(m.ReLU(), inner), m.Linear(2, 4))
    assert network.inputs == ("z", "1.gain", "1.which", "2.1.0.gain", "2.1.0.which")
    assert network.outputs == ("y", "1.gain", "2.1.0.gain")
    params = network.init(rng)
    assert list(params) == ["0.W", "0.b", "1.shift", "2.1.0.shift", "3.W", "3.b"]
    z, first, second = (rng.standard_normal(shape) for shape in ((5, 3), (1, 2), (1, 2)))
    (y, one, two), cache = network.forward(params, (z, first, which, second, which))
    same((one, two), (2 * first, 2 * second))
    delta = rng.standard_normal(y.shape), rng.standard_normal((1, 2)), rng.standard_normal((1, 2))
    (dz, *rest), grads = network.backward(cache, delta)
    assert list(grads) == list(params)

    caches, at = [], z
    flat = [(network.layers[0], "0."), (Gain(), "1."), (m.ReLU(), "-"), (Gain(), "2.1.0."), (m.Tanh(), "-")]
    for layer, prefix in [*flat, (network.layers[3], "3.")]:
        own = {n.removeprefix(prefix): p for n, p in params.items() if n.startswith(prefix)}
        layer_inputs = {"1.": (at, first, which), "2.1.0.": (at, second, which)}.get(prefix, at)
        result, inner_cache = layer.forward(own, layer_inputs)
        at = m.protocol.as_tuple(result)[0]
        caches.append((layer, inner_cache, prefix))
    assert np.array_equal(at, y)
    back, dgains = delta[0], {}
    for layer, inner_cache, prefix in reversed(caches):
        side = {"1.": delta[1], "2.1.0.": delta[2]}.get(prefix)
        back, _ = layer.backward(inner_cache, back if side is None else (back, side))
        if side is not None:
            back, dgains[prefix], none = back
            assert none is None
    same((dz, *rest), (back, dgains["1."], None, dgains["2.1.0."], None))


def test_a_loss_leaves_side_outputs_alone():
    network, rng = m.Sequential(Gain(), m.Linear(2, 1)), np.random.default_rng(0)
    params, x, gain = network.init(rng), rng.standard_normal((4, 2)), rng.standard_normal((1, 2))
    value, grads = m.value_and_grad(network, m.HalfSquaredError(), params, (x, gain, np.arange(2)), np.zeros((4, 1)))
    plain = m.value_and_grad(
        m.Sequential(m.Linear(2, 1)),
        m.HalfSquaredError(),
        {"0.W": params["1.W"], "0.b": params["1.b"]},
        x * gain + params["0.shift"],
        np.zeros((4, 1)),
    )
    assert value == plain[0]
    assert np.array_equal(grads["1.W"], plain[1]["0.W"])


def test_residual_and_parallel_match_their_definitions():
    rng = np.random.default_rng(2)
    f, g = m.Sequential(m.Linear(2, 3), m.ReLU(), m.Linear(3, 2)), m.Linear(2, 2)
    z, delta = exact(rng, 4, 2), exact(rng, 4, 2)
    own, of_g = exact_params(f, rng), exact_params(g, rng)
    (y, cache), (y_g, cache_g) = f.forward(own, z), g.forward(of_g, z)
    (dz, grads), (dz_g, _) = f.backward(cache, delta), g.backward(cache_g, delta)

    result, inner_cache = m.Residual(f).forward(own, z)
    back, dparams = m.Residual(f).backward(inner_cache, delta)
    same((result, back, *dparams.values()), (z + y, delta + dz, *grads.values()))

    params = {f"0.{n}": p for n, p in own.items()} | {f"1.{n}": p for n, p in of_g.items()}
    both = m.Parallel(f, g)
    result, inner_cache = both.forward(params, z)
    same((result, both.backward(inner_cache, delta)[0]), (y + y_g, dz + dz_g))

    rest = m.Parallel(f, g, axis=-1)
    result, inner_cache = rest.forward(params, z)
    assert np.array_equal(result, np.concatenate((y, y_g), axis=1))
    dz_f = f.backward(cache, delta)[0]
    assert np.array_equal(rest.backward(inner_cache, np.concatenate((delta, delta), axis=1))[0], dz_f + dz_g)
    assert (both.n_in, both.n_out, rest.n_out, m.Residual(g).n_out) == (2, 2, 4, 2)
    assert m.Sequential(rest, m.Linear(4, 1)).n_out == 1


def test_a_residual_is_parallel_to_the_identity():
    rng = np.random.default_rng(3)
    f = m.Linear(3, 3)
    params, z, delta = exact_params(f, rng), exact(rng, 2, 3), exact(rng, 2, 3)
    one, other = m.Residual(f), m.Parallel(m.Identity(), f)
    (y, inner_cache), (y_p, kept_p) = (
        one.forward(params, z),
        other.forward({f"1.{n}": p for n, p in params.items()}, z),
    )
    same((y, one.backward(inner_cache, delta)[0]), (y_p, other.backward(kept_p, delta)[0]))


@pytest.mark.parametrize(
    "network",
    [
        m.Sequential(m.Linear(3, 4), m.Residual(m.Sequential(m.Linear(4, 2), m.Tanh(), m.Linear(2, 4))), m.Softmax()),
        m.Sequential(m.Parallel(m.Linear(3, 2), m.Tanh(), axis=-1), m.Parallel(m.Linear(5, 2), m.Linear(5, 2))),
    ],
    ids=("residual", "parallel"),
)
def test_16_holds_through_graphs(network):
    rng = np.random.default_rng(4)
    params, x = network.init(rng, np.longdouble), rng.standard_normal((5, 3)).astype(np.longdouble)
    delta = rng.standard_normal(network.forward(params, x)[0].shape).astype(np.longdouble)
    by_15 = m.deltas(network, params, x, delta)
    by_16 = m.deltas(network, params, x, delta, closed_form=True)
    for one, other in zip(by_15, by_16, strict=True):
        assert np.abs(one - other).max() <= 2.0**-60 * 64  # tens of roundings of numbers near 1
    assert np.abs(network.jacobian(params, x)).max() > 0


def test_parallel_takes_side_arrays_of_both_branches():
    rng, which = np.random.default_rng(5), np.arange(3)
    for axis in (None, 1):
        layer = m.Parallel(Gain(), m.Tanh(), m.Residual(Gain()), axis=axis)
        assert layer.inputs == ("z", "0.gain", "0.which", "2.gain", "2.which")
        assert layer.outputs == ("y", "0.gain", "2.gain")
        params, z, gain = layer.init(rng), rng.standard_normal((2, 3)), rng.standard_normal((1, 3))
        outputs, cache = layer.forward(params, (z, gain, which, 3 * gain, which))
        same(outputs[1:], (2 * gain, 6 * gain))
        dz, _ = layer.backward(cache, outputs)
        assert [None if d is None else d.shape for d in dz] == [(2, 3), (1, 3), None, (1, 3), None]


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (2, 0), (2, 1, 3)])
def test_rowwise_is_the_layer_on_all_rows(lead):
    rng, f = np.random.default_rng(6), m.Sequential(m.Linear(3, 4), m.ReLU(), m.Linear(4, 2))
    params, z, delta = exact_params(f, rng), exact(rng, 6, 3)[: np.prod(lead, dtype=int)], exact(rng, 6, 2)
    delta = delta[: len(z)]
    y, cache = f.forward(params, z)
    dz, grads = f.backward(cache, delta)
    layer = m.Rowwise(f)
    result, inner_cache = layer.forward(params, z.reshape(*lead, 3))
    back, dparams = layer.backward(inner_cache, delta.reshape(*lead, 2))
    assert (result.shape, back.shape) == ((*lead, 2), (*lead, 3))
    same((result.reshape(y.shape), back.reshape(z.shape), *dparams.values()), (y, dz, *grads.values()))
    assert (layer.n_in, layer.n_out, m.Rowwise(m.Softmax()).preserves_shape) == (3, 2, True)


def test_rowwise_hands_side_arrays_through():
    layer, which = m.Rowwise(Gain()), np.arange(3)
    assert layer.inputs == ("z", "gain", "which")
    z, gain = np.ones((2, 4, 3)), np.full((1, 3), 2.0)
    (y, doubled), cache = layer.forward({"shift": np.ones(())}, (z, gain, which))
    assert y.shape == z.shape
    assert np.array_equal(doubled, 2 * gain)
    (dz, dgain, none), _ = layer.backward(cache, (y, doubled))
    assert (dz.shape, dgain.shape, none) == (z.shape, gain.shape, None)


def refuses(error, message, call, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        call(*args, **kwargs)


def test_composites_refuse():
    S, L, P, R = m.Sequential, m.Linear, m.Parallel, m.Residual
    refuses(ValueError, "Residual: f", R, L(2, 3))
    refuses(TypeError, "Residual: layer 0", R, m.Tanh)
    refuses(ValueError, "Parallel", P)
    refuses(ValueError, "Parallel: branches", P, L(2, 1), L(3, 1))
    refuses(ValueError, "Parallel: branches", P, L(2, 1), L(2, 4))
    refuses(TypeError, "Parallel: axis", P, L(2, 1), axis=True)
    refuses(ValueError, "Sequential: layer 1", S, P(L(2, 1), L(2, 4), axis=-1), L(4, 1))
    z, network = np.ones((2, 3)), S(m.Tanh(), Gain())
    params = network.init(np.random.default_rng(0))
    refuses(
        TypeError,
        "Sequential.forward: z",
        network.forward,
        params,
        z,
    )
    (y, gain), cache = network.forward(params, (z, z[:1], np.arange(2)))
    refuses(
        TypeError,
        "Sequential.backward: delta",
        network.backward,
        cache,
        (y, gain, gain),
    )
    refuses(ValueError, "Residual.forward: f(z)", R(Mean()).forward, {}, z)
    refuses(ValueError, "Parallel.forward: branch 1's y", P(m.Tanh(), Mean()).forward, {}, z)
    refuses(ValueError, "Parallel.forward: axis", P(m.Tanh(), axis=2).forward, {}, z)
    layer = P(m.Tanh(), m.Tanh(), axis=1)
    refuses(ValueError, "Parallel.backward: delta", layer.backward, layer.forward({}, z)[1], z)
    refuses(ValueError, "Parallel: params", layer.forward, {"2.W": z}, z)
    refuses(TypeError, "Rowwise: layer 0", m.Rowwise, m.Tanh)
    refuses(ValueError, "Sequential: layer 1", S, m.LSTM(2, 3), m.Rowwise(L(4, 1)))
    refuses(ValueError, "Rowwise.forward: z", m.Rowwise(m.Tanh()).forward, {}, np.array(1.0))
    refuses(ValueError, "Rowwise.forward: f(z)", m.Rowwise(Mean()).forward, {}, np.ones((2, 3, 3)))
    rowwise = m.Rowwise(m.Tanh())
    refuses(ValueError, "Rowwise.backward: delta", rowwise.backward, rowwise.forward({}, z)[1], z.ravel())
    with pytest.raises(TypeError) as excinfo:
        P(m.Tanh(), S(m.Tanh())).forward({}, z.astype(int))
    assert excinfo.value.__notes__ == ["in branch 0, Tanh(), parameters '0.…'"]


def test_residual_accepts_a_layer_of_unknown_width():
    assert m.Residual(m.Sequential(m.Linear(2, 3), Mean())).n_out is None


class Mean:
    def init(self, rng, dtype=np.float64):
        return {}

    def forward(self, params, z):
        return z.mean(0, keepdims=True), None

    def backward(self, cache, delta):
        raise NotImplementedError


def test_composites_are_values():
    assert m.Residual(m.Linear(2, 2)) == m.Residual(m.Linear(2, 2))
    assert repr(m.Parallel(m.Tanh(), m.ReLU(), axis=1)) == "Parallel(Tanh(), ReLU(), axis=1)"
    assert m.Parallel(m.Tanh()) != m.Parallel(m.Tanh(), axis=-1)
    assert hash(m.Sequential(m.Tanh())) == hash(m.Sequential(m.Tanh()))
