"""The tolerance: torch and JAX give similar ones, it follows the conditioning, and it depends on the input alone."""

import numpy as np
import pytest
from layer_norms import layer_norm_jax, layer_norm_torch

import oracles
from oracles import Rule, jax_vjp, manual, torch_autograd
from oracles.constants import BACKWARD_SAMPLES, MORE_SAMPLES
from oracles.numerics import confidence, precision_name, precision_of, unit_roundoff
from oracles.perturbation.numpy_arrays import perturb_own_code
from oracles.references.linear import linear_jax, linear_torch
from oracles.references.normalization import rms_norm_jax, rms_norm_torch
from oracles.references.softmax import softmax_jax, softmax_torch
from oracles.rule import Perturbation, with_dtype
from oracles.tolerance import tolerance_at

RNG = np.random.default_rng(2)


def rms_norm_torch_6(z, g):  # adds its eps in place
    return rms_norm_torch(z, (6,), 1.0, g)


def rms_norm_jax_6(z, g):
    return rms_norm_jax(z, (6,), 1.0, g)


POINTS = {
    "linear": (
        linear_torch,
        linear_jax,
        {"z": (4, 9), "W": (9, 3), "b": (1, 3)},
        (4, 3),
    ),
    "softmax": (softmax_torch, softmax_jax, {"z": (3, 5)}, (3, 5)),
    "layer norm": (layer_norm_torch, layer_norm_jax, {"z": (3, 6), "g": (6,)}, (3, 6)),
    "rms norm": (rms_norm_torch_6, rms_norm_jax_6, {"z": (3, 6), "g": (6,)}, (3, 6)),
}


def point(name):
    torch_reference, jax_reference, shapes, out = POINTS[name]
    primals = {n: RNG.standard_normal(s) for n, s in shapes.items()}
    return torch_autograd(torch_reference), jax_vjp(jax_reference), primals, RNG.standard_normal(out)


@pytest.mark.parametrize("name", POINTS)
def test_torch_and_jax_give_similar_tolerances(name):
    """Median over the entries within a factor of 4: they perturb different operations of the same function."""
    torch, jax, primals, delta = point(name)
    by_torch, by_jax = (
        tolerance_at([o], primals, delta, "float32", fallback=o).estimate(MORE_SAMPLES) for o in (torch, jax)
    )
    assert by_torch.keys() == by_jax.keys()
    for n in by_torch:
        ratio = np.median(by_torch[n]) / np.median(by_jax[n])
        assert 1 / 4 < ratio < 4


@pytest.mark.parametrize("name", POINTS)
def test_tolerance_scales_with_the_unit_roundoff(name):
    _, jax, primals, delta = point(name)
    fine, coarse = (tolerance_at([jax], primals, delta, p, fallback=jax).estimate() for p in ("float64", "float32"))
    scale = unit_roundoff("float32") / unit_roundoff("float64")
    for n in fine:
        assert scale / 4 < np.median(coarse[n]) / np.median(fine[n]) < 4 * scale


SUMS = {
    "torch": torch_autograd(lambda z: z.sum(0)),
    "jax": jax_vjp(lambda z: z.sum(0)),
    "numpy": perturb_own_code(manual(lambda z: (z.sum(0), z), lambda z, d: {"z": np.broadcast_to(d, z.shape)})),
}


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", SUMS)
def test_half_precision_sums_in_float32(name, precision):
    """Terms are rounded once as they are stored; the partial sums of a thousand times as many hardly add to that."""
    rule, u = SUMS[name], unit_roundoff(precision)
    for rows in (4, 4096):
        z = np.ones((rows, 3))
        tolerance = tolerance_at([rule], {"z": z}, np.ones(3), precision, fallback=rule).estimate(MORE_SAMPLES)
        assert np.all(tolerance["output"] >= confidence(precision) * u * rows)
        assert np.all(tolerance["output"] <= 3 * confidence(precision) * u * rows)
    sequential = np.float32(1) * rows * u * rows  # what as many roundings of the partial sums may add up to
    assert np.all(tolerance["output"] < sequential / 100)


