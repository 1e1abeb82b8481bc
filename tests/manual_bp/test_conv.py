"""Convolution from its definition, element by element, in exact fractions; and the two as adjoints of each other."""

from dataclasses import replace

import numpy as np
from exact import exactly, filled, fractions, seeds
from hypothesis import assume, given
from hypothesis import strategies as st

import manual_bp as m
from oracles.references.conv import conv2d, conv_transpose2d


def meetings(layer, before, count, extent):
    """Every (p, q, i, j, u, v): window (p, q) holds at tap (i, j) the entry (u, v) of the image."""
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel, layer.stride, layer.dilation
    for p, q, i, j in np.ndindex(*count, kh, kw):
        u, v = sh * p + dh * i - before[0], sw * q + dw * j - before[1]
        if 0 <= u < extent[0] and 0 <= v < extent[1]:
            yield p, q, i, j, u, v


def before(layer):
    if layer.padding == "same":
        return [d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel, strict=True)]
    return (0, 0) if layer.padding == "valid" else layer.padding


def same(ours, element_forms):
    for one, other in zip(ours, element_forms, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def check_element_forms(case, seed, meetings_of, tap):
    """Hold y, ∂L/∂W and ∂L/∂z against sums over all meetings, of which ``tap`` adds one; and ∂L/∂b by (29)."""
    layer, params, rng = filled(case, seed)
    z, W = params.pop("z"), params["W"]
    y, cache = layer.forward(params, z)
    delta = fractions(rng, *y.shape)
    dz, grads = layer.backward(cache, delta)
    Y, K, Z = sums = [np.zeros_like(a) for a in (y, W, z)]
    if layer.bias:
        Y += params["b"][:, None, None]
    for meeting in meetings_of(layer, z, y):
        tap(layer, meeting, (z, W, delta), sums)
    same((y, grads.pop("W"), dz), (Y, K, Z))
    for b in grads.values():
        assert b.tolist() == [sum(delta[:, o].ravel()) for o in range(layer.n_out)]  # (29)


@exactly
@given(case=st.composite(conv2d)(), seed=seeds)
def test_convolution_is_its_element_form(case, seed):
    def tap(layer, meeting, arrays, sums):
        (p, q, i, j, u, v), (z, W, delta), (Y, K, Z) = meeting, arrays, sums
        share_in, share_out = layer.n_in // layer.groups, layer.n_out // layer.groups
        for n, o, c in np.ndindex(len(z), layer.n_out, share_in):
            C = o // share_out * share_in + c
            Y[n, o, p, q] += W[o, c, i, j] * z[n, C, u, v]  # (27)
            K[o, c, i, j] += delta[n, o, p, q] * z[n, C, u, v]  # (28)
            Z[n, C, u, v] += delta[n, o, p, q] * W[o, c, i, j]  # (30)

    check_element_forms(case, seed, lambda layer, z, y: meetings(layer, before(layer), y.shape[2:], z.shape[2:]), tap)


@exactly
@given(case=st.composite(conv_transpose2d)(), seed=seeds)
def test_transposed_convolution_is_its_element_form(case, seed):
    def tap(layer, meeting, arrays, sums):
        (p, q, i, j, u, v), (z, W, delta), (Y, K, Z) = meeting, arrays, sums
        share_in, share_out = layer.n_in // layer.groups, layer.n_out // layer.groups
        for n, c, o in np.ndindex(len(z), layer.n_in, share_out):
            O = c // share_in * share_out + o
            Y[n, O, u, v] += z[n, c, p, q] * W[c, o, i, j]  # (31)
            K[c, o, i, j] += z[n, c, p, q] * delta[n, O, u, v]  # (32)
            Z[n, c, p, q] += W[c, o, i, j] * delta[n, O, u, v]  # (33)

    check_element_forms(case, seed, lambda layer, z, y: meetings(layer, layer.padding, z.shape[2:], y.shape[2:]), tap)


@exactly
@given(case=st.composite(conv_transpose2d)(), seed=seeds)
def test_convolution_and_transposed_convolution_are_adjoint(case, seed):
    """⟨conv x, z⟩ = ⟨x, transposed z⟩, and each one's backward is the other's forward."""
    layer, params, rng = filled(case, seed)
    assume(all(more < s for more, s in zip(layer.output_padding, layer.stride, strict=True)))
    layer, z, W = replace(layer, bias=False), params["z"], {"W": params["W"]}
    conv = m.Conv2d(
        layer.n_out, layer.n_in, layer.kernel, layer.stride, layer.padding, layer.dilation, layer.groups, bias=False
    )
    spread, cache = layer.forward(W, z)
    x = fractions(rng, *spread.shape)
    correlated, conv_cache = conv.forward(W, x)
    assert (correlated * z).sum() == (x * spread).sum()
    same((conv.backward(conv_cache, z)[0], layer.backward(cache, x)[0]), (spread, correlated))
    np.testing.assert_array_equal(conv.backward(conv_cache, z)[1]["W"], layer.backward(cache, x)[1]["W"])


def test_a_kernel_of_one_is_a_linear_layer_over_the_channels():
    rng = np.random.default_rng(0)
    z, W, b = fractions(rng, 2, 3, 2, 2), fractions(rng, 4, 3, 1, 1), fractions(rng, 4)
    y, _ = m.Conv2d(3, 4, 1).forward({"W": W, "b": b}, z)
    rows, _ = m.Linear(3, 4).forward({"W": W[..., 0, 0].T.copy(), "b": b[None]}, z.swapaxes(1, 3).reshape(8, 3))
    np.testing.assert_array_equal(y.swapaxes(1, 3).reshape(8, 4), rows)


def test_a_kernel_as_large_as_the_image_is_a_linear_layer():
    rng = np.random.default_rng(0)
    z, W = fractions(rng, 2, 3, 2, 4), fractions(rng, 5, 3, 2, 4)
    y, _ = m.Conv2d(3, 5, (2, 4), bias=False).forward({"W": W}, z)
    rows, _ = m.Linear(24, 5, bias=False).forward({"W": W.reshape(5, 24).T}, z.reshape(2, 24))
    np.testing.assert_array_equal(y[..., 0, 0], rows)


def test_columns_stay_within_a_chunk_and_chunks_do_not_show():
    """Images are taken together while their columns are small: the many give what each alone gives."""
    rng = np.random.default_rng(0)
    layer = m.Conv2d(2, 3, 3, padding=1)
    params = {"W": rng.integers(-3, 4, (3, 2, 3, 3)).astype(float), "b": rng.integers(-3, 4, 3).astype(float)}
    z = rng.integers(-3, 4, (9, 2, 32, 40)).astype(float)  # 184 kB of columns each: two to a chunk
    y, cache = layer.forward(params, z)
    delta = rng.integers(-3, 4, y.shape).astype(float)
    dz, grads = layer.backward(cache, delta)
    each = [layer.forward(params, z[n : n + 1]) for n in range(9)]
    back = [layer.backward(c, delta[n : n + 1]) for n, (_, c) in enumerate(each)]
    same((y, dz), (np.concatenate([one for one, _ in each]), np.concatenate([one for one, _ in back])))
    same(grads.values(), (sum(g[name] for _, g in back) for name in grads))


def test_initial_weights_keep_the_scale():
    rng = np.random.default_rng(0)
    for layer in (m.Conv2d(16, 64, (3, 5), groups=2), m.ConvTranspose2d(32, 64, 4, stride=2, groups=2)):
        params = layer.init(rng, np.float32)
        W = params["W"].astype(float)
        terms = 8 * 15 if isinstance(layer, m.Conv2d) else 16 * 4
        assert params["W"].dtype == params["b"].dtype == np.float32
        assert not params["b"].any()
        assert abs(np.mean(W**2) * terms / 2 - 1) < 6 * (2 / W.size) ** 0.5
