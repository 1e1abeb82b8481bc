"""What layers over images and statistics refuse, and in what words."""

import re

import numpy as np
import pytest

import manual_bp as m

IMAGES = np.zeros((2, 3, 5, 5))


def refuses(error, message, call, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        call(*args, **kwargs)


@pytest.mark.parametrize("kind", [m.Conv2d, m.ConvTranspose2d])
def test_convolutions_refuse(kind):
    name = kind.__name__
    whole = f"{name}: kernel: expected a positive integer, or a pair of them for rows and columns, got"
    refuses(ValueError, f"{whole} 0", kind, 3, 4, 0)
    refuses(ValueError, f"{whole} (3, 0)", kind, 3, 4, (3, 0))
    for wrong in (2.0, True, (1, 2, 3), [1, 2], "3"):
        refuses(TypeError, f"{whole} {wrong!r}", kind, 3, 4, wrong)
    refuses(ValueError, f"{name}: stride: expected a positive integer", kind, 3, 4, 3, stride=(1, 0))
    refuses(ValueError, f"{name}: dilation: expected a positive integer", kind, 3, 4, 3, dilation=0)
    refuses(ValueError, f"{name}: padding: expected an integer of 0 or more", kind, 3, 4, 3, padding=-1)
    refuses(ValueError, f"{name}: groups: 2 groups do not divide n_in, 3", kind, 3, 4, 3, groups=2)
    refuses(ValueError, f"{name}: groups: 3 groups do not divide n_out, 4", kind, 3, 4, 3, groups=3)
    refuses(ValueError, f"{name}: groups: expected a positive integer, got 0", kind, 3, 4, 3, groups=0)
    refuses(TypeError, f"{name}: bias: expected True or False, got 1", kind, 3, 4, 3, bias=1)
    layer = kind(3, 4, (2, 3))
    params = layer.init(np.random.default_rng(0))
    y, cache = layer.forward(params, IMAGES)
    f = layer.forward
    refuses(ValueError, f"{name}.forward: z: expected shape (N, 3, H, W), where only N may be 0, got (2, 3)", f, params,
            np.zeros((2, 3)))  # fmt: skip
    refuses(ValueError, "got (2, 4, 5, 5)", f, params, np.zeros((2, 4, 5, 5)))
    refuses(ValueError, "got (2, 3, 0, 5)", f, params, np.zeros((2, 3, 0, 5)))
    refuses(TypeError, f"{name}.forward: z: expected a floating dtype", f, params, IMAGES.astype(int))
    shape, turned = params["W"].shape, params["W"].swapaxes(2, 3)
    refuses(ValueError, f"{name}.forward: params['W']: expected shape {shape}, got {turned.shape}", f,
            params | {"W": turned}, IMAGES)  # fmt: skip
    refuses(ValueError, f"{name}.forward: params: 'b' missing", f, {"W": params["W"]}, IMAGES)
    mixed = f"{name}.forward: params['W']: expected dtype float32, that of z, got float64"
    refuses(TypeError, mixed, f, params, IMAGES.astype(np.float32))
    refuses(ValueError, f"{name}.backward: delta: expected shape {y.shape}, got (2, 3, 5, 5)", layer.backward, cache,
            IMAGES)  # fmt: skip


def test_convolution_refuses():
    same = m.Conv2d(3, 4, 4, padding="same", dilation=2)
    assert same.forward(same.init(np.random.default_rng(0)), IMAGES)[0].shape == (2, 4, 5, 5)
    refuses(ValueError, "Conv2d: padding: 'same' needs a stride of 1, got (1, 2)", m.Conv2d, 3, 4, 3, (1, 2), "same")
    refuses(ValueError, "Conv2d: padding: expected 'same', 'valid', a number or a pair, got 'full'", m.Conv2d, 3, 4, 3,
            padding="full")  # fmt: skip
    layer = m.Conv2d(3, 4, 3, padding=(1, 0), dilation=4)
    refuses(ValueError, "Conv2d.forward: z: the kernel spans (9, 9), more than images of (5, 5), padded to (7, 5)",
            layer.forward, layer.init(np.random.default_rng(0)), IMAGES)  # fmt: skip


def test_transposed_convolution_refuses():
    kind = m.ConvTranspose2d
    refuses(ValueError, "output_padding: expected less than stride (2, 1) or dilation (1, 1), got (1, 1)",
            kind, 3, 4, 3, (2, 1), output_padding=1)  # fmt: skip
    kind(3, 4, 3, 2, output_padding=1)
    kind(3, 4, 3, dilation=2, output_padding=1)
    refuses(TypeError, "ConvTranspose2d: padding: expected an integer of 0 or more", kind, 3, 4, 3, padding="same")
    layer = kind(3, 4, 3, padding=(4, 0))
    refuses(ValueError, "ConvTranspose2d.forward: z: padding (4, 0) leaves images of (-1, 7) from (5, 5)",
            layer.forward, layer.init(np.random.default_rng(0)), IMAGES)  # fmt: skip


def test_pairs_are_numbers_for_both():
    assert m.Conv2d(3, 4, 3, 2, 1) == m.Conv2d(3, 4, (3, 3), (2, 2), (1, 1))
    assert m.Conv2d(3, 4, 3) != m.Conv2d(3, 4, 3, padding="valid")


@pytest.mark.parametrize("kind", [m.MaxPool2d, m.AvgPool2d])
def test_pooling_refuses(kind):
    name = kind.__name__
    refuses(ValueError, f"{name}: kernel: expected a positive integer, or a pair of them", kind, (2, 0))
    refuses(TypeError, f"{name}: stride: expected a positive integer, or a pair of them", kind, 2, "1")
    refuses(ValueError, f"{name}: padding: expected at most half of the kernel, (2, 3), got (1, 2)", kind, (2, 3),
            padding=(1, 2))  # fmt: skip
    refuses(TypeError, f"{name}: ceil_mode: expected True or False, got 1", kind, 2, ceil_mode=1)
    layer = kind((2, 3))
    f = layer.forward
    assert layer == kind((2, 3), stride=(2, 3))
    refuses(ValueError, f"{name}.forward: z: expected shape (N, C, H, W), where only N may be 0, got (5, 5)", f, {},
            IMAGES[0, 0])  # fmt: skip
    refuses(ValueError, f"{name}.forward: z: the kernel spans (2, 3), more than images of (5, 2), padded to (5, 2)", f,
            {}, IMAGES[..., :2].copy())  # fmt: skip
    refuses(ValueError, f"{name}.forward: params: 'W' unknown", f, {"W": IMAGES}, IMAGES)
    refuses(TypeError, f"{name}.forward: z: expected a floating dtype", f, {}, IMAGES.astype(int))
    _, cache = f({}, IMAGES)
    refuses(ValueError, f"{name}.backward: delta: expected shape (2, 3, 2, 1), got (2, 3, 5, 5)", layer.backward, cache,
            IMAGES)  # fmt: skip
    refuses(TypeError, f"{name}.backward: delta: expected dtype float64, that of y", layer.backward, cache,
            np.zeros((2, 3, 2, 1), np.float16))  # fmt: skip


def test_pooling_refuses_images_between_its_taps():
    layer = m.MaxPool2d(2, padding=1, dilation=2)
    refuses(ValueError, "MaxPool2d.forward: z: images of (1, 5) fall between the taps of a window: kernel (2, 2), "
            "dilation (2, 2), padding (1, 1)", layer.forward, {}, np.zeros((1, 1, 1, 5)))  # fmt: skip
    refuses(TypeError, "AvgPool2d: count_include_pad: expected True or False", m.AvgPool2d, 2, count_include_pad=None)


def test_flatten_refuses():
    f = m.Flatten().forward
    refuses(ValueError, "Flatten.forward: z: expected rank 1 or more", f, {}, np.array(1.0))
    refuses(ValueError, "Flatten.forward: params: 'W' unknown", f, {"W": IMAGES}, IMAGES)
    refuses(ValueError, "Flatten.backward: delta: expected shape (2, 75), got (2, 3, 5, 5)", m.Flatten().backward,
            f({}, IMAGES)[1], IMAGES)  # fmt: skip


@pytest.mark.parametrize("kind", [m.LayerNorm, m.RMSNorm])
def test_row_normalizations_refuse(kind):
    name = kind.__name__
    refuses(ValueError, f"{name}: shape: expected a positive integer, got 0", kind, (3, 0))
    refuses(TypeError, f"{name}: shape: expected a positive integer, got 2.0", kind, 2.0)
    refuses(ValueError, f"{name}: shape: expected one axis or more, got ()", kind, ())
    refuses(ValueError, f"{name}: eps: expected a positive number, got 0", kind, 3, 0)
    refuses(ValueError, f"{name}: eps: expected a finite number, got inf", kind, 3, float("inf"))
    refuses(TypeError, f"{name}: affine: expected True or False, got 0", kind, 3, affine=0)
    layer = kind((5, 5))
    params = layer.init(np.random.default_rng(0))
    f = layer.forward
    refuses(ValueError, f"{name}.forward: z: expected shape (N, …, 5, 5), got (5, 5)", f, params, IMAGES[0, 0])
    refuses(ValueError, f"{name}.forward: z: expected shape (N, …, 5, 5), got (2, 5, 4)", f, params,
            np.zeros((2, 5, 4)))  # fmt: skip
    refuses(TypeError, f"{name}.forward: z: expected a floating dtype", f, params, IMAGES.astype(int))
    refuses(ValueError, "'gamma' missing", f, {}, IMAGES)
    refuses(ValueError, f"{name}.forward: params['gamma']: expected shape (5, 5), got (25,)", f,
            params | {"gamma": np.ones(25)}, IMAGES)  # fmt: skip
    refuses(ValueError, "'gamma' unknown", kind((5, 5), affine=False).forward, {"gamma": np.ones((5, 5))}, IMAGES)
    refuses(ValueError, f"{name}.backward: delta: expected shape (2, 3, 5, 5), got (5, 5)", layer.backward,
            f(params, IMAGES)[1], IMAGES[0, 0])  # fmt: skip


def test_batch_normalization_refuses():
    kind = m.BatchNorm
    refuses(ValueError, "BatchNorm: n: expected a positive integer, got 0", kind, 0)
    refuses(ValueError, "BatchNorm: eps: expected a positive number, got -1", kind, 3, -1)
    refuses(ValueError, "BatchNorm: momentum: expected 0 <= momentum <= 1, got 1.5", kind, 3, momentum=1.5)
    refuses(TypeError, "BatchNorm: momentum: expected a real number, got None", kind, 3, momentum=None)
    refuses(TypeError, "BatchNorm: training: expected True or False, got 'yes'", kind, 3, training="yes")
    layer = kind(3)
    params, state = layer.init(np.random.default_rng(0)), (np.zeros(3), np.ones(3))
    f = layer.forward
    refuses(TypeError, "BatchNorm.forward: z: expected a tuple (z, running_mean, running_var), got ndarray", f, params,
            IMAGES)  # fmt: skip
    refuses(ValueError, "BatchNorm.forward: z: expected shape (N, 3, …), got (3,)", f, params, (state[0], *state))
    refuses(ValueError, "BatchNorm.forward: running_var: expected shape (3,), got (2,)", f, params,
            (IMAGES, state[0], np.ones(2)))  # fmt: skip
    refuses(TypeError, "BatchNorm.forward: running_mean: expected dtype float64, that of z, got float32", f, params,
            (IMAGES, np.zeros(3, np.float32), state[1]))  # fmt: skip
    refuses(ValueError, "BatchNorm.forward: params: 'beta' missing", f, {"gamma": np.ones(3)}, (IMAGES, *state))
    _, cache = f(params, (IMAGES, *state))
    back = layer.backward
    refuses(TypeError, "BatchNorm.backward: delta: expected a tuple (y, running_mean, running_var), got ndarray", back,
            cache, IMAGES)  # fmt: skip
    refuses(ValueError, "BatchNorm.backward: delta: expected shape (2, 3, 5, 5), got (3,)", back, cache,
            (state[0], *state))  # fmt: skip
    refuses(ValueError, "BatchNorm.backward: delta of running_var: expected shape (3,), got (1,)", back, cache,
            (IMAGES, state[0], np.ones(1)))  # fmt: skip
    frozen = kind(3, training=False)
    assert (frozen.outputs, layer.outputs) == (("y",), ("y", "running_mean", "running_var"))
    refuses(TypeError, "BatchNorm.backward: delta: expected one array, y, got a tuple of 3", frozen.backward,
            frozen.forward(params, (IMAGES, *state))[1], (IMAGES, *state))  # fmt: skip
