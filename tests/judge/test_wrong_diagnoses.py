"""A diagnosis names no defect that is none, and what is near it keeps its name."""

import os
import signal
import time
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

import oracles
from oracles.properties import shapes_and_dtypes_exact
from oracles.registry import Case
from oracles.strategies import Point
from oracles.verdict import Finding, Result

torch = pytest.importorskip("torch")


def refusal(subject, primals, *against, **options):
    """Return the Disagreement of a subject that must be refused."""
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(subject, primals, list(against), **options)
    return refused.value


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_crash_at_a_shape_that_nobody_gave_is_survived():
    """The one row that is assigned and not added is named, though the reference crashes at any other shape."""

    def reference(x):
        if x.shape != (6, 5):
            os.kill(os.getpid(), signal.SIGSEGV)
        return torch.cat([x[:, :2], x[:, :2] + x[:, 1:3]], 1)

    def pull(x, d):
        g = np.zeros_like(x)
        g[:, :2] = d[:, :2] + d[:, 2:]
        g[:, 1:3] = d[:, 2:]
        return {"x": g}

    subject = oracles.manual(lambda x: (np.concatenate([x[:, :2], x[:, :2] + x[:, 1:3]], 1), x), pull)
    x = np.random.default_rng(0).standard_normal((6, 5))
    assert "wrong only at index 1 along axis 1" in str(refusal(subject, {"x": x}, oracles.torch_autograd(reference)))


