"""Subjects that store bfloat16: right ones with float32 inside agree, and errors of a few roundings are refused."""

import ml_dtypes
import numpy as np
import pytest
import torch

import oracles
from oracles import Verdict
from oracles.decision.judge import judge

BFLOAT16 = ml_dtypes.bfloat16
ONCE = oracles.Numerics("float16")


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


def column_sums(sums):
    """Return b broadcast over the rows of x; the cotangent of b sums delta over the rows, by ``sums``."""
    return oracles.manual(lambda x, b: (x + b, None), lambda cache, d: {"x": d, "b": sums(d)}, name="bias")


def broadcast(x, b):
    return x + b


def in_half(delta):
    total = np.zeros_like(delta[0])
    for row in delta:
        total = total + row
    return total


def in_blocks_of_the_layout(delta):
    """Sum in float16, in another order where the rows are not contiguous."""
    if delta.flags.c_contiguous:
        return in_half(delta)
    return in_half(delta[: len(delta) // 2]) + in_half(delta[len(delta) // 2 :])


def equal_rows(layout):
    x, b = np.zeros((257, 3), np.float16), np.array([0.001, -0.17, 2.0**-23], np.float16)
    delta = np.tile(np.array([-2.568, -1.274, -3.062], np.float16), (257, 1))
    return {"x": x, "b": b}, delta if layout == "C" else np.asfortranarray(delta)


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("sums", [in_half, in_blocks_of_the_layout])
def test_sums_in_float16_are_unstable_whatever_number_is_subnormal_and_whatever_the_layout(sums, layout):
    """b[2] is subnormal, and has no part in the error; the order of the sum follows the layout of delta."""
    primals, delta = equal_rows(layout)
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(column_sums(sums), primals, [oracles.torch_autograd(broadcast)], delta)
    refused = [f for f in excinfo.value.result.findings if f.refuses and f.oracle == "torch"]
    assert {(f.quantity, f.verdict) for f in refused} == {("b", Verdict.UNSTABLE)}


def test_a_subnormal_number_that_is_flushed_is_wrong():
    """The sign of b, with what is subnormal flushed to zero: a finer dtype holds it as a normal number."""

    def forward(x, b):
        tiny = np.finfo(b.dtype).smallest_normal
        sign = np.where(np.abs(b) < tiny, 0, np.sign(b)).astype(b.dtype)
        return x * sign, sign

    def backward(sign, d):
        return {"x": d * sign, "b": np.zeros_like(sign)}

    x, b = np.ones(3, np.float16), np.array([1.0, -2.0, 2.0**-23], np.float16)
    subject, reference = oracles.manual(forward, backward), oracles.torch_autograd(lambda x, b: x * torch.sign(b))
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(subject, {"x": x, "b": b}, [reference])
    assert excinfo.value.verdict is Verdict.WRONG


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_a_delta_that_is_read_as_contiguous_is_wrong_in_low_precision(dtype):
    def misread(delta):
        plain = np.asarray(delta).T if not delta.flags.c_contiguous else delta
        return np.ascontiguousarray(plain).reshape(delta.shape).astype(np.float32).sum(0).astype(delta.dtype)

    rng = np.random.default_rng(0)
    primals = {"x": rng.standard_normal((6, 3)).astype(dtype), "b": rng.standard_normal(3).astype(dtype)}
    delta = np.asfortranarray(rng.standard_normal((6, 3)).astype(dtype))
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(column_sums(misread), primals, [oracles.torch_autograd(broadcast)], delta)
    assert excinfo.value.verdict is Verdict.WRONG
    assert "contiguous" in excinfo.value.evidence.fix


def rms(compute):
    """An RMS norm that squares in some dtype."""

    def forward(z):
        x = z.astype(compute)
        inverse = (1 / np.sqrt((x * x).mean(-1, keepdims=True) + compute(1e-5))).astype(np.float32)
        return (z.astype(np.float32) * inverse).astype(z.dtype), (z, inverse)

    def backward(cache, d):
        z, r = cache
        x, d = z.astype(np.float32), d.astype(np.float32)
        return {"z": (r * (d - x * r * r * (d * x).mean(-1, keepdims=True))).astype(z.dtype)}

    return oracles.manual(forward, backward, name="RMS norm")


def rms_reference(z):
    return torch.nn.functional.rms_norm(z, z.shape[-1:], eps=1e-5)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_square_that_overflows_float16_is_named():
    z = (1000 * np.random.default_rng(0).standard_normal((4, 64))).astype(np.float16)
    against = [oracles.torch_autograd(rms_reference)]
    assert oracles.check(rms(np.float32), {"z": z}, against).verdict is Verdict.AGREES
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(rms(np.float16), {"z": z}, against)
    assert excinfo.value.verdict in (Verdict.UNSTABLE, Verdict.WRONG)
    assert "overflows" in excinfo.value.diagnosis
    assert "float32" in excinfo.value.evidence.fix


def test_squares_that_float16_holds_are_not_named_an_overflow():
    z = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float16)
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(rms(np.float16), {"z": z}, [oracles.torch_autograd(rms_reference)], numerics=ONCE)
    assert "overflows" not in excinfo.value.diagnosis


def scaled(sums):
    """Return z · g, whose cotangent of g sums over the rows, by ``sums``."""
    return oracles.manual(lambda z, g: (z * g, (z, g)), lambda c, d: {"z": d * c[1], "g": sums(d * c[0])}, name="scale")


def along_the_layout(terms):
    """NumPy's sum over rows in float16: pairwise where the rows are contiguous, one after the other elsewhere."""
    return terms.sum(axis=0, keepdims=True)


def test_an_order_of_a_sum_in_16_bits_is_no_layout_that_is_misread():
    rng = np.random.default_rng(0)
    z = (np.abs(rng.standard_normal((2000, 2))) + 1).astype(np.float16)
    primals = {"z": z, "g": np.ones((1, 2), np.float16)}
    delta = np.asfortranarray((np.abs(rng.standard_normal((2000, 2))) / 50).astype(np.float16))
    against = [oracles.torch_autograd(lambda z, g: z * g)]
    for given in (primals, {**primals, "z": np.asfortranarray(z)}):
        result = judge(scaled(along_the_layout), given, delta, against)
        assert result.verdict is not Verdict.WRONG
        assert not any("contiguous" in f.evidence.reason or "converged" in f.evidence.reason for f in result.findings)

    def misread(terms):
        shape = terms.shape
        return along_the_layout(np.lib.stride_tricks.as_strided(terms, shape, np.empty(shape, terms.dtype).strides))

    # A product of arrays in Fortran order has that order, and is misread.
    result = judge(scaled(misread), {**primals, "z": np.asfortranarray(z)}, delta, against)
    assert result.verdict is Verdict.WRONG


def cross_entropy(factor):
    """Return the mean cross-entropy of float16 logits in float32, one entry of whose gradient has a factor."""

    def forward(z, t):
        e = np.exp(z.astype(np.float32) - z.max(-1, keepdims=True))
        p = e / e.sum(-1, keepdims=True)
        return np.asarray(-np.log(p[np.arange(len(t)), t]).mean(), z.dtype), (p, t, z.dtype)

    def backward(cache, delta):
        p, t, dtype = cache
        dz = p.copy()
        dz[np.arange(len(t)), t] -= 1
        dz *= delta / len(t)
        dz[1, 1] *= factor
        return {"z": dz.astype(dtype)}

    return oracles.manual(forward, backward)


@pytest.mark.parametrize("seed", range(5))
def test_the_cotangent_of_a_loss_in_float16_hides_no_entry_by_underflow(seed):
    rng = np.random.default_rng(seed)
    point = {"z": rng.standard_normal((6, 8)).astype(np.float16), "t": rng.integers(0, 8, 6)}
    reference = oracles.torch_autograd(lambda z, t: torch.nn.functional.cross_entropy(z, t))
    assert oracles.check(cross_entropy(1.0), point, [reference], seed=seed).verdict == "agrees"
    with pytest.raises(oracles.Disagreement):
        oracles.check(cross_entropy(1.05), point, [reference], seed=seed)
