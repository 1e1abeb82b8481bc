"""Attention against its definition, entry by entry; masks, fully masked rows, blocks, saturation, errors."""

import re
from itertools import product

import numpy as np
import pytest

import manual_bp as m
from manual_bp import attention

MHA = m.MultiHeadAttention
# Sums and products of a few dozen numbers below 4, each rounded a few hundred times at most.
ROUNDINGS = 2.0**-53 * 4 * 256


def by_definition(layer, arguments, params):
    """Return (67)–(69), computed entry by entry, in the number type of the arguments."""
    z = arguments["z"]
    k, v = arguments.get("source", arguments.get("k", z)), arguments.get("source", arguments.get("v", z))
    d = layer.n_model // layer.n_heads
    full = len(z), layer.n_heads, z.shape[1], k.shape[1]
    mask = np.broadcast_to(arguments.get("mask", True), full)
    bias = np.broadcast_to(arguments.get("score_bias", 0.0), full)
    none = np.zeros((1, layer.n_model))
    Q, K, V = (x @ params[f"W_{n}"] + params.get(f"b_{n}", none) for n, x in zip("qkv", (z, k, v), strict=True))
    O = np.zeros(z.shape, Q.dtype)
    for n, h, t in product(*map(range, full[:3])):
        columns = slice(h * d, (h + 1) * d)
        keys = [s for s in range(full[3]) if mask[n, h, t, s] and (not layer.causal or s <= t)]
        e = [np.exp(sum(Q[n, t, columns] * K[n, s, columns]) / d**0.5 + bias[n, h, t, s]) for s in keys]
        for s, weight in zip(keys, e, strict=True):
            O[n, t, columns] += weight / sum(e) * V[n, s, columns]
    return O @ params["W_o"] + params.get("b_o", none)


def draw_inputs(layer, n_rows=2, steps=3, answers=4, shared=(), dtype=np.float64, seed=0):
    """Return inputs by name, parameters, and the generator that drew them."""
    rng = np.random.default_rng(seed)
    answers = answers if layer.sources else steps
    full = n_rows, layer.n_heads, steps, answers
    extents = tuple(1 if axis in shared else extent for axis, extent in enumerate(full))
    arguments = {"z": rng.standard_normal((n_rows, steps, layer.n_model)).astype(dtype)}
    for name, n in zip(layer.inputs[1:], layer.sources, strict=False):
        arguments[name] = rng.standard_normal((n_rows, answers, n)).astype(dtype)
    if layer.masked:
        arguments["mask"] = rng.random(extents) < 0.6
    if layer.score_bias:
        arguments["score_bias"] = rng.standard_normal(extents).astype(dtype)
    params = {n: rng.standard_normal(p.shape).astype(dtype) / 2 for n, p in layer.init(rng).items()}
    return arguments, {n: p.astype(dtype) for n, p in params.items()}, rng


def run(layer, arguments, params, delta=None):
    """Return y, the inputs' cotangents by name, and the parameters' gradients."""
    y, cache = layer.forward(params, m.protocol.one_or_tuple(tuple(arguments.values())))
    dz, grads = layer.backward(cache, np.ones_like(y) if delta is None else delta)
    return y, dict(zip(layer.inputs, m.protocol.as_tuple(dz), strict=True)), grads


@pytest.mark.parametrize(
    ("layer", "shared"),
    [
        (MHA(4, 2), ()),
        (MHA(3, 1, (2,), causal=True, bias=False), ()),
        (MHA(4, 2, (3, 5), masked=True, score_bias=True), ()),
        (MHA(2, 2, masked=True, causal=True, score_bias=True), (0, 1)),
        (MHA(2, 2, (2,), masked=True, score_bias=True), (1, 2)),
        (MHA(2, 1, (2,), masked=True, score_bias=True), (0, 1, 2, 3)),
    ],
    ids=str,
)
def test_attention_matches_its_definition(layer, shared):
    """The definition in complex numbers gives the derivative too: f(x + ih) = f(x) + ih f'(x), without a difference."""
    arguments, params, rng = draw_inputs(layer, shared=shared)
    delta = rng.standard_normal(arguments["z"].shape)
    y, dz, grads = run(layer, arguments, params, delta)
    assert np.abs(y - by_definition(layer, arguments, params)).max() <= ROUNDINGS
    assert dz.pop("mask", None) is None
    for name, gradient in (dz | grads).items():
        assert gradient.shape == (arguments | params)[name].shape
        for index in np.ndindex(gradient.shape):
            at = {n: a.astype(complex) if a.dtype.kind == "f" else a for n, a in (arguments | params).items()}
            at[name][index] += 1e-200j
            result = by_definition(layer, {n: at[n] for n in arguments}, {n: at[n] for n in params})
            slope = float((delta * result.imag).sum()) * 1e200
            assert abs(gradient[index] - slope) <= ROUNDINGS, (name, index)


