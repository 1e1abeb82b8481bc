"""Subjects that store bfloat16: right ones with float32 inside agree, and errors of a few roundings are refused."""

import ml_dtypes
import numpy as np
import pytest
import torch

import oracles
from oracles import Verdict

BFLOAT16 = ml_dtypes.bfloat16


def drawn(*shape):
    return np.random.default_rng(shape).standard_normal(shape).astype(BFLOAT16)


def layer_norm(factor):
    def forward(x, gain):
        x, gain = x.astype(np.float32), gain.astype(np.float32)
        centred = x - x.mean(-1, keepdims=True)
        inverse = 1 / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(1e-5))
        return (centred * inverse * gain).astype(BFLOAT16), (centred * inverse, inverse, gain)

    def backward(cache, delta):
        h, inverse, gain = cache
        delta = delta.astype(np.float32)
        g = delta * gain
        dx = inverse * (g - g.mean(-1, keepdims=True) - h * (g * h).mean(-1, keepdims=True))
        return {"x": (np.float32(factor) * dx).astype(BFLOAT16), "gain": (delta * h).sum(0).astype(BFLOAT16)}

    return oracles.manual(forward, backward, name="layer norm in bfloat16")


def layer_norm_reference(x, gain):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], gain, eps=1e-5)


@pytest.mark.parametrize("shape", [(16, 64), (96, 512)])
def test_a_norm_agrees_and_five_percent_are_refused(shape):
    primals, against = {"x": drawn(*shape), "gain": drawn(shape[-1])}, [oracles.torch_autograd(layer_norm_reference)]
    right = oracles.check(layer_norm(1.0), primals, against)
    assert right.verdict is Verdict.AGREES
    assert max(f.detects_above for f in right.findings if f.quantity == "x") < 0.05
    for factor in (1.05, 1.2):
        with pytest.raises(oracles.Disagreement) as refused:
            oracles.check(layer_norm(factor), primals, against)
        assert refused.value.verdict is Verdict.WRONG


def matrix_product(accumulate):
    """Return x W, and its cotangents, each a sum of products in some precision."""

    def product(a, b):
        if accumulate is np.float32:
            return (a.astype(np.float32) @ b.astype(np.float32)).astype(BFLOAT16)
        total = np.zeros((a.shape[0], b.shape[1]), accumulate)
        for k in range(a.shape[1]):
            total = total + a[:, k : k + 1] * b[k]
        return total

    return oracles.manual(
        lambda x, W: ((x.astype(np.float32) @ W.astype(np.float32)).astype(BFLOAT16), (x, W)),
        lambda cache, delta: {"x": product(delta, cache[1].T), "W": product(cache[0].T, delta)},
        name="matrix product in bfloat16",
    )


def test_sums_in_float32_agree_and_sums_in_bfloat16_are_refused():
    primals, against = {"x": drawn(600, 3), "W": drawn(3, 2)}, [oracles.torch_autograd(torch.matmul)]
    assert oracles.check(matrix_product(np.float32), primals, against).verdict is Verdict.AGREES
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(matrix_product(BFLOAT16), primals, against)
    assert {f.quantity for f in refused.value.result.findings if f.refuses} == {"W"}
