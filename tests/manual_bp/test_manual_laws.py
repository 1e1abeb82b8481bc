"""The laws of the contract: nothing mutated, nothing aliased, dtypes kept, layouts unseen."""

import copy
import dataclasses
import re

import numpy as np
import pytest

import manual_bp as m

FLOATS = [np.float16, np.float32, np.float64, np.longdouble]
LAYERS = [
    m.Linear(3, 4), m.Linear(3, 1, bias=False),
    m.Identity(), m.Sigmoid(), m.Tanh(), m.ReLU(), m.LeakyReLU(0.25), m.Softmax(),
    m.Sequential(m.Linear(3, 2), m.Tanh(), m.Sequential(m.Linear(2, 5), m.Softmax())),
]  # fmt: skip
LOSSES = [cls(r) for cls in (m.HalfSquaredError, m.SoftmaxCrossEntropy) for r in ("sum", "mean", "none")]
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
    strided = np.zeros((2 * a.shape[0], 3 * a.shape[1]), a.dtype)
    strided[::2, ::3] = a
    return [np.asfortranarray(a), strided[::2, ::3], a[::-1, ::-1].copy()[::-1, ::-1]]


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
    targets = [weights] + ([rng.integers(3, size=rows)] if isinstance(loss, m.SoftmaxCrossEntropy) else [])
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
    for layer in (m.Identity(), m.Sigmoid(), m.Tanh(), m.ReLU(), m.LeakyReLU()):
        assert layer.backward(layer.forward({}, z)[1], z)[0].shape == z.shape
        assert layer.forward({}, z[0, 0])[0].shape == (2,)


def test_kinks_are_declared():
    for layer in (m.ReLU(), m.LeakyReLU(0.25)):
        z = np.array([0.0, -0.0])
        dz, _ = layer.backward(layer.forward({}, z)[1], np.ones(2))
        np.testing.assert_array_equal(dz, np.full(2, layer.kink_convention[0.0]))
    assert all(getattr(m, n).preserves_shape for n in ["Identity", "Sigmoid", "Tanh", "ReLU", "LeakyReLU", "Softmax"])


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


