"""Declared numerics: what they say of a tolerance, in perturbation and in ball arithmetic, and what they refuse."""

import ml_dtypes
import numpy as np
import pytest
import torch

import oracles
from oracles import Numerics, Verdict
from oracles.exact.ball_arithmetic import certified_enclosures
from oracles.numerics import unit_roundoff
from oracles.tolerance import tolerance_at

BFLOAT16 = ml_dtypes.bfloat16
PRODUCT = oracles.torch_autograd(torch.matmul)


def drawn(*shape, dtype=BFLOAT16):
    return np.random.default_rng(shape).standard_normal(shape).astype(dtype)


def verdict_of(subject, primals, against, **options):
    try:
        return oracles.check(subject, primals, against, **options).verdict
    except oracles.Disagreement as refused:
        return refused.verdict


def diagnosis_of(subject, primals, against, **options):
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(subject, primals, against, **options)
    return refused.value.diagnosis


@pytest.mark.parametrize(
    ("numerics", "inner", "accumulate", "multiply"),
    [
        (Numerics("bfloat16"), "float32", "float32", "float32"),
        (Numerics.eager("bfloat16"), "bfloat16", "float32", "bfloat16"),
        (Numerics("float16", accumulate="float16"), "float32", "float16", "float32"),
        (Numerics("float32", multiply="tf32"), "float32", "float32", "tf32"),
        (Numerics("float64"), "float64", "float64", "float64"),
        (Numerics("float8_e4m3fn"), "float32", "float32", "float32"),
    ],
)
def test_defaults_and_code(numerics, inner, accumulate, multiply):
    assert (numerics.inner, numerics.accumulate, numerics.multiply) == (inner, accumulate, multiply)
    assert eval(repr(numerics)) == numerics


@pytest.mark.parametrize("text", ["bfloat16", "bfloat16/float32/tf32/each", "float32//tf32", "float16/once"])
def test_a_command_line_names_them(text):
    numerics = Numerics.parse(text)
    assert numerics.store == text.split("/")[0]
    assert numerics.round == ("each" if text.endswith("each") else "once")
    assert numerics.multiply == ("tf32" if "tf32" in text else "float32")


@pytest.mark.parametrize("arguments", [("int8",), ("",), ("float32", "tf32"), ("bfloat16", "", "", "twice")])
def test_invalid_numerics_are_refused_at_once(arguments):
    with pytest.raises(oracles.InvalidInput, match="Numerics: "):
        Numerics(*arguments)
    with pytest.raises(oracles.InvalidInput):
        Numerics.parse("a/b/c/d/e")


def test_check_takes_one_of_precision_and_numerics():
    subject = oracles.manual(lambda z: (z, None), lambda c, d: {"z": d})
    for options in ({"numerics": Numerics("float32"), "precision": "float32"}, {"numerics": "float32"}):
        with pytest.raises(oracles.InvalidInput, match="check: "):
            oracles.check(subject, {"z": np.ones(3)}, [oracles.torch_autograd(lambda z: z)], **options)


