"""Patterns of calls, functions, terms, indices, symmetry and blocks: each names its bug, and no near miss."""

import ml_dtypes
import numpy as np
import pytest
import torch
from bugs_of_functions import BUGS
from diagnosed_bugs import TANH
from test_diagnosis import patterns_may_not_raise, symptoms_at, with_wrong_entry

import oracles
from oracles import manual, torch_autograd, torch_function
from oracles.diagnosis.diagnose import diagnose, diagnosis_of

assert patterns_may_not_raise
IDS = [f"{i}-{d[0]}" for i, d in enumerate(BUGS)]


@pytest.mark.parametrize("bug", BUGS, ids=IDS)
def test_diagnosis_names_the_bugs_pattern(bug):
    pattern, words, layer, name, wrong, _ = bug
    subject = layer.with_cotangents(**{name: wrong})
    diagnosis = diagnose(symptoms_at(subject, layer.oracle, layer.primals, layer.delta, name))
    assert (diagnosis.pattern, words in str(diagnosis)) == (pattern, True), f"{diagnosis.pattern}: {diagnosis}"
    assert "\n" not in str(diagnosis)


@pytest.mark.parametrize("bug", [b for b in BUGS if b[-1] is not None], ids=lambda b: b[0])
def test_near_miss_is_not_given_the_pattern(bug):
    pattern, _, layer, name, wrong, where = bug
    subject = with_wrong_entry(layer.with_cotangents(**{name: wrong}), name, where)
    diagnosis = diagnose(symptoms_at(subject, layer.oracle, layer.primals, layer.delta, name))
    assert diagnosis.pattern != pattern, f"{diagnosis.pattern}: {diagnosis}"


@pytest.mark.parametrize("bug", BUGS, ids=IDS)
def test_right_layers_have_no_diagnosis(bug):
    _, _, layer, name, _, _ = bug
    subject = layer.with_cotangents(**{name: lambda c, d, g: np.array(g)})
    assert not diagnose(symptoms_at(subject, layer.oracle, layer.primals, layer.delta, name))


def diagnose_rule(subject, oracle, name, delta, **primals):
    return diagnose(symptoms_at(subject, oracle, primals, delta, name))


def with_strides_ignored(z):
    return np.tanh(z), z


def read_in_memory_order(z, d):
    d = d.ravel(order="K").reshape(d.shape) if 0 not in d.strides else d
    return {"z": d / np.cosh(z) ** 2}


def test_layout():
    subject = manual(with_strides_ignored, read_in_memory_order)
    d = TANH.delta
    diagnosis = diagnose_rule(subject, TANH.oracle, "z", np.asfortranarray(d), **TANH.primals)
    assert (diagnosis.pattern, "delta" in str(diagnosis)) == ("layout", True)
    right = manual(with_strides_ignored, lambda z, d: {"z": d / np.cosh(z) ** 2})
    assert not diagnose_rule(right, TANH.oracle, "z", np.asfortranarray(d), **TANH.primals)
    other = manual(with_strides_ignored, lambda z, d: {"z": 1.0001 * read_in_memory_order(z, d)["z"] + 1e-3 * d * d})
    assert diagnose_rule(other, TANH.oracle, "z", np.asfortranarray(d), **TANH.primals).pattern != "layout"


def torch_unfilled(z):
    import torch

    class Unfilled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z.tanh()

        @staticmethod
        def backward(ctx, d):
            (z,) = ctx.saved_tensors
            dz = torch.empty_like(z)
            dz[:-1] = (d / z.cosh() ** 2)[:-1]
            return dz

    return torch_function(Unfilled)


def numpy_unfilled(z):
    def backward(z, d):
        dz = np.empty_like(z)
        dz[:-1] = (d / np.cosh(z) ** 2)[:-1]
        return {"z": dz}

    return manual(lambda z: (np.tanh(z), z), backward)


def counting(z):
    calls = []

    def backward(z, d):
        calls.append(None)
        return {"z": d / np.cosh(z) ** 2 * (1 + len(calls) % 3)}

    return manual(lambda z: (np.tanh(z), z), backward)


def drawing(z):
    def backward(z, d):
        return {"z": d / np.cosh(z) ** 2 * np.random.rand(*z.shape)}  # noqa: NPY002 - the global generator is the bug

    return manual(lambda z: (np.tanh(z), z), backward)


@pytest.mark.parametrize(
    ("make", "pattern"),
    [(numpy_unfilled, "uninitialised"), (torch_unfilled, "uninitialised"), (drawing, "random"),
     (counting, "not_repeatable")],
)  # fmt: skip
def test_why_equal_calls_differ(make, pattern):
    symptoms = symptoms_at(make(TANH.primals["z"]), TANH.oracle, TANH.primals, TANH.delta, "z")
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    diagnosis = diagnose(symptoms)
    assert diagnosis.pattern == pattern, diagnosis
    if pattern == "uninitialised":
        assert "4 of 12 entries" in str(diagnosis)
    if pattern != "random":  # the calls of that subject draw, the diagnosis itself does not
        assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def x_log_x(value_at_zero):
    """Rule of z·log z with a chosen derivative at 0, where it is −∞."""

    def forward(z):
        positive = np.where(z > 0, z, 1.0)
        return np.where(z > 0, z * np.log(positive), 0.0), z

    def backward(z, d):
        return {"z": d * np.where(z > 0, np.log(np.where(z > 0, z, 1.0)) + 1, value_at_zero)}

    return manual(forward, backward)