def test_tolerance_is_deterministic_and_grows_with_samples():
    torch, _, primals, delta = point("layer norm")
    first, second = (tolerance_at([torch], primals, delta, "float64", fallback=torch).estimate() for _ in range(2))
    assert all(first[n].tobytes() == second[n].tobytes() for n in first)
    more = tolerance_at([torch], primals, delta, "float64", fallback=torch).estimate(MORE_SAMPLES)
    assert all(np.all(more[n] >= first[n]) for n in first)


def test_tolerance_follows_the_conditioning():
    """Mean far from zero against the spread: layer norm cancels, so rounding moves its gradient further."""
    torch, _, primals, delta = point("layer norm")
    far = {**primals, "z": primals["z"] + 1000.0}
    near_, far_ = (
        np.median(tolerance_at([torch], p, delta, "float64", fallback=torch).estimate()["z"]) for p in (primals, far)
    )
    assert far_ > 100 * near_


def test_tolerance_of_an_exact_zero_from_a_fused_kernel_is_positive():
    """Layer norm over one feature: the exact gradient is 0, and torch's fused backward is only nearly so."""
    import torch

    fused = torch_autograd(lambda z: torch.nn.functional.layer_norm(z, (1,)))
    estimator = tolerance_at(
        [fused], {"z": np.array([[0.3], [7.0]])}, np.array([[1.0], [-2.0]]), "float64", fallback=fused
    )
    assert np.all(estimator.estimate()["z"] > 0)


def test_tolerance_of_an_opaque_rule_is_positive():
    opaque = Rule(lambda z: (np.sin(z), lambda d: {"z": d * np.cos(z)}))
    tolerances = tolerance_at([opaque], {"z": np.array([1.0, 2.0])}, np.ones(2), "float64", fallback=opaque).estimate()
    assert np.all(tolerances["z"] > 0)
    assert np.all(tolerances["output"] > 0)


def test_precisions():
    assert unit_roundoff("float32") == np.finfo(np.float32).eps / 2
    assert unit_roundoff(np.float64) == np.finfo(np.float64).eps / 2
    assert unit_roundoff("float16") == float(np.finfo(np.float16).eps) / 2
    assert precision_name(np.longdouble) == "longdouble"
    assert precision_of({"z": np.zeros(1), "W": np.zeros(1, np.float32), "i": np.zeros(1, int)}) == "float32"
    with pytest.raises(ValueError, match="expected one of float8_e5m2"):
        precision_name("int8")


def test_in_place_torch_operations_are_perturbed():
    """torch.lstm applies its gates in place: a perturbed copy of the operand must not swallow the result."""
    z, delta = RNG.standard_normal((3, 4)), RNG.standard_normal((4, 3))

    def in_place(z):
        return (z * 2).transpose_(0, 1).mul_(3).sigmoid_()

    def anew(z):
        return ((z * 2).t() * 3).sigmoid()

    estimators = [
        tolerance_at([torch_autograd(f)], {"z": z}, delta, "float32", fallback=Rule(None)) for f in (in_place, anew)
    ]
    for n in ("output", "z"):
        assert np.array_equal(*(estimator.estimate()[n] for estimator in estimators))