@pytest.mark.parametrize("store", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("n", [8, 4096])
def test_one_rounding_is_the_tolerance_of_a_long_product(store, n):
    """The median tolerance is below 1.5 units in the last place, which is u to 2 u of a number."""
    primals = {"x": drawn(3, n, dtype=store), "W": drawn(n, 2, dtype=store)}
    delta, dtype = np.ones((3, 2)), np.dtype(store)
    wide = {name: a.astype(np.float64) for name, a in primals.items()}
    estimator = tolerance_at([PRODUCT], wide, delta, Numerics(store), fallback=PRODUCT)
    for name, tolerance in estimator.estimate(20).items():
        value = np.abs(PRODUCT(**wide)[0] if name == "output" else PRODUCT(**wide)[1](delta)[name])
        inside = (value < float(ml_dtypes.finfo(dtype).max)) & (value > float(ml_dtypes.finfo(dtype).smallest_normal))
        unit_in_last_place = 2 * unit_roundoff(store) * 2.0 ** np.floor(np.log2(value[inside]))
        assert np.median(tolerance[inside] / unit_in_last_place) <= 1.5
        assert np.all(tolerance >= unit_roundoff(store) * value)


@pytest.mark.parametrize("numerics", [Numerics("bfloat16"), Numerics.eager("bfloat16"), Numerics("float16")], ids=repr)
def test_ball_arithmetic_and_perturbation_are_consistent(numerics):
    """The bound is rigorous and the samples are not, so the bound is at least of their size, and not much larger."""
    f = oracles.manual(lambda z, w: (np.exp(z) * w, (z, w)), lambda c, d: {"z": d * np.exp(c[0]) * c[1], "w": d})
    reference = oracles.torch_autograd(lambda z, w: torch.exp(z) * w)
    primals, delta = {"z": np.array([0.3, -1.0]), "w": np.array([1.7, 0.6])}, np.array([0.5, -1.5])
    balls = certified_enclosures(f, primals, delta, numerics)
    tolerances = tolerance_at([reference], primals, delta, numerics, fallback=f).estimate(20)
    for name, tolerance in tolerances.items():
        ratio = balls[name].rounding / tolerance
        assert np.all((ratio > 0.2) & (ratio < 8)), (name, ratio)


def softmax(saved):
    """Softmax of rows in float32, whose y is saved for the backward in some dtype."""

    def forward(z):
        e = np.exp(z.astype(np.float32) - z.astype(np.float32).max(-1, keepdims=True))
        y = e / e.sum(-1, keepdims=True)
        return y.astype(z.dtype), y.astype(saved)

    def backward(y, delta):
        y, d = y.astype(np.float32), delta.astype(np.float32)
        return {"z": (y * (d - (d * y).sum(-1, keepdims=True))).astype(delta.dtype)}

    return oracles.manual(forward, backward, name=f"softmax, y saved in {np.dtype(saved)}")


SOFTMAX = oracles.torch_autograd(lambda z: torch.softmax(z, -1))


def test_a_saved_intermediate_is_one_more_rounding():
    """Undeclared, both are right; with one rounding declared, the report names what the second one saves."""
    primals = {"z": drawn(24, 48)}
    for saved in (np.float32, BFLOAT16):
        assert verdict_of(softmax(saved), primals, [SOFTMAX]) is Verdict.AGREES
        assert verdict_of(softmax(saved), primals, [SOFTMAX], numerics=Numerics.eager("bfloat16")) is Verdict.AGREES
    once = Numerics("bfloat16")
    assert verdict_of(softmax(np.float32), primals, [SOFTMAX], numerics=once) is Verdict.AGREES
    assert diagnosis_of(softmax(BFLOAT16), primals, [SOFTMAX], numerics=once) == "stores intermediates in bfloat16"


@pytest.mark.parametrize("factor", [1.0, 1.02, 1.2, 0.5])
def test_a_factor_is_wrong_in_low_precision(factor):
    def backward(y, delta):
        return {"z": (factor * (1 - y * y) * delta.astype(np.float32)).astype(delta.dtype)}

    subject = oracles.manual(lambda z: ((y := np.tanh(z.astype(np.float32))).astype(z.dtype), y), backward, name="tanh")
    primals, reference = {"z": drawn(40, 30)}, [oracles.torch_autograd(torch.tanh)]
    if factor == 1:
        assert verdict_of(subject, primals, reference) is Verdict.AGREES
    else:
        assert verdict_of(subject, primals, reference) is Verdict.WRONG
    if abs(factor - 1) >= 0.05:
        assert f"every entry is {factor:.1f}" in diagnosis_of(subject, primals, reference)


def cross_entropy(rounds_p):
    def forward(z, target):
        z = z.astype(np.float32)
        e = np.exp(z - z.max(-1, keepdims=True))
        p = e / e.sum(-1, keepdims=True)
        return -np.log(p[np.arange(len(p)), target]).astype(BFLOAT16), (p, target)

    def backward(cache, delta):
        p, target = cache
        p = p.astype(BFLOAT16).astype(np.float32) if rounds_p else p
        hot = np.eye(p.shape[1], dtype=np.float32)[target]
        return {"z": ((p - hot) * delta.astype(np.float32)[:, None]).astype(BFLOAT16)}

    return oracles.manual(forward, backward, name="cross-entropy")


def confident(n, classes, margin):
    rng = np.random.default_rng(n)
    z, target = rng.standard_normal((n, classes)), rng.integers(0, classes, n)
    z[np.arange(n), target] += margin
    return {"z": z.astype(BFLOAT16), "target": target}


CROSS_ENTROPY = oracles.torch_autograd(lambda z, target: torch.nn.functional.cross_entropy(z, target, reduction="none"))


@pytest.mark.parametrize("margin", [7, 9, 12])
def test_a_probability_that_is_rounded_before_one_is_subtracted_is_unstable(margin):
    primals = confident(32, 10, margin)
    assert verdict_of(cross_entropy(False), primals, [CROSS_ENTROPY]) is Verdict.AGREES
    assert verdict_of(cross_entropy(True), primals, [CROSS_ENTROPY]) is Verdict.UNSTABLE
    assert "before it cancels" in diagnosis_of(cross_entropy(True), primals, [CROSS_ENTROPY])


def embedding(accumulate):
    def backward(cache, delta):
        shape, ids = cache
        table = np.zeros(shape, accumulate)
        np.add.at(table, ids, delta.astype(accumulate))
        return {"W": table.astype(BFLOAT16)}

    return oracles.manual(lambda W, ids: (W[ids], (W.shape, ids)), backward, name=f"embedding in {accumulate}")


@pytest.mark.parametrize("delta", [None, np.ones((1024, 8), BFLOAT16)], ids=["drawn", "ones"])
def test_sums_in_bfloat16_are_named_and_may_be_declared(delta):
    primals = {"W": drawn(4, 8), "ids": np.random.default_rng(1).integers(0, 4, 1024)}
    reference = [oracles.torch_autograd(lambda W, ids: W[ids])]
    assert verdict_of(embedding(np.float32), primals, reference, delta=delta) is Verdict.AGREES
    assert diagnosis_of(embedding(BFLOAT16), primals, reference, delta=delta) == "accumulates in bfloat16"
    # A factor is none of that: its error is a smooth function of the input.
    wrong = oracles.manual(
        lambda W, ids: (W[ids], (W.shape, ids)),
        lambda c, d: {"W": 1.1 * np.asarray(embedding(np.float32)(W=np.zeros(c[0], BFLOAT16), ids=c[1])[1](d)["W"])},
    )
    assert verdict_of(wrong, primals, reference, delta=delta) is Verdict.WRONG


def rounded_to_tf32(a):
    """Round float32 to 10 bits behind the point."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)


def test_tf32_products_agree_where_they_are_declared():
    def product(a, b):
        return rounded_to_tf32(a) @ rounded_to_tf32(b)

    subject = oracles.manual(
        lambda x, W: (product(x, W), (x, W)), lambda c, d: {"x": product(d, c[1].T), "W": product(c[0].T, d)}
    )
    primals = {"x": drawn(30, 64, dtype=np.float32), "W": drawn(64, 20, dtype=np.float32)}
    tf32 = Numerics("float32", multiply="tf32")
    assert verdict_of(subject, primals, [PRODUCT], numerics=tf32) is Verdict.AGREES
    assert verdict_of(oracles.declared(subject, numerics=tf32), primals, [PRODUCT]) is Verdict.AGREES
    assert verdict_of(subject, primals, [PRODUCT]) in (Verdict.UNSTABLE, Verdict.WRONG)
    wrong = oracles.manual(
        lambda x, W: (product(x, W), (x, W)),
        lambda c, d: {"x": 1.02 * product(d, c[1].T), "W": product(c[0].T, d)},
    )
    assert verdict_of(wrong, primals, [PRODUCT], numerics=tf32) is Verdict.WRONG
    by_jax = [oracles.jax_vjp(lambda x, W: x @ W)]
    assert verdict_of(subject, primals, by_jax, numerics=tf32) is Verdict.AGREES


@pytest.mark.parametrize("store", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_is_stored_with_a_scale(store):
    """q s, with q in float8 and its scale s in float32; the gradient of q is stored in float8."""

    def backward(factor):
        def pull(cache, d):
            q, s = cache
            wide = q.astype(np.float32)
            return {"q": (factor * d * s).astype(q.dtype), "s": np.sum(d * wide, dtype=np.float32)}

        return pull

    primals = {"q": drawn(16, 16, dtype=store), "s": np.float32(0.7)}
    reference, delta = [oracles.torch_autograd(lambda q, s: q * s)], drawn(16, 16, dtype=np.float32)

    def subject(factor):
        return oracles.manual(lambda q, s: (q.astype(np.float32) * s, (q, s)), backward(factor), name="dequantize")

    assert verdict_of(subject(np.float32(1.0)), primals, reference, delta=delta) is Verdict.AGREES
    assert verdict_of(subject(np.float32(1.5)), primals, reference, delta=delta) is Verdict.WRONG