@pytest.mark.parametrize("z", [[12.0], [12.0, -3.0, 8.0, 0.3], [14.0, 13.1, 12.2, 15.0]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cancellation_is_no_solver(z, dtype):
    """-log(1 - sigmoid(z)) loses digits, and more in float32: nothing stops early, nothing is computed in float16."""

    def forward(z):
        s = 1 / (1 + np.exp(-z))
        return -np.log(1 - s), s

    subject = oracles.manual(forward, lambda s, d: {"z": d * s})
    refused = refusal(subject, {"z": np.array(z, dtype)}, oracles.torch_autograd(torch.nn.functional.softplus))
    assert "shrinks with the precision" in refused.evidence.reason
    assert "solved_to" not in str(refused)
    assert "float16" not in str(refused)


def test_a_solver_in_float32_that_stops_early_is_named():
    """Right control: the same error in float64 too."""

    def forward(z):
        u = z
        for _ in range(60):
            step = 0.5 * np.cos(u) + z - u
            u = u + step
            if np.abs(step).max() <= 1e-3:
                break
        return u, u

    def newton(z):
        u = z
        for _ in range(7):
            u = u - (u - 0.5 * torch.cos(u) - z) / (1 + 0.5 * torch.sin(u))
        return u

    subject = oracles.manual(forward, lambda u, d: {"z": d / (1 + np.float32(0.5) * np.sin(u))})
    z = np.random.default_rng(3).standard_normal((3, 2)).astype(np.float32)
    assert "not converged" in refusal(subject, {"z": z}, oracles.torch_autograd(newton)).diagnosis


def clamped(mask):
    def backward(c, d):
        x, y, W = c
        return {"x": d @ W.T * (np.abs(x) <= 4 if mask else 1), "W": y.T @ d}

    def forward(x, W):
        y = np.clip(x, -4, 4)
        return y @ W, (x, y, W)

    return oracles.manual(forward, backward)


def with_z_loss(share):
    def forward(z):
        m = z.max(1, keepdims=True)
        e = np.exp(z - m)
        s = e.sum(1, keepdims=True)
        size = (np.log(s) + m)[:, 0]
        return (e / s)[:, 0] + 1e-3 * size**2, (e / s, size)

    def backward(c, d):
        p, size = c
        g = -p * p[:, :1] + share * 2e-3 * size[:, None] * p
        g[:, 0] += p[:, 0]
        return {"z": g * d[:, None]}

    return oracles.manual(forward, backward)


def test_what_is_nearly_linear_mixes_up_no_logits():
    """sigmoid(x) lies within the bounds of a clamp, log_softmax(z) has a log-sum-exp of 0: neither is the defect."""
    rng = np.random.default_rng(0)
    x = {"x": 4 * rng.standard_normal((3, 4)), "W": rng.standard_normal((4, 3))}
    reference = oracles.torch_autograd(lambda x, W: x.clamp(-4, 4) @ W)
    assert "the derivative 1 for clamp" in refusal(clamped(False), x, reference).diagnosis
    assert oracles.check(clamped(True), x, [reference]).verdict == "agrees"
    z = {"z": rng.standard_normal((8, 4))}
    reference = oracles.torch_autograd(lambda z: z.softmax(1)[:, 0] + 1e-3 * z.logsumexp(1) ** 2)
    assert "without the derivative through logsumexp" in refusal(with_z_loss(0), z, reference).diagnosis
    assert oracles.check(with_z_loss(1), z, [reference]).verdict == "agrees"


def test_logits_for_probabilities_is_named():
    """Right control: sigmoid applied twice."""

    def loss(z, t):
        p = 1 / (1 + np.exp(-z))
        return np.sum(-t * np.log(p) - (1 - t) * np.log(1 - p)), (p, t)

    subject = oracles.manual(loss, lambda c, d: {"z": d * (1 / (1 + np.exp(-c[0])) - c[1])})
    z = {"z": np.random.default_rng(1).standard_normal((3, 2)), "t": np.array([[0, 1], [1, 1], [0, 1]])}

    def reference(z, t):
        return torch.nn.functional.binary_cross_entropy_with_logits(z, t.to(z.dtype), reduction="sum")

    assert "logits and probabilities" in refusal(subject, z, oracles.torch_autograd(reference)).diagnosis


def product(tile, stored=False):
    """Return x @ W, whose gradient by W is added up tile by tile in the dtype of the inputs, or stores d / 3 in it."""

    def forward(x, W):
        return (x.astype(np.float32) @ W.astype(np.float32) / 3).astype(x.dtype), (x, W)

    def backward(c, d):
        x, W = (a.astype(np.float32) for a in c)
        scaled = d.astype(np.float32) / 3
        scaled = scaled.astype(d.dtype).astype(np.float32) if stored else scaled
        g = np.zeros(W.shape, d.dtype if tile else np.float32)
        for s in range(0, len(x), tile or len(x)):
            g = (g.astype(np.float32) + x[s : s + (tile or len(x))].T @ scaled[s : s + (tile or len(x))]).astype(
                g.dtype
            )
        return {"x": (scaled @ W.T).astype(d.dtype), "W": g.astype(d.dtype)}

    return oracles.manual(forward, backward)


@pytest.mark.parametrize(("n", "tile"), [(500, 16), (500, 1), (64, 1)])
def test_sums_in_bfloat16_are_no_stored_intermediates(n, tile):
    rng = np.random.default_rng(11)
    shapes = {"x": (n, 8), "W": (8, 6)}
    primals = {k: rng.standard_normal(shape).astype(ml_dtypes.bfloat16) for k, shape in shapes.items()}
    reference, once = oracles.torch_autograd(lambda x, W: x @ W / 3), oracles.Numerics("bfloat16")
    refused = refusal(product(tile), primals, reference, numerics=once)
    assert refused.diagnosis == "accumulates in bfloat16"
    assert "accumulate in float32" in refused.evidence.fix
    assert oracles.check(product(0), primals, [reference], numerics=once).verdict == "agrees"
    stores = refusal(product(0, stored=True), primals, reference, numerics=once)
    assert stores.diagnosis == "stores intermediates in bfloat16"


def pinball(at_tie):
    """Return max(0.9 r, −0.1 r) of r = y − q; the sides are swapped unless its derivative at a tie is given."""

    def backward(c, d):
        right = np.where(c == 0, at_tie, np.where(c > 0, 0.9, -0.1)) if at_tie else np.where(c > 0, 0.1, -0.9)
        return {"y": d * right, "q": -d * right}

    return oracles.manual(lambda y, q: (np.maximum(0.9 * (y - q), -0.1 * (y - q)), y - q), backward)


def test_a_factor_of_delta_fits_every_entry():
    """The errors are −1.3, −0.8 and −0.8 times delta, the first one at a tie: a mean of them is no factor."""
    reference = oracles.torch_autograd(lambda y, q: torch.maximum(0.9 * (y - q), -0.1 * (y - q)))
    primals = {"y": np.array([1.0, 2, 3]), "q": np.array([1.0, 2.5, 2])}
    assert "× delta" not in refusal(pinball(0), primals, reference).diagnosis
    assert oracles.check(pinball(0.4), primals, [reference]).verdict == "agrees"


@pytest.mark.parametrize(("c", "words"), [(2 / np.pi**0.5, "a constant in the derivative"), (1, "an identity (skip)")])
def test_a_skip_path_has_the_factor_one(c, words):
    subject = oracles.manual(lambda x: (np.sin(x) - c * x, x), lambda x, d: {"x": d * np.cos(x)})
    x = {"x": np.array([-1.0, 0, 0.5, 3])}
    found = refusal(subject, x, oracles.torch_autograd(lambda x: torch.sin(x) - c * x)).diagnosis
    assert f"the error is {c:.6g} × delta: {words}" in found


def test_a_bound_of_zero_clips_nothing():
    def backward(c, d):
        return {"x": d * (c[1] - 1) / c[0], "a": d * np.log(c[0]), "b": -d * c[0]}

    subject = oracles.manual(lambda x, a, b: ((a - 1) * np.log(x) - b * x, (x, a, b)), backward)
    primals = {"x": np.array([0.5, 1, 2]), "a": np.ones(3), "b": np.array([0.5, 1, 3])}
    reference = oracles.torch_autograd(lambda x, a, b: (a - 1) * x.log() - b * x)
    assert "clip" not in refusal(subject, primals, reference).diagnosis


@pytest.mark.parametrize("against", ["torch", "finite differences", "the subject"])
def test_the_printed_tolerance_is_that_of_the_ratio(against):
    """A radius of the oracle is in both numbers: |error| = ratio · tolerance."""
    A = {"A": np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9.5]])}
    subject = oracles.manual(lambda A: (np.linalg.det(A), A), lambda A, d: {"A": 0 * A})
    oracle = {"torch": [oracles.torch_autograd(torch.linalg.det)], "the subject": []}
    refused = refusal(subject, A, *oracle.get(against, [oracles.finite_difference(subject)]))
    finding = refused.result.worst
    error = abs(finding.evidence.subject - finding.evidence.oracles[finding.oracle])
    assert abs(finding.evidence.tolerance * finding.ratio - error) <= 1e-12 * error
    assert f"the tolerance here is {finding.evidence.tolerance:.2g}" in str(refused)


