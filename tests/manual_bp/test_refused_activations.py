"""What the newer activations refuse, and in what words."""

import re

import numpy as np
import pytest

import manual_bp as m


def refuses(error, message, call, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        call(*args, **kwargs)


def test_construction_refuses():
    refuses(ValueError, "GELU: approximate: expected 'none' or 'tanh', got 'erf'", m.GELU, "erf")
    for beta in (0, -1.0):
        refuses(ValueError, f"Softplus: beta: expected a positive number, got {beta}", m.Softplus, beta)
    refuses(ValueError, "Softplus: beta: expected a finite number, got inf", m.Softplus, float("inf"))
    refuses(TypeError, "Softplus: threshold: expected a real number, got '20'", m.Softplus, 1.0, "20")
    refuses(ValueError, "PReLU: channels: expected a positive integer, got 0", m.PReLU, 0)
    refuses(ValueError, "PReLU: initial: expected a finite number, got nan", m.PReLU, 1, float("nan"))
    for kind in (m.Softmax, m.LogSoftmax):
        for axis in (1.0, True, None):
            refuses(TypeError, f"{kind.__name__}: axis: expected an integer, got {axis}", kind, axis)


def test_axes_are_checked():
    z = np.zeros((2, 3, 0))
    for kind in (m.Softmax, m.LogSoftmax):
        name = kind.__name__
        for axis in (2, 3, -4):
            message = f"{name}.forward: z: expected an axis {axis} of extent 1 or more, got shape (2, 3, 0)"
            refuses(ValueError, message, kind(axis).forward, {}, z)
        refuses(ValueError, "rows have a jacobian along axis 1 or -1, not 0", kind(0).jacobian, {}, np.ones((2, 3)))


def test_swiglu_wants_halves():
    f = m.SwiGLU().forward
    refuses(
        ValueError, "SwiGLU.forward: z: expected a last axis of even length, got shape (2, 3)", f, {}, np.ones((2, 3))
    )
    refuses(
        ValueError, "SwiGLU.forward: z: expected an axis -1 of extent 1 or more, got shape ()", f, {}, np.array(1.0)
    )
    refuses(TypeError, "SwiGLU.forward: z: expected a floating dtype", f, {}, np.ones((2, 4), int))
    _, cache = f({}, np.ones((2, 4)))
    refuses(
        ValueError,
        "SwiGLU.backward: delta: expected shape (2, 2), got (2, 4)",
        m.SwiGLU().backward,
        cache,
        np.ones((2, 4)),
    )


def test_prelu_wants_its_channels():
    layer, slope = m.PReLU(3), {"slope": np.ones(3)}
    refuses(ValueError, "PReLU.forward: z: expected shape (N, 3, …), got (3,)", layer.forward, slope, np.ones(3))
    refuses(ValueError, "PReLU.forward: z: expected shape (N, 3, …), got (3, 2)", layer.forward, slope, np.ones((3, 2)))
    refuses(
        ValueError,
        "params['slope']: expected shape (3,), got (1,)",
        layer.forward,
        {"slope": np.ones(1)},
        np.ones((2, 3)),
    )
    refuses(ValueError, "PReLU.forward: params: 'slope' missing", layer.forward, {}, np.ones((2, 3)))
    refuses(TypeError, "params['slope']: expected dtype float32", layer.forward, slope, np.ones((2, 3), np.float32))
    _, cache = layer.forward(slope, np.ones((2, 3)))
    refuses(ValueError, "PReLU.backward: delta: expected shape (2, 3), got (3,)", layer.backward, cache, np.ones(3))
    assert layer.init(np.random.default_rng(0), np.float32)["slope"].dtype == np.float32
    refuses(
        TypeError, "PReLU.init: dtype: expected a floating dtype, got int64", layer.init, np.random.default_rng(0), int
    )