def test_fully_masked_rows_give_the_output_bias_and_zero_cotangents():
    layer = MHA(4, 2, masked=True)
    arguments, params, _ = draw_inputs(layer)
    arguments["mask"][:] = True
    arguments["mask"][0, :, 1] = False  # one step of one row, in both heads
    y, dz, grads = run(layer, arguments, params)
    assert np.array_equal(y[0, 1], params["b_o"][0])
    arguments["mask"][:] = False
    y, dz, grads = run(layer, arguments, params)
    assert np.array_equal(y, np.broadcast_to(params["b_o"], y.shape))
    assert not dz["z"].any()
    assert not any(g.any() for n, g in grads.items() if n != "b_o")


def test_a_bias_of_minus_infinity_masks():
    layer, plain = MHA(4, 2, masked=True), MHA(4, 2, score_bias=True)
    arguments, params, _ = draw_inputs(layer)
    arguments["mask"][1] = False
    bias = np.where(arguments["mask"], 0, -np.inf)
    y, dz, grads = run(layer, arguments, params)
    other, dz_other, grads_other = run(plain, {"z": arguments["z"], "score_bias": bias}, params)
    assert np.array_equal(y, other)
    assert np.array_equal(dz["z"], dz_other["z"])
    assert all(np.array_equal(grads[n], grads_other[n]) for n in grads)
    assert not dz_other["score_bias"][bias < 0].any()


def test_self_attention_is_cross_attention_with_z_as_source():
    arguments, params, rng = draw_inputs(MHA(4, 2))
    z, delta = arguments["z"], rng.standard_normal(arguments["z"].shape)
    y, dz, grads = run(MHA(4, 2), arguments, params, delta)
    for sources, names in (((4,), ("z", "source")), ((4, 4), ("z", "k", "v"))):
        other, apart, grads_apart = run(MHA(4, 2, sources), dict.fromkeys(names, z), params, delta)
        assert np.array_equal(y, other)
        assert np.abs(sum(apart.values()) - dz["z"]).max() <= ROUNDINGS
        assert all(np.array_equal(grads[n], grads_apart[n]) for n in grads)


@pytest.mark.parametrize("shared", [(), (0, 1), (0,)])
def test_block_size_does_not_change_results(shared, monkeypatch):
    layer = MHA(6, 3, masked=True, causal=True, score_bias=True)
    arguments, params, _ = draw_inputs(layer, n_rows=4, steps=5, shared=shared)
    whole = run(layer, arguments, params)
    for block in (1, 60, 100):
        monkeypatch.setattr(attention, "BLOCK", block)
        y, dz, grads = run(layer, arguments, params)
        # Products of the same numbers; BLAS may add them in another order for another number of them.
        assert np.abs(y - whole[0]).max() <= ROUNDINGS
        assert np.abs(dz["z"] - whole[1]["z"]).max() <= ROUNDINGS
        assert np.abs(dz["score_bias"] - whole[1]["score_bias"]).max() <= ROUNDINGS
        assert all(np.abs(grads[n] - whole[2][n]).max() <= ROUNDINGS for n in grads)