def test_vacuous_by_resolution_says_so_and_counts_such_entries_as_not_judged():
    """In float32 rounding moves the phase of sin(1e5 x) by about a tenth; in float64 the same is judged."""
    subject = oracles.manual(lambda x: (np.sin(1e5 * x), x), lambda x, d: {"x": d * 1e5 * np.cos(1e5 * x)})
    reference = [oracles.torch_autograd(lambda x: torch.sin(1e5 * x))]
    x = np.linspace(20, 21, 50)
    words = r"of x was judged: rounding in float32 may move its median entry by \d+ %"
    with pytest.warns(oracles.InconclusiveWarning, match=words):
        result = oracles.check(subject, {"x": x.astype(np.float32)}, reference)
    assert result.verdict == "vacuous"
    assert result.judged["x"][0] < 25
    assert "x: rounding in float32 may move its median entry" in str(result)
    right = oracles.check(subject, {"x": x}, reference)
    assert right.verdict == "agrees"
    assert right.judged["x"] == (50, 50)


def test_words_leave_open_which_side_approximates():
    """The reference is off by 3e-8 of its value; a second reference, or a gross error, tells whose fault it is."""
    subject = oracles.manual(lambda x: (np.sin(x), x), lambda x, d: {"x": d * np.cos(x)})
    x = {"x": np.linspace(0.1, 1, 5)}
    near = oracles.torch_autograd(lambda x: x.sin() * (1 + 3e-8 * (7 * x).cos()))
    assert "one approximates" in refusal(subject, x, near).diagnosis
    far = oracles.torch_autograd(lambda x: x.sin() * (1 + 0.1 * (7 * x).cos()))
    assert "look at the forward pass" in refusal(subject, x, far).diagnosis
    wrong = oracles.manual(
        lambda x: (np.sin(x) * (1 + 3e-8 * np.cos(7 * x)), x),
        lambda x, d: {"x": d * (np.cos(x) * (1 + 3e-8 * np.cos(7 * x)) - 21e-8 * np.sin(x) * np.sin(7 * x))},
    )
    both = oracles.torch_autograd(torch.sin), replace(oracles.torch_autograd(torch.sin), name="another")
    assert "look at the forward pass" in refusal(wrong, x, *both).diagnosis


