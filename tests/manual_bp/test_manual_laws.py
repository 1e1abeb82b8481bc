"""The laws of the contract: nothing mutated, nothing aliased, dtypes kept, layouts unseen."""

import copy
import dataclasses

import numpy as np
import pytest

import manual_bp as m

FLOATS = [np.float16, np.float32, np.float64, np.longdouble]
LAYERS = [
    m.Linear(3, 4), m.Linear(3, 1, bias=False),
    m.Identity(), m.Sigmoid(), m.Tanh(), m.ReLU(), m.LeakyReLU(0.25), m.Softmax(),
    m.GELU(), m.GELU("tanh"), m.SiLU(), m.Softplus(), m.Softplus(2.0, 3.5), m.PReLU(), m.PReLU(3), m.LogSoftmax(),
    m.Sequential(m.Linear(3, 4), m.SwiGLU()),
    m.Sequential(m.Linear(3, 2), m.Tanh(), m.Sequential(m.Linear(2, 5), m.Softmax())),
]  # fmt: skip
OF_CLASSES = (m.SoftmaxCrossEntropy, m.CrossEntropy)
KINDS = (m.HalfSquaredError, m.Huber, m.BinaryCrossEntropyWithLogits, *OF_CLASSES)
LOSSES = [kind(r) for kind in KINDS for r in ("sum", "mean", "none")]
LOSSES += [m.CrossEntropy("mean", (1, 2, 0), 1), m.CrossEntropy("none", (1, 2, 0), None, 0.5, 2.0), m.Huber("sum", 0.5)]
LOSSES += [m.BinaryCrossEntropyWithLogits("mean", 2.0), m.BinaryCrossEntropyWithLogits("none", (1, 2, 0))]
names = {"ids": repr}


def small_integers(rng, shape, dtype):
    """Integers in floats: sums and products of a few of them are exact."""
    return rng.integers(-3, 4, shape).astype(dtype)


def drawn(layer, rows, dtype):
    rng = np.random.default_rng(rows)
    params = {name: small_integers(rng, value.shape, dtype) for name, value in layer.init(rng).items()}
    z = small_integers(rng, (rows, 3), dtype)
    return params, z, small_integers(rng, layer.forward(params, z)[0].shape, dtype)


def outputs(layer, params, z, delta):
    y, cache = layer.forward(params, z)
    dz, dparams = layer.backward(cache, delta)
    return [y, dz, *dparams.values()]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("layer", LAYERS, **names)
def test_layers_keep_the_laws(layer, rows, dtype):
    params, z, delta = drawn(layer, rows, dtype)
    arguments = [z, delta, *params.values()]
    before = copy.deepcopy(arguments)
    for array in arguments:
        array.flags.writeable = False
    y, cache = layer.forward(params, z)
    dz, dparams = layer.backward(cache, delta)
    again, dparams_again = layer.backward(cache, delta)
    results = [y, dz, again, layer.jacobian(params, z), *dparams.values(), *dparams_again.values()]
    assert {a.dtype for a in results} == {np.dtype(dtype)}
    assert dz.shape == z.shape
    assert {k: v.shape for k, v in dparams.items()} == {k: v.shape for k, v in params.items()}
    assert layer.jacobian(params, z).shape[1:] == (y.shape[1], 3)
    everything = arguments + results
    for i, one in enumerate(everything):
        assert not any(np.shares_memory(one, other) for other in everything[:i])
    np.testing.assert_array_equal(dz, again, strict=True)
    for array, old in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, old, strict=True)
    if rows == 0:
        assert not any(g.any() for g in dparams.values())


def layouts(a):
    """The same values in Fortran order, with a stride, and reversed in memory."""
    steps = (slice(None, None, 2), slice(None, None, 3))[: a.ndim]
    strided = np.zeros([n * s.step for n, s in zip(a.shape, steps, strict=True)], a.dtype)
    strided[steps] = a
    return [np.asfortranarray(a), strided[steps], np.flip(np.flip(a).copy())]


