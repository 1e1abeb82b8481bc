"""Operations in JAX's own idiom, each with a draw of primals and options of whatever shape: data for the tests."""

import jax.numpy as jnp
import numpy as np
from jax import lax, nn


def normal(rng, *shape):
    return rng.standard_normal(shape)


def size(rng, least, most):
    return int(rng.integers(least, most + 1))


def pair(rng, least, most):
    return size(rng, least, most), size(rng, least, most)


def mlp(**p):
    h = p["z"]
    for i in range(3):
        h = jnp.tanh(h @ p[f"{i}.W"] + p[f"{i}.b"])
    return h


def mlp_shapes(n, a, b, c, d):
    return {"z": (n, a), "0.W": (a, b), "0.b": (b,), "1.W": (b, c), "1.b": (c,), "2.W": (c, d), "2.b": (d,)}


def convolution(x, kernel, stride, padding, stretched, dilation, groups, batch_groups, layout):
    y = lax.conv_general_dilated(
        x,
        kernel,
        stride,
        padding,
        stretched,
        dilation,
        layout,
        feature_group_count=groups,
        batch_group_count=batch_groups,
    )
    return y * 2


def draw_convolution(rng):
    groups, batch_groups = ((1, 1), (2, 1), (1, 2))[size(rng, 0, 2)]
    kernel, dilation, stretched = pair(rng, 1, 3), pair(rng, 1, 2), pair(rng, 1, 3)
    n_in, n_out = groups * size(rng, 1, 2), groups * batch_groups * size(rng, 1, 2)
    extent = [max(d * (k - 1) + 1, 2) + size(rng, 0, 3) for k, d in zip(kernel, dilation, strict=True)]
    padding = (pair(rng, 0, 2), pair(rng, 0, 2)) if size(rng, 0, 3) else ((-1, 1), (0, -1))
    extent = [e - min(lo, 0) - min(hi, 0) for e, (lo, hi) in zip(extent, padding, strict=True)]
    layout, axes = ((("NCHW", "OIHW", "NCHW"), (0, 1, 2, 3)), (("NHWC", "HWIO", "NHWC"), (0, 2, 3, 1)))[size(rng, 0, 1)]
    x = normal(rng, batch_groups * size(rng, 1, 2), n_in, *extent)
    weights = normal(rng, n_out, n_in // groups, *kernel)
    if layout[0] == "NHWC":
        x, weights = x.transpose(axes), weights.transpose(2, 3, 1, 0)
    options = {"stride": pair(rng, 1, 3), "padding": padding, "stretched": stretched, "dilation": dilation}
    return {"x": x, "kernel": weights}, {**options, "groups": groups, "batch_groups": batch_groups, "layout": layout}


def transposed_convolution(x, kernel, stride, padding):
    return lax.conv_transpose(x, kernel, stride, padding, dimension_numbers=("NCHW", "IOHW", "NCHW"))


def draw_transposed_convolution(rng):
    kernel, n_in = pair(rng, 1, 3), size(rng, 1, 2)
    primals = {"x": normal(rng, 2, n_in, *pair(rng, 1, 4)), "kernel": normal(rng, n_in, size(rng, 1, 2), *kernel)}
    return primals, {"stride": pair(rng, 1, 3), "padding": tuple(pair(rng, k - 1, k) for k in kernel)}


def pooled(z, window, stride, padding, largest):
    start, combine = (-jnp.inf, lax.max) if largest else (jnp.inf, lax.min)
    return lax.reduce_window(z, start, combine, (1, *window), (1, *stride), ((0, 0), *padding))


def draw_pooled(rng):
    window = pair(rng, 1, 3)
    padding = tuple((size(rng, 0, k // 2), size(rng, 0, k // 2)) for k in window)
    extent = [k + size(rng, 0, 4) for k in window]
    z = np.round(normal(rng, 2, *extent))  # ties
    return {"z": z}, {"window": window, "stride": pair(rng, 1, 3), "padding": padding, "largest": bool(size(rng, 0, 1))}


def summed_windows(z, window, stride, padding, stretched, dilation):
    return lax.reduce_window(
        z, 0.0, lax.add, window, stride, padding, base_dilation=stretched, window_dilation=dilation
    )


def draw_summed_windows(rng):
    window, dilation = pair(rng, 1, 3), pair(rng, 1, 2)
    extent = [(k - 1) * d + 1 + size(rng, 0, 4) for k, d in zip(window, dilation, strict=True)]
    options = {"stride": pair(rng, 1, 3), "padding": (pair(rng, 0, 2), pair(rng, 0, 2))}
    return {"z": normal(rng, *extent)}, {
        "window": window,
        "stretched": pair(rng, 1, 2),
        "dilation": dilation,
        **options,
    }


def taken(z, i, j, mode):
    return jnp.take(z, i, axis=1, mode=mode), z[i, j], z.at[i].get(mode="fill", fill_value=7.0)


def draw_taken(rng):
    shape = pair(rng, 1, 3)
    i, j = (rng.integers(-3, 6, shape) for _ in range(2))
    mode = ("clip", "fill", "wrap")[size(rng, 0, 2)]
    return {"z": normal(rng, *pair(rng, 3, 5), 2), "i": i, "j": j}, {"mode": mode}


def gathered(z, i, sizes):
    numbers = lax.GatherDimensionNumbers(offset_dims=(0, 2), collapsed_slice_dims=(1,), start_index_map=(2, 1))
    return lax.gather(z, i, numbers, slice_sizes=(sizes[0], 1, sizes[1]), mode="clip")


def draw_gathered(rng):
    sizes = pair(rng, 1, 3)
    return {"z": normal(rng, 3, 4, 5), "i": rng.integers(-1, 6, (size(rng, 1, 4), 2))}, {"sizes": sizes}


def scattered(z, i, u):
    return z.at[i].add(u), z.at[:, i[0]].multiply(u[0, 0]), z.at[i[0], 0].set(u[0, 0]), z.at[i].min(u, mode="drop")


def draw_scattered(rng):
    n = size(rng, 2, 5)
    return {"z": normal(rng, n, n), "i": rng.integers(-2, n, 3), "u": normal(rng, 3, n)[:, :n]}, {}


def chosen_columns(z, i):
    return jnp.take_along_axis(z, i, axis=1), nn.one_hot(i, z.shape[1]).sum(1) * z


def draw_chosen_columns(rng):
    rows, n = size(rng, 1, 4), size(rng, 1, 5)
    return {"z": normal(rng, rows, n), "i": rng.integers(0, n, (rows, size(rng, 1, 3)))}, {}


def scanned(z, W, h, reverse):
    def step(state, x):
        h, c = state
        i, g = jnp.split(x @ W + h, 2, axis=-1)
        c = nn.sigmoid(i) * c + jnp.tanh(g)
        return (jnp.concatenate([c, g], -1), c), h

    (h, c), hs = lax.scan(step, (h, h[:, ::2]), z, reverse=reverse)
    return h, c, hs


def draw_scanned(rng):
    steps, rows, n, m = (size(rng, 1, 4) for _ in range(4))
    primals = {"z": normal(rng, steps, rows, n), "W": normal(rng, n, 2 * m), "h": normal(rng, rows, 2 * m)}
    return primals, {"reverse": bool(size(rng, 0, 1))}


def looped(z, n):
    return lax.fori_loop(0, n, lambda i, x: jnp.sin(x) * 2 + i, z)


def draw_looped(rng):
    return {"z": normal(rng, *pair(rng, 1, 3))}, {"n": size(rng, 1, 4)}


def halved(z):
    return lax.stop_gradient(lax.while_loop(lambda x: jnp.abs(x).max() > 0.1, lambda x: x / 2, z)) * z


def branched(z, which):
    return lax.switch(which, (jnp.sin, jnp.exp, lambda x: x * x.sum()), z)


def draw_branched(rng):
    return {"z": normal(rng, *pair(rng, 1, 3)), "which": rng.integers(-1, 4, ())}, {}


def cumulative(z, axis):
    return (
        jnp.cumsum(z, axis), jnp.cumprod(z, axis), lax.cummax(z, axis), lax.cummin(z, axis, reverse=True),
        lax.cumlogsumexp(z, axis),
    )  # fmt: skip


def draw_on_an_axis(rng):
    shape = tuple(size(rng, 1, 4) for _ in range(size(rng, 1, 3)))
    return {"z": normal(rng, *shape)}, {"axis": size(rng, 0, len(shape) - 1)}


def tiled(z):
    return jnp.tile(z, [2, *(z.shape[0] // 1 for _ in z.shape[1:])])


def ordered(z, axis):
    return (
        jnp.sort(z, axis),
        z.argmax(axis),
        z.argmin(axis),
        jnp.flip(z, axis),
        jnp.roll(z, 2, axis),
        jnp.median(z),
        tiled(z),
    )


def sorted_together(z, w):
    return lax.sort((jnp.round(z), w, z), num_keys=2, dimension=0), lax.top_k(z.T, 1)[0]


def draw_two(rng):
    shape = pair(rng, 1, 4)
    return {"z": normal(rng, *shape), "w": normal(rng, *shape)}, {}


def cut(z, w, at):
    start = (at, at * 0)
    return (
        lax.dynamic_slice(z, start, (1, z.shape[1])),
        lax.dynamic_update_slice(z, w[:1], start),
        lax.pad(z, jnp.asarray(0.5, z.dtype), ((1, -1, 2), (-1, 2, 0))),
        jnp.concatenate([z, w, z[:1]], 0)[::2],
    )


def draw_cut(rng):
    primals, _ = draw_two(rng)
    return {**primals, "at": rng.integers(-2, 6, ())}, {}


def special_functions(z):
    a = jnp.abs(z) + 0.2
    inside = jnp.tanh(z) * 0.9
    return (
        lax.erf(z), lax.erfc(z), lax.erf_inv(inside), lax.lgamma(a + 3), lax.stop_gradient(lax.digamma(a + 3)),
        lax.bessel_i0e(z), jnp.arctan2(z, a), jnp.hypot(z, a), jnp.sinc(z), jnp.logaddexp(z, a),
    )  # fmt: skip


def draw_one(rng):
    return {"z": normal(rng, *pair(rng, 1, 4))}, {}


def activated(z, approximate, slope):
    return nn.gelu(z, approximate=approximate), nn.softplus(z), nn.leaky_relu(z, slope), nn.silu(z), nn.elu(z, slope)


def draw_activated(rng):
    return draw_one(rng)[0], {"approximate": bool(size(rng, 0, 1)), "slope": (0.01, 0.0, 1.0, 0.3)[size(rng, 0, 3)]}


def normalized(z, axis):
    centred = z - z.mean(axis, keepdims=True)
    variance = (centred**2).mean(axis, keepdims=True)
    return (
        nn.softmax(z, axis), nn.log_softmax(z, axis), nn.logsumexp(z, axis), centred * lax.rsqrt(variance + 1e-5),
        z * lax.rsqrt((z**2).mean(axis, keepdims=True) + 1e-6) / z.shape[axis] ** 0.5, jnp.linalg.norm(z, axis=axis),
    )  # fmt: skip


def attention(q, k, v, mask, heads):
    q, k, v = (x.reshape(*x.shape[:2], heads, x.shape[2] // heads) for x in (q, k, v))
    scores = jnp.einsum("nthd,nshd->nhts", q, k) / q.shape[-1] ** 0.5
    visible = mask[:, None, None] & jnp.tril(jnp.ones(scores.shape[-2:], bool))
    some = visible.any(-1, keepdims=True)
    weights = jnp.where(some, nn.softmax(jnp.where(visible, scores, -jnp.inf), where=some), 0)
    y = jnp.einsum("nhts,nshd->nthd", weights, v)
    return y.reshape(*y.shape[:2], -1)


def draw_attention(rng):
    n, t, s, heads = (size(rng, 1, 3) for _ in range(4))
    width = heads * size(rng, 1, 2)
    primals = {"q": normal(rng, n, t, width), "k": normal(rng, n, s, width), "v": normal(rng, n, s, width)}
    return {**primals, "mask": rng.random((n, s)) < 0.7}, {"heads": heads}


def weighted_cross_entropy(z, labels, weights, smoothing):
    weights = jnp.array(weights, z.dtype)
    log_a, cache = nn.log_softmax(z), labels >= 0
    of = jnp.where(cache, labels, 0)
    w = weights[of] * cache
    picked = -jnp.take_along_axis(log_a, of[:, None], 1)[:, 0]
    smooth = -(log_a * weights).sum(1) * cache / z.shape[1]
    return ((1 - smoothing) * picked * w + smoothing * smooth).sum() / jnp.maximum(w.sum(), 1e-3)


def draw_weighted_cross_entropy(rng):
    rows, n = size(rng, 1, 4), size(rng, 1, 4)
    weights = tuple(float(w) for w in rng.random(n))
    return {"z": normal(rng, rows, n), "labels": rng.integers(-1, n, rows)}, {"weights": weights, "smoothing": 0.1}


OPERATIONS = [
    (convolution, draw_convolution), (transposed_convolution, draw_transposed_convolution), (pooled, draw_pooled),
    (summed_windows, draw_summed_windows), (taken, draw_taken), (gathered, draw_gathered), (scattered, draw_scattered),
    (chosen_columns, draw_chosen_columns), (scanned, draw_scanned), (looped, draw_looped), (halved, draw_one),
    (branched, draw_branched), (cumulative, draw_on_an_axis), (ordered, draw_on_an_axis), (sorted_together, draw_two),
    (cut, draw_cut), (special_functions, draw_one), (activated, draw_activated), (normalized, draw_on_an_axis),
    (attention, draw_attention), (weighted_cross_entropy, draw_weighted_cross_entropy),
]  # fmt: skip