def test_layout_is_not_blamed_where_all_layouts_give_one_answer():
    # An array that is expanded from one number has another value in most entries: here a singular one.
    oracle = torch_autograd(lambda z: torch.xlogy(z, z))
    for d in (np.array([1.0, -0.5, 2.0]), np.array([1.0, 0.0, -0.5, 0.0, 2.0])[::2]):
        diagnosis = diagnose_rule(x_log_x(7.0), oracle, "z", d, z=np.array([0.0, 0.5, 2.0]))
        assert diagnosis.pattern != "layout", diagnosis


def test_no_location_is_named_where_the_oracle_has_no_number():
    oracle = torch_autograd(lambda z: torch.where(z == 0, z * torch.inf, z * z))  # NaN at 0
    subject = manual(lambda z: (z * z, z), lambda z, d: {"z": np.where(z == 0, np.nan, 2 * z * d)})
    assert not diagnose_rule(subject, oracle, "z", np.array([1.0, -0.5, 2.0]), z=np.array([0.0, 0.5, 2.0]))


def test_infinite_derivative_is_named():
    oracle = torch_autograd(torch.sqrt)
    d, z = np.array([1.0, -0.5, 2.0]), np.array([0.0, 0.5, 2.0])
    with np.errstate(divide="ignore"):
        seven = manual(lambda z: (np.sqrt(z), z), lambda z, d: {"z": d * np.where(z > 0, 0.5 / np.sqrt(z), 7.0)})
        diagnosis = diagnose_rule(seven, oracle, "z", d, z=z)
        right = manual(lambda z: (np.sqrt(z), z), lambda z, d: {"z": d * 0.5 / np.sqrt(z)})
        assert not diagnose_rule(right, oracle, "z", d, z=z)
    assert (diagnosis.pattern, "infinite" in str(diagnosis)) == ("zeros", True)


def diagnosis_of_check(subject, primals, against=(), **options):
    """Check a wrong subject, and return the diagnosis of its refusal."""
    with pytest.raises(oracles.Disagreement) as refusal:
        oracles.check(subject, primals, list(against), **options)
    return diagnosis_of(refusal.value.result)


def minmod(a, b):
    return np.where(a * b > 0, np.where(np.abs(a) < np.abs(b), a, b), 0)


def limited(u):
    flux = u + 0.3 * minmod(u - np.roll(u, 1), np.roll(u, -1) - u)
    return u - 0.4 * (flux - np.roll(flux, 1)), u


def torch_limited(u):
    a, b = u - torch.roll(u, 1), torch.roll(u, -1) - u
    flux = u + 0.3 * torch.where(a * b > 0, torch.where(a.abs() < b.abs(), a, b), torch.zeros_like(a))
    return u - 0.4 * (flux - torch.roll(flux, 1))


@pytest.mark.parametrize("against", [[torch_autograd(torch_limited)], []], ids=["torch", "own forward"])
def test_a_changed_primal_outside_the_domain_or_at_ties_explains_nothing(against):
    """The frozen limiter: a mask is off for log(u) = NaN, and for u = 1 everywhere, where all slopes are tied."""
    frozen = manual(limited, lambda u, d: {"u": d - 0.4 * (d - np.roll(d, -1))})
    diagnosis = diagnosis_of_check(frozen, {"u": np.random.default_rng(5).standard_normal(9)}, against)
    assert diagnosis.pattern == "detached_term", diagnosis


BFLOAT16 = ml_dtypes.bfloat16


def gelu_without_a_factor(x):
    z = x.astype(np.float32)
    return (0.5 * z * (1 + gelu_tanh(z))).astype(x.dtype), z


def gelu_tanh(z):
    return np.tanh(np.float32(0.7978845608) * (z + np.float32(0.044715) * z**3))


def gelu_backward(z, d):
    t = gelu_tanh(z)
    inner = np.float32(0.7978845608) * (1 + np.float32(0.044715) * z**2)  # the factor 3 of the cube is missing
    return {"x": (d.astype(np.float32) * (0.5 * (1 + t) + 0.5 * z * (1 - t**2) * inner)).astype(d.dtype)}