def test_a_density_of_torch_that_approximates_convicts_nobody():
    special = pytest.importorskip("scipy.special")
    k = {"k": np.array([0.5, 2, 10])}
    subject = oracles.manual(
        lambda k: (k - np.log(2 * np.pi) - np.log(special.i0(k)), k),
        lambda k, d: {"k": d * (1 - special.i1(k) / special.i0(k))},
    )

    def density(k):
        return torch.distributions.VonMises(0 * k, k, validate_args=False).log_prob(0 * k)

    assert "or the reference" in refusal(subject, k, oracles.torch_autograd(density)).evidence.reason
    in_float32 = oracles.manual(
        lambda k: (np.sin(k), k), lambda k, d: {"k": (d * np.cos(k).astype(np.float32)).astype(np.float32) * 1.0}
    )
    cast = refusal(in_float32, {"k": np.linspace(0.1, 1, 8)}, oracles.torch_autograd(torch.sin))
    assert "or the reference" not in str(cast)


def test_a_diagnosis_takes_a_few_times_what_the_judgement_took(monkeypatch):
    """A forward of 0.02 s: the diagnosis ends with its budget, and says that it was cut short; in time it finds one."""
    monkeypatch.setattr("oracles.report.disagreement.LEAST_DIAGNOSIS_SECONDS", 0.0)

    def slow(x):
        time.sleep(0.02)
        return np.sin(x), x

    subject = oracles.manual(slow, lambda x, d: {"x": d * np.cos(x) * np.random.default_rng(3).random(x.shape)})
    x = {"x": np.random.default_rng(0).standard_normal((3, 4))}
    refused = refusal(subject, x, oracles.torch_autograd(torch.sin))
    assert 0 < refused.result.seconds < 60
    refused = oracles.Disagreement(replace(refused.result, seconds=0.01))
    began = time.monotonic()
    assert refused.diagnosis == "none was found within 0 s; then the experiments were cut short"
    assert time.monotonic() - began < 10
    factor = oracles.manual(slow, lambda x, d: {"x": 3 * d * np.cos(x)})
    assert (
        "every entry is 3 times"
        in oracles.Disagreement(
            replace(refusal(factor, x, oracles.torch_autograd(torch.sin)).result, seconds=30.0)
        ).diagnosis
    )


@pytest.mark.parametrize(
    ("notes", "fix"),
    [
        (("x: 0 of 4 entries measured by finite differences, out of time",), "give it more `seconds`"),
        (("not compared with itself in further calls, out of time",), "judge at another point"),
        ((), "judge at another point"),
    ],
)
def test_what_is_inconclusive_for_lack_of_time_asks_for_time(notes, fix):
    finding = Finding("x", "finite difference", oracles.Verdict.VACUOUS, judged=(0, 4), unbounded=True)
    assert f"Fix: {fix}" in str(oracles.Inconclusive(Result("f", "check", (finding,), notes=notes)))


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_formula_that_is_wrong_in_every_dtype_is_not_blamed_on_float16(everywhere):
    def backward(x, d):
        wrong = everywhere or x.dtype == np.float16
        return {"x": (d * np.cos(x) * (1.5 if wrong else 1)).astype(x.dtype)}

    subject = oracles.manual(lambda x: (np.sin(x), x), backward)
    reference = oracles.torch_autograd(torch.sin)
    case = Case(subject, {}, torch=torch.sin)
    point = Point({"x": np.random.default_rng(0).standard_normal((3, 4))}, np.ones((3, 4)), "float64")
    result = shapes_and_dtypes_exact(case, point, [reference])
    finding = next(f for f in result.findings if f.refuses and f.oracle == reference.name)
    assert ("in every dtype" in finding.evidence.reason) == everywhere
    assert ("in float16 it gives another value" in finding.evidence.reason) != everywhere


@pytest.mark.parametrize("n", [1, 4])
def test_one_entry_shows_no_pattern_of_ties(n):
    """Right control: among four entries, of which one is tied, the tie is the pattern."""
    subject = oracles.manual(
        lambda p, q: (p * q, (p, q)), lambda c, d: {"p": d * c[1] * np.where(c[0] == c[1], 3, 1), "q": d * c[0]}
    )
    primals = {"p": np.array([0.7, 1.5, -0.3, 2.0])[:n], "q": np.array([0.7, 0.2, 1.1, -1.0])[:n]}
    found = refusal(subject, primals, oracles.torch_autograd(lambda p, q: p * q)).diagnosis
    assert ("wrong only at ties" in found) == (n > 1)