@pytest.mark.parametrize("layer", LAYERS, **names)
def test_layout_is_not_seen(layer):
    params, z, delta = drawn(layer, 5, np.float64)
    expected = outputs(layer, params, z, delta)
    for kind in range(3):
        relaid = {name: layouts(value)[kind] for name, value in params.items()}
        for one, other in zip(expected, outputs(layer, relaid, layouts(z)[kind], layouts(delta)[kind]), strict=True):
            # exp is vectorized differently for strided memory: NumPy promises 4 ulp, and no more than a
            # dozen roundings of numbers below 2^4 follow it here.
            assert np.abs(one - other).max() <= 2.0**-53 * 2**4 * 16
    constant = np.broadcast_to(z[:1, :1], z.shape), np.broadcast_to(delta[:1, :1], delta.shape)
    for one, other in zip(
        outputs(layer, params, *constant), outputs(layer, params, *map(np.array, constant)), strict=True
    ):
        assert np.abs(one - other).max() <= 2.0**-53 * 2**4 * 16


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [0, 1, 4])
@pytest.mark.parametrize("loss", LOSSES, **names)
def test_losses_keep_the_laws(loss, rows, dtype):
    rng = np.random.default_rng(0)
    y, weights = (small_integers(rng, (rows, 3), dtype) for _ in range(2))
    targets = [rng.integers(3, size=rows)] if isinstance(loss, OF_CLASSES) else []
    targets += [weights] if getattr(loss, "ignore_index", None) is None else []
    for target in targets:
        for relay in (np.array, np.asfortranarray):
            z = relay(y)
            before = z.copy(), target.copy()
            z.flags.writeable = target.flags.writeable = False
            value, cache = loss.forward(z, target)
            assert value.dtype == dtype
            assert value.shape == ((rows,) if loss.reduction == "none" else ())
            delta = np.ones(rows, dtype) if loss.reduction == "none" else 1.0
            one, other = loss.backward(cache, delta), loss.backward(cache, delta)
            np.testing.assert_array_equal(one, other, strict=True)
            assert one.dtype == dtype
            assert one.shape == y.shape
            assert not any(np.shares_memory(a, b) for a, b in ((one, other), (one, z), (one, target)))
            np.testing.assert_array_equal(z, before[0])
            np.testing.assert_array_equal(target, before[1])
            if rows == 0:
                assert not np.any(value)


def test_half_precision_sums_do_not_overflow_on_the_way():
    y = np.full((200, 2), 200, np.float16)
    value, cache = m.HalfSquaredError().forward(y, np.zeros_like(y))
    assert value == 40000  # ½ (200² + 200²), though the sum over the rows is 8 million
    assert m.HalfSquaredError().backward(cache)[0, 0] == 1


def test_elementwise_takes_any_rank():
    z = np.arange(-4.0, 4).reshape(2, 2, 2)
    for layer in (m.Identity(), m.Sigmoid(), m.Tanh(), m.ReLU(), m.LeakyReLU(), m.GELU(), m.SiLU(), m.Softplus()):
        assert layer.backward(layer.forward({}, z)[1], z)[0].shape == z.shape
        assert layer.forward({}, z[0, 0])[0].shape == (2,)


def test_kinks_are_declared():
    for layer in (m.ReLU(), m.LeakyReLU(0.25)):
        z = np.array([0.0, -0.0])
        dz, _ = layer.backward(layer.forward({}, z)[1], np.ones(2))
        np.testing.assert_array_equal(dz, np.full(2, layer.kink_convention[0.0]))
    preserving = "Identity Sigmoid Tanh ReLU LeakyReLU Softmax GELU SiLU Softplus PReLU LogSoftmax"
    assert all(getattr(m, n).preserves_shape for n in preserving.split())


def test_layers_are_frozen_values():
    assert m.Linear(2, 3) == m.Linear(2, 3)
    assert repr(m.Sequential(m.Linear(2, 3), m.ReLU())) == "Sequential(Linear(n_in=2, n_out=3, bias=True), ReLU())"
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.Linear(2, 3).n_in = 4


@pytest.mark.parametrize("dtype", FLOATS)
def test_initial_weights_have_the_variance_of_he(dtype):
    params = m.Linear(400, 300).init(np.random.default_rng(0), dtype)
    assert params["W"].dtype == params["b"].dtype == dtype
    assert not params["b"].any()
    # The mean of n squares of normal numbers strays from 1 by sqrt(2/n) a time; never by six times that.
    n = params["W"].size
    assert abs(np.mean(params["W"].astype(float) ** 2) * 400 / 2 - 1) < 6 * (2 / n) ** 0.5


def test_a_layer_of_unknown_width_fits_anywhere():
    class Doubled:
        def init(self, rng, dtype=np.float64):
            return {}

        def forward(self, params, z):
            return np.hstack((z, z)), None

        def backward(self, cache, delta):
            return delta[:, : delta.shape[1] // 2] + delta[:, delta.shape[1] // 2 :], {}

    network = m.Sequential(m.Linear(2, 3), Doubled(), m.Linear(6, 1))
    params = network.init(np.random.default_rng(0))
    y, cache = network.forward(params, np.ones((2, 2)))
    assert network.backward(cache, y)[0].shape == (2, 2)
    assert m.Sequential(Doubled()).n_in is None


def test_sgd():
    params, grads = {"w": np.array([1.0, 2])}, {"w": np.array([4.0, -8])}
    new, state = m.SGD(0.25).step(params, grads, m.SGD(0.25).init(params))
    np.testing.assert_array_equal(new["w"], [0.0, 4])
    np.testing.assert_array_equal(params["w"], [1.0, 2])
    assert state == {}
    half = {"w": np.ones(1, np.float16)}
    assert m.SGD(0.25).step(half, half, {})[0]["w"].dtype == np.float16
