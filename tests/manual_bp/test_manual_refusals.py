"""What is refused, and in what words."""

import re

import numpy as np
import pytest

import manual_bp as m

ACTIVATIONS = [m.Identity(), m.Sigmoid(), m.Tanh(), m.ReLU(), m.LeakyReLU(0.25), m.Softmax()]
ACTIVATIONS += [m.GELU(), m.GELU("tanh"), m.SiLU(), m.Softplus(), m.LogSoftmax()]


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
    for cls in (m.HalfSquaredError, m.SoftmaxCrossEntropy, m.Huber, m.BinaryCrossEntropyWithLogits):
        refuses(ValueError, "reduction: expected one of 'sum', 'mean', 'none', got 'avg'", cls, "avg")
    for rate in (0, -1.0, float("inf")):
        refuses(ValueError, "SGD: learning_rate", m.SGD, rate)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
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
    for loss in (m.HalfSquaredError(), m.SoftmaxCrossEntropy(), m.Huber(), m.BinaryCrossEntropyWithLogits()):
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


def test_sgd_refuses():
    params, grads = {"w": np.array([1.0, 2])}, {"w": np.array([4.0, -8])}
    step = m.SGD(0.25).step
    refuses(ValueError, "SGD.step: grads: 'w' missing", step, params, {}, {})
    refuses(ValueError, "SGD.step: grads['w']: expected shape (2,), got (1,)", step, params, {"w": np.ones(1)}, {})
    refuses(TypeError, "SGD.step: grads['w']: expected dtype", step, params, {"w": np.ones(2, np.float32)}, {})
    refuses(ValueError, "SGD.step: state", step, params, grads, {"w": 1})