def refuses(error, message, call, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        call(*args, **kwargs)


def test_linear_refuses():
    layer, z, p = m.Linear(3, 4), np.zeros((2, 3)), {"W": np.zeros((3, 4)), "b": np.zeros((1, 4))}
    f = layer.forward
    refuses(
        ValueError,
        "Linear.forward: params['W']: expected shape (3, 4), got (4, 3)",
        f,
        p | {"W": p["W"].T},
        z,
    )
    refuses(
        ValueError,
        "Linear.forward: params['b']: expected shape (1, 4), got (4,)",
        f,
        p | {"b": np.zeros(4)},
        z,
    )
    refuses(ValueError, "Linear.forward: z: expected shape (N, 3), got (3,)", f, p, z[0])
    refuses(ValueError, "Linear.forward: z: expected shape (N, 3), got (2, 4)", f, p, np.zeros((2, 4)))
    refuses(ValueError, "Linear.forward: params: 'b' missing", f, {"W": p["W"]}, z)
    refuses(ValueError, "Linear.forward: params: 'c' unknown", f, p | {"c": z}, z)
    refuses(TypeError, "Linear.forward: params: expected a dict", f, None, z)
    mixed = "Linear.forward: params['W']: expected dtype float32, that of z, got float64"
    refuses(TypeError, mixed, f, p, z.astype(np.float32))
    refuses(TypeError, "Linear.forward: z: expected a numpy.ndarray, got list", f, p, z.tolist())
    for dtype in (int, bool, complex, ">f4"):
        refuses(TypeError, "Linear.forward: z: expected a floating dtype", f, p, z.astype(dtype))
    refuses(ValueError, "Linear.jacobian: z: expected shape (N, 3)", layer.jacobian, p, z[0])
    _, cache = f(p, z)
    refuses(ValueError, "Linear.backward: delta: expected shape (2, 4), got (2, 3)", layer.backward, cache, z)
    half = np.zeros((2, 4), np.float16)
    refuses(TypeError, "Linear.backward: delta: expected dtype float64, that of y", layer.backward, cache, half)


def test_construction_refuses():
    refuses(ValueError, "Linear: n_in: expected a positive integer, got 0", m.Linear, 0, 3)
    refuses(TypeError, "Linear: n_out: expected a positive integer, got 2.0", m.Linear, 3, 2.0)
    refuses(TypeError, "Linear: n_out: expected a positive integer, got True", m.Linear, 3, True)
    refuses(TypeError, "Linear: bias", m.Linear, 3, 2, 1)
    refuses(
        TypeError,
        "init: dtype: expected a floating dtype, got int64",
        m.Linear(1, 1).init,
        np.random.default_rng(),
        np.int64,
    )
    refuses(ValueError, "LeakyReLU: slope: expected a finite number, got nan", m.LeakyReLU, float("nan"))
    refuses(TypeError, "LeakyReLU: slope", m.LeakyReLU, "0.1")
    for cls in (m.HalfSquaredError, m.SoftmaxCrossEntropy):
        refuses(ValueError, "reduction: expected one of 'sum', 'mean', 'none', got 'avg'", cls, "avg")
    for rate in (0, -1.0, float("inf")):
        refuses(ValueError, "SGD: learning_rate", m.SGD, rate)


@pytest.mark.parametrize("layer", LAYERS[2:8], **names)
def test_activations_refuse(layer):
    name = type(layer).__name__
    refuses(TypeError, f"{name}.forward: z: expected a floating dtype", layer.forward, {}, np.zeros((2, 3), int))
    refuses(ValueError, f"{name}.forward: z: expected", layer.forward, {}, np.array(1.0))
    refuses(ValueError, f"{name}.forward: params: 'W' unknown", layer.forward, {"W": np.ones(1)}, np.ones((2, 3)))
    refuses(TypeError, f"{name}.forward: params: expected a dict", layer.forward, None, np.ones((2, 3)))
    _, cache = layer.forward({}, np.ones((2, 3)))
    refuses(
        ValueError,
        f"{name}.backward: delta: expected shape (2, 3), got (3,)",
        layer.backward,
        cache,
        np.ones(3),
    )
    refuses(TypeError, f"{name}.backward: delta", layer.backward, cache, np.ones((2, 3), np.float32))
    refuses(ValueError, f"{name}.jacobian: z", layer.jacobian, {}, np.ones(3))


def test_losses_refuse():
    y = np.zeros((2, 3))
    nan = y.copy()
    nan[1, 2] = np.nan
    for loss in (m.HalfSquaredError(), m.SoftmaxCrossEntropy()):
        name = type(loss).__name__
        refuses(ValueError, "target: expected shape (2, 3), got (3, 2)", loss.forward, y, y.T)
        refuses(ValueError, f"{name}.forward: target: row 1, column 2 is nan", loss.forward, y, nan)
        refuses(
            TypeError,
            "target: expected dtype float64, that of y, got float32",
            loss.forward,
            y,
            np.float32(y),
        )
        refuses(TypeError, "target: expected a numpy.ndarray, got list", loss.forward, y, y.tolist())
        refuses(ValueError, "y: expected shape (N, n) with n >= 1, got (2, 0)", loss.forward, y[:, :0], y[:, :0])
        _, cache = loss.forward(y, y)
        refuses(TypeError, f"{name}.backward: delta", loss.backward, cache, np.float32(1))
        refuses(
            ValueError,
            f"{name}.backward: delta: expected shape (), got (2,)",
            loss.backward,
            cache,
            np.ones(2),
        )
        refuses(TypeError, f"{name}.backward: delta", loss.backward, cache, "1")
        rows = type(loss)("none")
        refuses(
            ValueError,
            "delta: expected shape (2,), got (2, 1)",
            rows.backward,
            rows.forward(y, y)[1],
            y[:, :1],
        )
        refuses(TypeError, "delta: expected a numpy.ndarray, got float", rows.backward, rows.forward(y, y)[1])


def test_class_indices_are_checked():
    loss, y = m.SoftmaxCrossEntropy(), np.zeros((3, 4))
    refuses(ValueError, "target: row 1 is class 4, expected one of 0 … 3", loss.forward, y, np.array([0, 4, -1]))
    refuses(ValueError, "target: row 2 is class -1", loss.forward, y, np.array([0, 3, -1], np.int8))
    refuses(
        ValueError,
        "target: expected shape (3,) of class indices, got (2,)",
        loss.forward,
        y,
        np.array([0, 1]),
    )
    for dtype in (float, bool):
        refuses(TypeError, "class indices must be of integers", loss.forward, y, np.zeros(3, dtype))
    assert loss.forward(y[:, :1], np.zeros(3, int))[0] == 0


def test_networks_refuse():
    S, L = m.Sequential, m.Linear
    refuses(ValueError, "expected one layer or more", S)
    refuses(TypeError, "layer 1 is no Layer", S, L(2, 3), m.ReLU)
    message = (
        "layer 2 Linear(n_in=5, n_out=3, bias=True) expects 5 columns "
        "but layer 0 Linear(n_in=4, n_out=6, bias=True) gives 6"
    )
    refuses(ValueError, message, S, L(4, 6), m.ReLU(), L(5, 3))
    refuses(ValueError, "expects 5 columns", S, S(m.Tanh(), L(4, 6)), S(m.ReLU(), L(5, 3)))
    network = S(L(2, 3), m.ReLU(), S(L(3, 1)))
    assert (network.n_in, network.n_out, network.preserves_shape) == (2, 1, False)
    params = network.init(np.random.default_rng(0))
    assert list(params) == ["0.W", "0.b", "2.0.W", "2.0.b"]
    x = np.ones((4, 2))
    for unknown in ("3.W", "W", "0.", "00.W"):
        refuses(ValueError, f"params[{unknown!r}] unknown", network.forward, params | {unknown: x}, x)
    refuses(TypeError, "Sequential.forward: params: expected a dict", network.forward, None, x)
    with pytest.raises(ValueError, match="params: 'b' missing") as caught:
        network.forward({k: v for k, v in params.items() if k != "2.0.b"}, x)
    assert [note.split(",")[0] for note in caught.value.__notes__] == [
        "in layer 0 of the network", "in layer 2 of the network",
    ]  # fmt: skip
    _, cache = network.forward(params, x)
    with pytest.raises(ValueError, match="delta") as caught:
        network.backward(cache, np.ones((4, 2)))
    assert len(caught.value.__notes__) == 2
    refuses(
        ValueError,
        "'sum' or 'mean'",
        m.value_and_grad,
        network,
        m.HalfSquaredError("none"),
        params,
        x,
        x[:, :1],
    )
    refuses(ValueError, "deltas: delta: expected shape (4, 1), got (4, 2)", m.deltas, network, params, x, x)


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
    step = m.SGD(0.25).step
    refuses(ValueError, "SGD.step: grads: 'w' missing", step, params, {}, {})
    refuses(ValueError, "SGD.step: grads['w']: expected shape (2,), got (1,)", step, params, {"w": np.ones(1)}, {})
    refuses(TypeError, "SGD.step: grads['w']: expected dtype", step, params, {"w": np.ones(2, np.float32)}, {})
    refuses(ValueError, "SGD.step: state", step, params, grads, {"w": 1})
    assert step({"w": np.ones(1, np.float16)}, {"w": np.ones(1, np.float16)}, {})[0]["w"].dtype == np.float16
