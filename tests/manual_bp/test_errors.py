"""Wrong arguments: the type of the error, and the argument that it names."""

import re

import numpy as np
import pytest
from test_recurrent import draw_inputs

import manual_bp as m


def refuses(error, message, call, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        call(*args, **kwargs)


ACTIVATIONS = [m.Identity(), m.Sigmoid(), m.Tanh(), m.ReLU(), m.LeakyReLU(0.25), m.Softmax()]
ACTIVATIONS += [m.GELU(), m.GELU("tanh"), m.SiLU(), m.Softplus(), m.LogSoftmax()]


def test_linear_refuses():
    layer, z, p = m.Linear(3, 4), np.zeros((2, 3)), {"W": np.zeros((3, 4)), "b": np.zeros((1, 4))}
    f = layer.forward
    refuses(
        ValueError,
        "Linear.forward: params['W']",
        f,
        p | {"W": p["W"].T},
        z,
    )
    refuses(
        ValueError,
        "Linear.forward: params['b']",
        f,
        p | {"b": np.zeros(4)},
        z,
    )
    refuses(ValueError, "Linear.forward: z", f, p, z[0])
    refuses(ValueError, "Linear.forward: z", f, p, np.zeros((2, 4)))
    refuses(ValueError, "Linear.forward: params", f, {"W": p["W"]}, z)
    refuses(ValueError, "Linear.forward: params", f, p | {"c": z}, z)
    refuses(TypeError, "Linear.forward: params", f, None, z)
    mixed = "Linear.forward: params['W']"
    refuses(TypeError, mixed, f, p, z.astype(np.float32))
    refuses(TypeError, "Linear.forward: z", f, p, z.tolist())
    for dtype in (int, bool, complex, ">f4"):
        refuses(TypeError, "Linear.forward: z", f, p, z.astype(dtype))
    refuses(ValueError, "Linear.jacobian: z", layer.jacobian, p, z[0])
    _, cache = f(p, z)
    refuses(ValueError, "Linear.backward: delta", layer.backward, cache, z)
    half = np.zeros((2, 4), np.float16)
    refuses(TypeError, "Linear.backward: delta", layer.backward, cache, half)


def test_construction_refuses_layers():
    refuses(ValueError, "Linear: n_in", m.Linear, 0, 3)
    refuses(TypeError, "Linear: n_out", m.Linear, 3, 2.0)
    refuses(TypeError, "Linear: n_out", m.Linear, 3, True)
    refuses(TypeError, "Linear: bias", m.Linear, 3, 2, 1)
    refuses(
        TypeError,
        "init: dtype",
        m.Linear(1, 1).init,
        np.random.default_rng(),
        np.int64,
    )
    refuses(ValueError, "LeakyReLU: slope", m.LeakyReLU, float("nan"))
    refuses(TypeError, "LeakyReLU: slope", m.LeakyReLU, "0.1")
    for cls in (m.HalfSquaredError, m.SoftmaxCrossEntropy, m.Huber, m.BinaryCrossEntropyWithLogits):
        refuses(ValueError, "reduction", cls, "avg")
    for rate in (0, -1.0, float("inf")):
        refuses(ValueError, "SGD: learning_rate", m.SGD, rate)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_activations_refuse(layer):
    name = type(layer).__name__
    refuses(TypeError, f"{name}.forward: z", layer.forward, {}, np.zeros((2, 3), int))
    refuses(ValueError, f"{name}.forward: z", layer.forward, {}, np.array(1.0))
    refuses(ValueError, f"{name}.forward: params", layer.forward, {"W": np.ones(1)}, np.ones((2, 3)))
    refuses(TypeError, f"{name}.forward: params", layer.forward, None, np.ones((2, 3)))
    _, cache = layer.forward({}, np.ones((2, 3)))
    refuses(
        ValueError,
        f"{name}.backward: delta",
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
        refuses(ValueError, "target", loss.forward, y, y.T)
        refuses(ValueError, f"{name}.forward: target", loss.forward, y, nan)
        refuses(
            TypeError,
            "target",
            loss.forward,
            y,
            np.float32(y),
        )
        refuses(TypeError, "target", loss.forward, y, y.tolist())
        refuses(ValueError, "y", loss.forward, y[:, :0], y[:, :0])
        _, cache = loss.forward(y, y)
        refuses(TypeError, f"{name}.backward: delta", loss.backward, cache, np.float32(1))
        refuses(
            ValueError,
            f"{name}.backward: delta",
            loss.backward,
            cache,
            np.ones(2),
        )
        refuses(TypeError, f"{name}.backward: delta", loss.backward, cache, "1")
        rows = type(loss)("none")
        refuses(
            ValueError,
            "delta",
            rows.backward,
            rows.forward(y, y)[1],
            y[:, :1],
        )
        refuses(TypeError, "delta", rows.backward, rows.forward(y, y)[1])


def test_class_indices_are_checked():
    loss, y = m.SoftmaxCrossEntropy(), np.zeros((3, 4))
    refuses(ValueError, "got 4 at row 1", loss.forward, y, np.array([0, 4, -1]))
    refuses(ValueError, "got -1 at row 2", loss.forward, y, np.array([0, 3, -1], np.int8))
    refuses(
        ValueError,
        "target",
        loss.forward,
        y,
        np.array([0, 1]),
    )
    for dtype in (float, bool):
        refuses(TypeError, "expected class indices of an integer dtype", loss.forward, y, np.zeros(3, dtype))
    assert loss.forward(y[:, :1], np.zeros(3, int))[0] == 0


def test_networks_refuse():
    S, L = m.Sequential, m.Linear
    refuses(ValueError, "Sequential: layers", S)
    refuses(TypeError, "Sequential: layer 1", S, L(2, 3), m.ReLU)
    message = "Sequential: layer 2"
    refuses(ValueError, message, S, L(4, 6), m.ReLU(), L(5, 3))
    refuses(ValueError, "Sequential: layer 1", S, S(m.Tanh(), L(4, 6)), S(m.ReLU(), L(5, 3)))
    network = S(L(2, 3), m.ReLU(), S(L(3, 1)))
    assert (network.n_in, network.n_out, network.preserves_shape) == (2, 1, False)
    params = network.init(np.random.default_rng(0))
    assert list(params) == ["0.W", "0.b", "2.0.W", "2.0.b"]
    x = np.ones((4, 2))
    for unknown in ("3.W", "W", "0.", "00.W"):
        refuses(ValueError, "Sequential: params", network.forward, params | {unknown: x}, x)
    refuses(TypeError, "Sequential.forward: params", network.forward, None, x)
    with pytest.raises(ValueError, match="params") as excinfo:
        network.forward({k: v for k, v in params.items() if k != "2.0.b"}, x)
    assert [note.split(",")[0] for note in excinfo.value.__notes__] == [
        "in layer 0", "in layer 2",
    ]  # fmt: skip
    _, cache = network.forward(params, x)
    with pytest.raises(ValueError, match="delta") as excinfo:
        network.backward(cache, np.ones((4, 2)))
    assert len(excinfo.value.__notes__) == 2
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
    refuses(ValueError, "deltas: delta", m.deltas, network, params, x, x)


def test_sgd_refuses():
    params, grads = {"w": np.array([1.0, 2])}, {"w": np.array([4.0, -8])}
    step = m.SGD(0.25).step
    refuses(ValueError, "SGD.step: grads", step, params, {}, {})
    refuses(ValueError, "SGD.step: grads['w']", step, params, {"w": np.ones(1)}, {})
    refuses(TypeError, "SGD.step: grads['w']", step, params, {"w": np.ones(2, np.float32)}, {})
    refuses(ValueError, "SGD.step: state", step, params, grads, {"w": 1})


IMAGES = np.zeros((2, 3, 5, 5))


@pytest.mark.parametrize("kind", [m.Conv2d, m.ConvTranspose2d])
def test_convolutions_refuse(kind):
    name = kind.__name__
    refuses(ValueError, f"{name}: kernel", kind, 3, 4, 0)
    refuses(ValueError, f"{name}: kernel", kind, 3, 4, (3, 0))
    for wrong in (2.0, True, (1, 2, 3), [1, 2], "3"):
        refuses(TypeError, f"{name}: kernel", kind, 3, 4, wrong)
    refuses(ValueError, f"{name}: stride", kind, 3, 4, 3, stride=(1, 0))
    refuses(ValueError, f"{name}: dilation", kind, 3, 4, 3, dilation=0)
    refuses(ValueError, f"{name}: padding", kind, 3, 4, 3, padding=-1)
    refuses(ValueError, f"{name}: groups", kind, 3, 4, 3, groups=2)
    refuses(ValueError, f"{name}: groups", kind, 3, 4, 3, groups=3)
    refuses(ValueError, f"{name}: groups", kind, 3, 4, 3, groups=0)
    refuses(TypeError, f"{name}: bias", kind, 3, 4, 3, bias=1)
    layer = kind(3, 4, (2, 3))
    params = layer.init(np.random.default_rng(0))
    _y, cache = layer.forward(params, IMAGES)
    f = layer.forward
    refuses(ValueError, f"{name}.forward: z", f, params,
            np.zeros((2, 3)))  # fmt: skip
    refuses(ValueError, "got (2, 4, 5, 5)", f, params, np.zeros((2, 4, 5, 5)))
    refuses(ValueError, "got (2, 3, 0, 5)", f, params, np.zeros((2, 3, 0, 5)))
    refuses(TypeError, f"{name}.forward: z", f, params, IMAGES.astype(int))
    _shape, turned = params["W"].shape, params["W"].swapaxes(2, 3)
    refuses(ValueError, f"{name}.forward: params['W']", f,
            params | {"W": turned}, IMAGES)  # fmt: skip
    refuses(ValueError, f"{name}.forward: params", f, {"W": params["W"]}, IMAGES)
    mixed = f"{name}.forward: params['W']"
    refuses(TypeError, mixed, f, params, IMAGES.astype(np.float32))
    refuses(ValueError, f"{name}.backward: delta", layer.backward, cache,
            IMAGES)  # fmt: skip


def test_convolution_refuses():
    same = m.Conv2d(3, 4, 4, padding="same", dilation=2)
    assert same.forward(same.init(np.random.default_rng(0)), IMAGES)[0].shape == (2, 4, 5, 5)
    refuses(ValueError, "Conv2d: padding", m.Conv2d, 3, 4, 3, (1, 2), "same")
    refuses(ValueError, "Conv2d: padding", m.Conv2d, 3, 4, 3,
            padding="full")  # fmt: skip
    layer = m.Conv2d(3, 4, 3, padding=(1, 0), dilation=4)
    refuses(ValueError, "Conv2d.forward: z",
            layer.forward, layer.init(np.random.default_rng(0)), IMAGES)  # fmt: skip


def test_transposed_convolution_refuses():
    kind = m.ConvTranspose2d
    refuses(ValueError, "output_padding",
            kind, 3, 4, 3, (2, 1), output_padding=1)  # fmt: skip
    kind(3, 4, 3, 2, output_padding=1)
    kind(3, 4, 3, dilation=2, output_padding=1)
    refuses(TypeError, "ConvTranspose2d: padding", kind, 3, 4, 3, padding="same")
    layer = kind(3, 4, 3, padding=(4, 0))
    refuses(ValueError, "ConvTranspose2d.forward: z",
            layer.forward, layer.init(np.random.default_rng(0)), IMAGES)  # fmt: skip


def test_pairs_are_numbers_for_both():
    assert m.Conv2d(3, 4, 3, 2, 1) == m.Conv2d(3, 4, (3, 3), (2, 2), (1, 1))
    assert m.Conv2d(3, 4, 3) != m.Conv2d(3, 4, 3, padding="valid")


@pytest.mark.parametrize("kind", [m.MaxPool2d, m.AvgPool2d])
def test_pooling_refuses(kind):
    name = kind.__name__
    refuses(ValueError, f"{name}: kernel", kind, (2, 0))
    refuses(TypeError, f"{name}: stride", kind, 2, "1")
    refuses(ValueError, f"{name}: padding", kind, (2, 3),
            padding=(1, 2))  # fmt: skip
    refuses(TypeError, f"{name}: ceil_mode", kind, 2, ceil_mode=1)
    layer = kind((2, 3))
    f = layer.forward
    assert layer == kind((2, 3), stride=(2, 3))
    refuses(ValueError, f"{name}.forward: z", f, {},
            IMAGES[0, 0])  # fmt: skip
    refuses(ValueError, f"{name}.forward: z", f,
            {}, IMAGES[..., :2].copy())  # fmt: skip
    refuses(ValueError, f"{name}.forward: params", f, {"W": IMAGES}, IMAGES)
    refuses(TypeError, f"{name}.forward: z", f, {}, IMAGES.astype(int))
    _, cache = f({}, IMAGES)
    refuses(ValueError, f"{name}.backward: delta", layer.backward, cache,
            IMAGES)  # fmt: skip
    refuses(TypeError, f"{name}.backward: delta", layer.backward, cache,
            np.zeros((2, 3, 2, 1), np.float16))  # fmt: skip


def test_pooling_refuses_images_between_its_taps():
    layer = m.MaxPool2d(2, padding=1, dilation=2)
    refuses(ValueError, "MaxPool2d.forward: z", layer.forward, {}, np.zeros((1, 1, 1, 5)))  # fmt: skip
    refuses(TypeError, "AvgPool2d: count_include_pad", m.AvgPool2d, 2, count_include_pad=None)


def test_flatten_refuses():
    f = m.Flatten().forward
    refuses(ValueError, "Flatten.forward: z", f, {}, np.array(1.0))
    refuses(ValueError, "Flatten.forward: params", f, {"W": IMAGES}, IMAGES)
    refuses(ValueError, "Flatten.backward: delta", m.Flatten().backward,
            f({}, IMAGES)[1], IMAGES)  # fmt: skip


@pytest.mark.parametrize("kind", [m.LayerNorm, m.RMSNorm])
def test_row_normalizations_refuse(kind):
    name = kind.__name__
    refuses(ValueError, f"{name}: shape", kind, (3, 0))
    refuses(TypeError, f"{name}: shape", kind, 2.0)
    refuses(ValueError, f"{name}: shape", kind, ())
    refuses(ValueError, f"{name}: eps", kind, 3, 0)
    refuses(ValueError, f"{name}: eps", kind, 3, float("inf"))
    refuses(TypeError, f"{name}: affine", kind, 3, affine=0)
    layer = kind((5, 5))
    params = layer.init(np.random.default_rng(0))
    f = layer.forward
    refuses(ValueError, f"{name}.forward: z", f, params, IMAGES[0, 0])
    refuses(ValueError, f"{name}.forward: z", f, params,
            np.zeros((2, 5, 4)))  # fmt: skip
    refuses(TypeError, f"{name}.forward: z", f, params, IMAGES.astype(int))
    refuses(ValueError, f"{name}.forward: params", f, {}, IMAGES)
    refuses(ValueError, f"{name}.forward: params['gamma']", f,
            params | {"gamma": np.ones(25)}, IMAGES)  # fmt: skip
    refuses(
        ValueError, f"{name}.forward: params", kind((5, 5), affine=False).forward, {"gamma": np.ones((5, 5))}, IMAGES
    )
    refuses(ValueError, f"{name}.backward: delta", layer.backward,
            f(params, IMAGES)[1], IMAGES[0, 0])  # fmt: skip


def test_batch_normalization_refuses():
    kind = m.BatchNorm
    refuses(ValueError, "BatchNorm: n", kind, 0)
    refuses(ValueError, "BatchNorm: eps", kind, 3, -1)
    refuses(ValueError, "BatchNorm: momentum", kind, 3, momentum=1.5)
    refuses(TypeError, "BatchNorm: momentum", kind, 3, momentum=None)
    refuses(TypeError, "BatchNorm: training", kind, 3, training="yes")
    layer = kind(3)
    params, state = layer.init(np.random.default_rng(0)), (np.zeros(3), np.ones(3))
    f = layer.forward
    refuses(TypeError, "BatchNorm.forward: z", f, params,
            IMAGES)  # fmt: skip
    refuses(ValueError, "BatchNorm.forward: z", f, params, (state[0], *state))
    refuses(ValueError, "BatchNorm.forward: running_var", f, params,
            (IMAGES, state[0], np.ones(2)))  # fmt: skip
    refuses(TypeError, "BatchNorm.forward: running_mean", f, params,
            (IMAGES, np.zeros(3, np.float32), state[1]))  # fmt: skip
    refuses(ValueError, "BatchNorm.forward: params", f, {"gamma": np.ones(3)}, (IMAGES, *state))
    _, cache = f(params, (IMAGES, *state))
    back = layer.backward
    refuses(TypeError, "BatchNorm.backward: delta", back,
            cache, IMAGES)  # fmt: skip
    refuses(ValueError, "BatchNorm.backward: delta", back, cache,
            (state[0], *state))  # fmt: skip
    refuses(ValueError, "BatchNorm.backward: delta of running_var", back, cache,
            (IMAGES, state[0], np.ones(1)))  # fmt: skip
    frozen = kind(3, training=False)
    assert (frozen.outputs, layer.outputs) == (("y",), ("y", "running_mean", "running_var"))
    refuses(TypeError, "BatchNorm.backward: delta", frozen.backward,
            frozen.forward(params, (IMAGES, *state))[1], (IMAGES, *state))  # fmt: skip


def test_recurrent_layers_refuse():
    refuses(ValueError, "LSTM: n_in", m.LSTM, 0, 1)
    refuses(TypeError, "GRU: n_hidden", m.GRU, 1, 1.5)
    refuses(ValueError, "LSTM: n_layers", m.LSTM, 1, 1, 0)
    refuses(TypeError, "LSTM: bidirectional", m.LSTM, 1, 1, bidirectional=2)
    refuses(ValueError, "Sequential: layer 1", m.Sequential, m.LSTM(2, 3, bidirectional=True), m.Linear(3, 1))
    layer = m.LSTM(2, 3, lengths=True)
    params, (z, h, c), _ = draw_inputs(layer, 4, 5)
    lengths = np.array([5, 0, 1, 2])
    f = layer.forward
    refuses(TypeError, "LSTM.forward: z", f, params, (z, h, c))
    refuses(
        ValueError,
        "LSTM.forward: z",
        f,
        params,
        (z.swapaxes(1, 2), h, c, lengths),
    )
    refuses(
        ValueError,
        "LSTM.forward: h",
        f,
        params,
        (z, h.swapaxes(0, 1), c, lengths),
    )
    refuses(
        TypeError,
        "LSTM.forward: c",
        f,
        params,
        (z, h, c.astype(np.float32), lengths),
    )
    refuses(
        ValueError,
        "LSTM.forward: lengths",
        f,
        params,
        (z, h, c, np.array([1, 6, 1, 1])),
    )
    refuses(ValueError, "LSTM.forward: lengths", f, params, (z, h, c, lengths[:3]))
    refuses(TypeError, "LSTM.forward: lengths", f, params, (z, h, c, lengths * 1.0))
    refuses(
        ValueError,
        "LSTM.forward: params",
        f,
        {n: p for n, p in params.items() if n != "0.b"},
        (z, h, c, lengths),
    )
    refuses(
        ValueError,
        "LSTM.forward: params['0.U']",
        f,
        params | {"0.U": params["0.W"]},
        (z, h, c, lengths),
    )
    (y, h, c), cache = f(params, (z, h, c, lengths))
    refuses(TypeError, "LSTM.backward: delta", layer.backward, cache, y)
    refuses(ValueError, "LSTM.backward: delta of h", layer.backward, cache, (y, y, c))
    refuses(ValueError, "LSTM.backward: delta of y", layer.backward, cache, (h, h, c))


def test_construction_refuses_activations():
    refuses(ValueError, "GELU: approximate", m.GELU, "erf")
    for beta in (0, -1.0):
        refuses(ValueError, "Softplus: beta", m.Softplus, beta)
    refuses(ValueError, "Softplus: beta", m.Softplus, float("inf"))
    refuses(TypeError, "Softplus: threshold", m.Softplus, 1.0, "20")
    refuses(ValueError, "PReLU: channels", m.PReLU, 0)
    refuses(ValueError, "PReLU: initial", m.PReLU, 1, float("nan"))
    for kind in (m.Softmax, m.LogSoftmax):
        for axis in (1.0, True, None):
            refuses(TypeError, f"{kind.__name__}: axis", kind, axis)


def test_axes_are_checked():
    z = np.zeros((2, 3, 0))
    for kind in (m.Softmax, m.LogSoftmax):
        name = kind.__name__
        for axis in (2, 3, -4):
            message = f"{name}.forward: z"
            refuses(ValueError, message, kind(axis).forward, {}, z)
        refuses(ValueError, f"{name}.jacobian: z", kind(0).jacobian, {}, np.ones((2, 3)))


def test_swiglu_refuses_an_odd_number_of_columns():
    f = m.SwiGLU().forward
    refuses(ValueError, "SwiGLU.forward: z", f, {}, np.ones((2, 3)))
    refuses(ValueError, "SwiGLU.forward: z", f, {}, np.array(1.0))
    refuses(TypeError, "SwiGLU.forward: z", f, {}, np.ones((2, 4), int))
    _, cache = f({}, np.ones((2, 4)))
    refuses(
        ValueError,
        "SwiGLU.backward: delta",
        m.SwiGLU().backward,
        cache,
        np.ones((2, 4)),
    )


def test_prelu_refuses_another_number_of_channels():
    layer, slope = m.PReLU(3), {"slope": np.ones(3)}
    refuses(ValueError, "PReLU.forward: z", layer.forward, slope, np.ones(3))
    refuses(ValueError, "PReLU.forward: z", layer.forward, slope, np.ones((3, 2)))
    refuses(
        ValueError,
        "params['slope']",
        layer.forward,
        {"slope": np.ones(1)},
        np.ones((2, 3)),
    )
    refuses(ValueError, "PReLU.forward: params", layer.forward, {}, np.ones((2, 3)))
    refuses(TypeError, "params['slope']", layer.forward, slope, np.ones((2, 3), np.float32))
    _, cache = layer.forward(slope, np.ones((2, 3)))
    refuses(ValueError, "PReLU.backward: delta", layer.backward, cache, np.ones(3))
    assert layer.init(np.random.default_rng(0), np.float32)["slope"].dtype == np.float32
    refuses(TypeError, "PReLU.init: dtype", layer.init, np.random.default_rng(0), int)