@pytest.mark.parametrize(("dtype", "scale"), [(BFLOAT16, 1), (BFLOAT16, 4), (np.float16, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_term_or_sum_that_the_tolerance_may_have_made_is_not_named(dtype, scale, seed):
    """Errors of each entry alone, of some tolerances each: a bound of the sum of all entries hides them."""
    x = (np.random.default_rng(seed).standard_normal((8, 40)) * scale).astype(dtype)
    reference = torch_autograd(lambda x: torch.nn.functional.gelu(x, approximate="tanh"))
    diagnosis = diagnosis_of_check(manual(gelu_without_a_factor, gelu_backward), {"x": x}, [reference])
    assert diagnosis.pattern not in ("term_along_axis", "reduced_too_far"), diagnosis


def softmax_of_floats(x):
    e = np.exp(x.astype(np.float32) - x.max(1, keepdims=True).astype(np.float32))
    y = e / e.sum(1, keepdims=True)
    return y.astype(x.dtype), y


@pytest.mark.parametrize("dtype", [BFLOAT16, np.float16, np.float32])
def test_a_term_that_is_large_in_low_precision_is_still_named(dtype):
    def backward(y, d):
        return {"x": (y * d.astype(np.float32)).astype(d.dtype)}  # the sum over each row is not subtracted

    x = np.random.default_rng(0).standard_normal((4, 6)).astype(dtype)
    reference = torch_autograd(lambda x: torch.softmax(x, 1))
    assert diagnosis_of_check(manual(softmax_of_floats, backward), {"x": x}, [reference]), dtype


class ReadsInOrder(torch.autograd.Function):
    """silu(a)·b, whose backward ignores the strides of the cotangent."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return (a.float() * torch.sigmoid(a.float())).to(a.dtype) * b

    @staticmethod
    def backward(ctx, d):
        a, b = ctx.saved_tensors
        wide, s = a.float(), torch.sigmoid(a.float())
        d = torch.as_strided(d, d.shape, torch.empty(d.shape).stride())
        return (d * b) * (s * (1 + wide * (1 - s))).to(d.dtype), (wide * s).to(d.dtype) * d


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("seed", [0, 1, 4])
def test_layout_is_named_where_it_is_the_reason_and_the_call_itself_is_right(dtype, seed):
    r = np.random.default_rng(seed)
    primals = {n: torch.tensor(r.standard_normal((5, 12))).to(dtype) for n in "ab"}
    reference = torch_autograd(lambda a, b: torch.nn.functional.silu(a) * b)
    diagnosis = diagnosis_of_check(torch_function(ReadsInOrder), primals, [reference])
    assert diagnosis.pattern == "layout", diagnosis
    assert str(diagnosis).startswith("right for contiguous arrays")


@pytest.mark.parametrize("n", [3, 5])
def test_all_entries_off_the_diagonal_are_not_called_the_border(n):
    def wrong(factor):
        return manual(lambda z: (np.tanh(z), z), lambda z, d: {"z": d / np.cosh(z) ** 2 + factor * 0.1 * d * z})

    border = np.pad(np.zeros((n - 2, n - 2)), 1, constant_values=1)
    for factor, words in ((1 - np.eye(n), "off the diagonal"), (np.eye(n), "on the diagonal"), (border, "border")):
        z = np.random.default_rng(n).standard_normal((n, n))
        diagnosis = diagnosis_of_check(wrong(factor), {"z": z}, [TANH.oracle])
        assert (diagnosis.pattern, words in str(diagnosis)) == ("wrong_only_in_locations", True), diagnosis


def softplus(clip_at):
    def backward(x, d):
        return {"x": d * np.where(np.abs(x) > clip_at, x > 0, 1 / (1 + np.exp(-np.clip(x, -50, 50))))}

    return manual(lambda x: (np.logaddexp(0, x), x), backward)


def test_a_bound_from_which_on_entries_are_replaced_is_no_iteration_that_stops_early():
    """Smooth nearby, with a jump where an entry crosses the bound; the other entries are right."""
    primals = {"x": np.array([1000.0, -1000, 0, 30, -40, 0.3])}
    assert diagnosis_of_check(softplus(20), primals).pattern != "not_converged"


def cast_inside(factor):
    """Return x @ w for x in bfloat16 and w in float32, which is cast as autocast does it."""

    class CastInside(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return x @ w.to(x.dtype)

        @staticmethod
        def backward(ctx, d):
            x, w = ctx.saved_tensors
            return d @ w.to(x.dtype).T, factor * (x.T.float() @ d.float())

    return torch_function(CastInside)


@pytest.mark.parametrize("factor", [1.0, 1.1])
@pytest.mark.parametrize("declared", [False, True])
def test_what_low_precision_inside_hides_is_neither_smooth_nor_a_factor_of_each_slice(factor, declared):
    r = np.random.default_rng(0)
    x, w = (torch.tensor(r.standard_normal(shape)) for shape in ((40, 16), (16, 8)))
    subject = cast_inside(factor)
    rule = oracles.declared(subject, output_dtype="bfloat16") if declared else subject
    diagnosis = diagnosis_of_check(rule, {"x": x.bfloat16(), "w": w.float()}, [torch_autograd(lambda x, w: x @ w)])
    assert diagnosis.pattern not in ("not_converged", "term_along_axis", "factor_per_group"), diagnosis