def equal_rows_torch(z, b):
    x = z + b
    return (1e4 * (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()).tanh()


def equal_rows_jax(z, b):
    import jax.numpy as jnp

    x = z + b
    return jnp.tanh(1e4 * (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5))


def equal_rows_forward(z, b):
    n_rows, x = len(z), z + b
    root = np.sqrt(x.var(0) + np.asarray(1e-5, z.dtype))
    y = np.tanh((1e4 * (x - x.mean(0)) / root).astype(z.dtype))
    return y, (x - x.mean(0), root, y, n_rows)


def equal_rows_backward(cache, delta):
    centred, root, y, n_rows = cache
    g = 1e4 * delta * (1 - y * y) / root
    dz = g - g.sum(0) / n_rows - centred * ((g * centred).sum(0) / n_rows) / root**2
    return {"z": dz, "b": dz.sum(0)}


EQUAL_ROWS = {
    "torch": torch_autograd(equal_rows_torch),
    "jax": jax_vjp(equal_rows_jax),
    "numpy": perturb_own_code(manual(equal_rows_forward, equal_rows_backward)),
}


def at_equal_rows():
    rng = np.random.default_rng(3)
    primals = {"z": np.full((3, 4), 20.8656, np.float32), "b": rng.standard_normal(4).astype(np.float32)}
    return primals, rng.standard_normal((3, 4)).astype(np.float32)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_perturbing_the_backward_alone_covers_saturated_forwards(name):
    """A batch of equal rows has no variance. Perturbed it has some, tanh saturates, and hides its own perturbation."""
    primals, delta = at_equal_rows()
    subject = manual(equal_rows_forward, equal_rows_backward)
    error = np.abs(subject(**primals)[1](delta)["b"])  # shifting every row alike moves nothing: it is 0
    rounding = tolerance_at([EQUAL_ROWS[name]], primals, delta, "float32", fallback=subject)
    assert np.any(error > rounding.estimate(MORE_SAMPLES - BACKWARD_SAMPLES)["b"])
    assert np.all(error <= rounding.estimate(MORE_SAMPLES)["b"])


@pytest.mark.parametrize("name", EQUAL_ROWS)
def test_backward_can_be_perturbed_alone(name):
    source = EQUAL_ROWS[name]
    primals, delta = (with_dtype(arrays, np.float64) for arrays in at_equal_rows())
    primals["z"] = 1e-7 * RNG.standard_normal(primals["z"].shape)  # where tanh is not flat
    outputs, cotangents = source.evaluate_perturbed(
        primals, delta, Perturbation(np.random.default_rng(0), 1e-6, forward=False)
    )
    y, pullback = source(**primals)
    np.testing.assert_array_equal(outputs[0], y)
    assert all(np.any(cotangents[n] != plain) for n, plain in pullback(delta).items())


def mixed_point():
    rng = np.random.default_rng(5)
    return {"z": rng.standard_normal((4, 3)), "m": rng.standard_normal(3).astype(np.float16)}


def finer_of(reference, primals=None, delta=None):
    primals = primals or mixed_point()
    rule = torch_autograd(reference)
    delta = np.ones((4, 3)) if delta is None else delta
    return tolerance_at([rule], primals, delta, precision_of(primals), fallback=rule, native=(primals, delta)).finer


def test_each_array_is_judged_in_the_precision_that_reaches_it():
    import torch

    promoted = {"output": "float64", "z": "float64"}
    assert finer_of(lambda z, m: z * m) == promoted
    assert finer_of(lambda z, m: z * m.to(z.dtype).square()) == promoted
    assert finer_of(lambda z, m: z * (m * m)) == {}  # m·m is rounded to float16
    # What does not run in mixed precisions says nothing; the dtypes of the primals do.
    assert finer_of(lambda z, m: z @ torch.diag(m)) == promoted
    half = {"z": np.float16([1.0, 2.0]), "m": np.float16([1.0, 3.0])}
    assert finer_of(lambda z, m: z * m, half, np.ones(2)) == {}


def test_a_mixed_point_with_a_declared_precision_is_judged_in_that():
    from oracles import Disagreement, check

    def backward(cache, d):
        z, m = cache
        return {"z": (d * m * np.float16(1.001)).astype(z.dtype), "m": (d * z).sum(0).astype(m.dtype)}

    subject, against = manual(lambda z, m: (z * m, (z, m)), backward), [torch_autograd(lambda z, m: z * m)]
    with pytest.raises(Disagreement):
        check(subject, mixed_point(), against)
    assert check(subject, mixed_point(), against, precision="float16").verdict == "agrees"


def test_an_estimator_in_another_precision_is_kept():
    torch, _, primals, delta = point("layer norm")
    estimator = tolerance_at([torch], primals, delta, "float32", fallback=torch)
    coarse = estimator.in_precision("float16")
    assert estimator.in_precision("float16") is coarse
    assert estimator.in_precision("float32") is estimator
    assert np.all(coarse.estimate()["z"] > estimator.estimate()["z"])


def test_an_output_without_a_derivative_in_torch_is_a_failed_reference():
    import torch

    from oracles import ReferenceFailed

    z = {"z": np.array([0.5, 1.5])}
    for reference in (torch.special.bessel_j0, lambda z: z.detach() * 2, lambda z: (z.detach(), (z > 1).double())):
        y, pullback = torch_autograd(reference)(**z)
        with pytest.raises(ReferenceFailed, match="does not require grad"):
            pullback(tuple(np.ones(2) for _ in y) if isinstance(y, tuple) else np.ones(2))
    _, pullback = torch_autograd(lambda z: z.detach() * 2 + 0 * z.sum())(**z)
    assert np.array_equal(pullback(np.ones(2))["z"], np.zeros(2))
    y, pullback = torch_autograd(lambda z: (z * 2, (z > 1).double()))(**z)  # the second one carries no gradient
    assert np.array_equal(pullback((np.ones(2), np.ones(2)))["z"], np.full(2, 2.0))


def test_complex_intermediates_of_numpy_code_are_perturbed():
    subject = manual(
        lambda z: (np.fft.irfft(np.fft.rfft(z) * (1 + 2j), n=8), None),
        lambda _, d: {"z": np.fft.irfft(np.fft.rfft(d) * (1 - 2j), n=8)},
    )
    z, d = RNG.standard_normal((2, 8))
    tolerance = tolerance_at([], {"z": z}, d, "float64", fallback=subject).estimate()
    assert np.all(tolerance["z"] > unit_roundoff("float64") * np.abs(subject(z=z)[1](d)["z"]))
    assert np.all(tolerance["z"] < 1e3 * unit_roundoff("float64") * np.linalg.norm(d))


def scaled_difference(p, q):
    return (p - q) * 1.5


DIFFERENCE = manual(lambda p, q: ((p - q) * 1.5, None), lambda _, d: {"p": 1.5 * d, "q": -1.5 * d})


@pytest.mark.parametrize("oracle", [torch_autograd(scaled_difference), jax_vjp(scaled_difference), None])
@pytest.mark.parametrize("size", [2**16, 2**18])
def test_errors_of_equal_operands_cancel_at_no_entry(oracle, size):
    """Errors of ±h alone move both operands alike in all of 16 samples, at one entry in 2^16."""
    p = np.random.default_rng(3).uniform(1, 2, size)
    estimator = tolerance_at([oracle] if oracle else [], {"p": p, "q": p.copy()}, p, "float64", fallback=DIFFERENCE)
    assert estimator.estimate(MORE_SAMPLES)["output"].min() > 1.5 * unit_roundoff("float64")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_torch_is_allowed_the_error_of_its_trigamma(dtype):
    """It is off by up to 4.9e-10: JAX's, which is right, is accepted, and an error of 1e-7 is refused."""
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    from jax.scipy.special import digamma

    primals = {"z": np.linspace(0.2, 9, 23).astype(dtype)}
    against = [oracles.torch_autograd(torch.digamma)]
    assert oracles.check(oracles.jax_function(digamma), primals, against).verdict == "agrees"

    @jax.custom_vjp
    def off(z):
        return digamma(z)

    scale = 1 + (1e-7 if dtype == "float64" else 1e-2)
    off.defvjp(lambda z: (digamma(z), z), lambda z, d: (jax.vjp(digamma, z)[1](d)[0] * scale,))
    with pytest.raises(oracles.Disagreement):
        oracles.check(oracles.jax_function(off), primals, against)