def test_saturated_attention_keeps_its_digits():
    """P_m rounds to 1 in float32, and dP_m − Σ P dP to 0; what the other key takes is e^{−40} and stays."""
    q, k = np.array([[[20.0]]], np.float32), np.array([[[1.0], [-1.0]]], np.float32)
    v, delta = np.array([[[0.75], [0.5]]], np.float32), np.array([[[3.0]]], np.float32)
    actual = {}
    for dtype in (np.float32, np.longdouble):
        arrays = (a.astype(dtype) for a in (q, k, v))
        actual[dtype] = attention.attend_backward(attention.attend(*arrays, None, None)[1], delta.astype(dtype))
    for one, other in zip(actual[np.float32][:3], actual[np.longdouble][:3], strict=True):
        assert np.all(other != 0)
        assert np.all(
            np.abs(one / other - 1) <= 2.0**-24 * 64
        )  # exp of −40 is off by its argument's roundoff, and a few


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble])
@pytest.mark.parametrize(("n_rows", "steps", "answers"), [(0, 2, 3), (2, 0, 3), (2, 3, 0), (1, 1, 1)])
def test_no_rows_no_steps_no_answers(n_rows, steps, answers, dtype):
    layer = MHA(4, 2, (3,), masked=True, score_bias=True)
    arguments, params, _ = draw_inputs(layer, n_rows, steps, answers, dtype=dtype)
    y, dz, grads = run(layer, arguments, params)
    assert dz.pop("mask") is None
    assert y.shape == arguments["z"].shape
    assert {n: d.shape for n, d in dz.items()} == {n: arguments[n].shape for n in dz}
    assert {a.dtype for a in (y, *dz.values(), *grads.values())} == {np.dtype(dtype)}
    if answers == 0:
        assert np.array_equal(y, np.broadcast_to(params["b_o"], y.shape))


def test_transformer_block_nests_in_a_network():
    block = m.Sequential(
        m.Residual(MHA(4, 2, masked=True, causal=True)),
        m.Residual(m.Sequential(m.Dropout(0.5), m.Tanh())),
        MHA(4, 1, (3,)),
    )
    network = m.Sequential(m.Embedding(7, 4, padding_idx=0), block)
    assert network.inputs == ("z", "1.0.mask", "1.1.0.rng", "1.2.source")
    rng = np.random.default_rng(0)
    params, z = network.init(rng), rng.integers(0, 7, (2, 5))
    mask, source = (z != 0)[:, None, None], rng.standard_normal((2, 3, 3))
    y, cache = network.forward(params, (z, mask, np.random.default_rng(1), source))
    dz, grads = network.backward(cache, rng.standard_normal(y.shape))
    assert [None if d is None else d.shape for d in dz] == [None, None, None, (2, 3, 3)]
    assert grads.keys() == params.keys()
    assert not grads["0.W"][0].any()
    assert grads["0.W"].any()


def refuses(error, message, call, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        call(*args, **kwargs)


def test_attention_refuses():
    refuses(ValueError, "MultiHeadAttention: n_heads", MHA, 4, 3)
    refuses(TypeError, "MultiHeadAttention: sources", MHA, 4, 2, 4)
    refuses(TypeError, "sources", MHA, 4, 2, (1, 2, 3))
    refuses(ValueError, "MultiHeadAttention: sources", MHA, 4, 2, (0,))
    refuses(TypeError, "MultiHeadAttention: causal", MHA, 4, 2, causal=None)
    layer = MHA(4, 2, (3, 2), masked=True, score_bias=True)
    arguments, params, _ = draw_inputs(layer)

    def but(**wrong):
        return tuple((arguments | wrong).values())

    f = layer.forward
    at, z = "MultiHeadAttention.forward: ", arguments["z"]
    refuses(TypeError, at + "z", f, params, (z, z))
    refuses(ValueError, at + "z", f, params, but(z=z[..., :3]))
    refuses(ValueError, at + "k", f, params, but(k=z))
    refuses(ValueError, at + "v", f, params, but(v=arguments["v"][:, 1:]))
    refuses(ValueError, at + "k", f, params, but(k=arguments["k"][1:]))
    refuses(TypeError, at + "v", f, params, but(v=arguments["v"].astype(np.float32)))
    message = "mask"
    refuses(ValueError, at + message, f, params, but(mask=arguments["mask"][:, 0]))
    refuses(TypeError, at + "mask", f, params, but(mask=arguments["mask"].astype(np.int64)))
    message = "score_bias"
    refuses(ValueError, at + message, f, params, but(score_bias=arguments["score_bias"].swapaxes(2, 3)))
    refuses(TypeError, at + "score_bias", f, params, but(score_bias=arguments["score_bias"] > 0))
    refuses(ValueError, at + "params", f, params | {"b_k": params["b_q"]}, but())
    refuses(ValueError, at + "params['W_k']", f, params | {"W_k": params["W_v"]}, but())
    y, cache = f(params, but())
    refuses(ValueError, "MultiHeadAttention.backward: delta", layer.backward, cache, y[0])
