"""Diagnosis names the pattern of a bug, not that of a near miss, and finds no pattern in noise."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bugs_of_functions import BUGS as MORE_BUGS
from diagnosed_bugs import BUGS, CONV, DENSE, EMBED, LOSS, MAX, NORM, RELU, SOFTMAX, SPLIT, SQUARE, TANH
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from oracles import Rule, finite_difference, manual, torch_autograd
from oracles.diagnosis.diagnose import NO_PATTERN_FOUND, PATTERNS, diagnose
from oracles.diagnosis.diagnose import diagnosis_of as diagnosis_of_result
from oracles.diagnosis.experiments import Symptoms, agrees
from oracles.numerics import Numerics
from oracles.rule import as_tuple, with_dtype
from oracles.tolerance import named_outputs, tolerance_at


@pytest.fixture(autouse=True)
def patterns_may_not_raise(monkeypatch):
    """Let a pattern that raises fail the test; in use it is skipped."""
    monkeypatch.setattr("oracles.diagnosis.diagnose.result_or_none", lambda pattern: pattern())


def symptoms_at(subject, oracle, primals, delta, name, precision="float64"):
    """Evaluate both rules at a point, the subject in this precision, and return the symptoms."""
    y, pullback = subject(**with_dtype(primals, precision))
    actual = named_outputs(as_tuple(y), dict(pullback(with_dtype(delta, precision))))
    expected_y, expected_pullback = oracle(**primals)
    expected = named_outputs(as_tuple(expected_y), dict(expected_pullback(delta)))
    tolerances = tolerance_at([oracle], primals, delta, precision, fallback=subject).estimate(16)
    primal_agrees = all(agrees(actual[n], expected[n], tolerances[n]) for n in expected if n.startswith("output"))
    return Symptoms(
        name, actual.get(name), expected[name], tolerances[name], primals, delta, subject, oracle, primal_agrees,
        Numerics.of(precision),
    )  # fmt: skip


def with_wrong_entry(rule: Rule, name: str, where: Any = -1) -> Rule:
    """Return the subject with one entry of one cotangent off by a tenth of a delta."""

    def evaluate(**primals):
        y, pullback = rule(**primals)

        def spoiled_pullback(delta):
            cotangents = dict(pullback(delta))
            cotangents[name] = np.array(cotangents[name])
            cotangents[name].flat[where] += 0.1 * np.ravel(as_tuple(delta)[0])[0]
            return cotangents

        return y, spoiled_pullback

    return Rule(evaluate, rule.name)


IDS = [f"{i}-{d[0]}" for i, d in enumerate(BUGS)]


@pytest.mark.parametrize("bug", BUGS, ids=IDS)
def test_diagnosis_names_the_bugs_pattern(bug):
    pattern, words, layer, name, wrong, _ = bug
    diagnosis = diagnose(
        symptoms_at(layer.with_cotangents(**{name: wrong}), layer.oracle, layer.primals, layer.delta, name)
    )
    assert (diagnosis.pattern, words in str(diagnosis)) == (pattern, True), f"{diagnosis.pattern}: {diagnosis}"
    assert diagnosis
    assert "\n" not in str(diagnosis)


@pytest.mark.parametrize("bug", [d for d in BUGS if d[0] != "missing"], ids=IDS[:-1])
def test_near_miss_is_not_given_the_pattern(bug):
    pattern, words, layer, name, wrong, where = bug
    subject = with_wrong_entry(layer.with_cotangents(**{name: wrong}), name, where)
    diagnosis = diagnose(symptoms_at(subject, layer.oracle, layer.primals, layer.delta, name))
    assert not (diagnosis.pattern == pattern and words in str(diagnosis)), f"{diagnosis.pattern}: {diagnosis}"


@pytest.mark.slow
def test_sentences(snapshot):
    """The full sentence for every bug stands in the snapshot."""
    sentences = {}
    for label, (_, _, layer, name, wrong, _) in zip(IDS, BUGS, strict=True):
        symptoms = symptoms_at(layer.with_cotangents(**{name: wrong}), layer.oracle, layer.primals, layer.delta, name)
        sentences[label] = str(diagnose(symptoms))
    assert sentences == snapshot


def test_every_pattern_has_a_bug():
    alone = {"not_repeatable", "backward_of_own_forward", "zero_in_some"}
    alone |= {"layout", "uninitialised", "random", "gauge", "delta_sign", "delta_squared", "delta_summed"}
    alone |= {"cut_graph"}  # of the second order: tests/derivatives
    # In activations of the subject's own forward: planted_bugs/pairs_student.py
    alone |= {"derivative_at_output", "formula_at_input", "derivative_twice", "sign_inside"}
    assert {d[0] for d in (*BUGS, *MORE_BUGS)} | alone | {"delta_sign", "delta_squared", "delta_summed"} == {
        n for n, _ in PATTERNS
    }


LAYERS = {
    "dense": (DENSE, "W"),
    "conv": (CONV, "x"),
    "softmax": (SOFTMAX, "z"),
    "norm": (NORM, "z"),
    "embedding": (EMBED, "E"),
    "max": (MAX, "z"),
    "relu": (RELU, "z"),
    "loss": (LOSS, "z"),
    "tuple": (SPLIT, "z"),
}


def diagnosis_of(layer, wrong, name, precision="float64", oracle=None):
    """Diagnose a layer whose cotangent ``name`` is replaced."""
    subject = layer.with_cotangents(**{name: wrong})
    return diagnose(symptoms_at(subject, oracle or layer.oracle, layer.primals, layer.delta, name, precision))


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_correct_layers_have_no_diagnosis(which, precision):
    layer, name = LAYERS[which]
    diagnosis = diagnosis_of(layer, lambda c, d, g: g, name, precision)
    assert diagnosis == NO_PATTERN_FOUND
    assert not diagnosis


@pytest.mark.deep
@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(st.sampled_from(sorted(LAYERS)), st.integers(0, 2**32 - 1), st.booleans())
def test_noise_has_no_diagnosis(which, seed, linear):
    """Random errors of any size, the same for every delta or linear in delta, have no pattern."""

    def noisy(c, d, g):
        rng = np.random.default_rng(seed)
        size = 10.0 ** rng.uniform(-6, 0) * (np.sum(as_tuple(d)[0]) if linear else 1.0)
        return g + size * rng.standard_normal(g.shape)

    layer, name = LAYERS[which]
    assert diagnosis_of(layer, noisy, name) == NO_PATTERN_FOUND


@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        ("delta_sign", lambda c, d, g: np.sign(d) @ c[1].T),
        ("delta_squared", lambda c, d, g: d**2 @ c[1].T),
        ("delta_summed", lambda c, d, g: np.full_like(d, d.mean()) @ c[1].T),
        ("constant_factor", lambda c, d, g: -4 * g),
    ],
)
def test_other_deltas(pattern, wrong):
    assert diagnosis_of(DENSE, wrong, "z").pattern == pattern
    assert diagnosis_of(DENSE, lambda c, d, g: wrong(c, d, g) + 1e-6 * g**2, "z").pattern != pattern


def test_factor_near_the_number_of_rows_is_not_named_so():
    diagnosis = diagnosis_of(DENSE, lambda c, d, g: 1.0001 * 4 * g, "W")
    assert diagnosis.pattern == "constant_factor"
    assert "4.0004" in str(diagnosis)
    assert "number of rows" not in str(diagnosis)


def test_zeros_without_a_common_location():
    def below(c, d, g):
        return np.where(np.abs(g) < np.median(np.abs(g)), 0, g)

    assert diagnosis_of(DENSE, below, "W").pattern == "zero_in_some"
    assert diagnosis_of(DENSE, lambda c, d, g: 0.9 * below(c, d, g), "W").pattern != "zero_in_some"


def test_float32_knows_factors_too_and_is_not_called_float16():
    assert diagnosis_of(DENSE, lambda c, d, g: g * 4, "W", "float32").pattern == "constant_factor"
    assert not diagnosis_of(DENSE, lambda c, d, g: g * (1 + 1e-4 * np.cos(c[1])), "W", "float32")


def test_a_wrong_forward_with_its_own_backward():
    doubled = manual(lambda z: (np.tanh(2 * z), z), lambda z, d: {"z": 2 * d / np.cosh(2 * z) ** 2})
    apart = manual(lambda z: (np.tanh(2 * z), z), lambda z, d: {"z": d / np.cosh(2 * z) ** 2})
    diagnoses = [diagnose(symptoms_at(s, TANH.oracle, TANH.primals, TANH.delta, "z")) for s in (doubled, apart)]
    assert [d.pattern for d in diagnoses] == ["backward_of_own_forward", ""]


def test_the_output_itself_is_diagnosed():
    for factor, pattern in ((2.0, "constant_factor"), (np.linspace(1, 2, 12).reshape(3, 4), "")):
        subject = manual(lambda z, k=factor: (k * np.tanh(z), z), lambda z, d: {"z": d})
        assert diagnose(symptoms_at(subject, TANH.oracle, TANH.primals, TANH.delta, "output")).pattern == pattern


def test_delta_read_in_memory_order():
    read = SQUARE.with_cotangents(z=lambda c, d, g: d.ravel(order="K").reshape(d.shape) @ c[1].T)
    with_strides = symptoms_at(read, SQUARE.oracle, SQUARE.primals, np.asfortranarray(SQUARE.delta), "z")
    diagnosis = diagnose(with_strides)
    assert (diagnosis.pattern, "ignores the strides" in str(diagnosis)) == ("layout", True)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_not_called_a_misread_layout(seed):
    rng = np.random.default_rng(seed)
    noisy = TANH.with_cotangents(z=lambda c, d, g: g * (1 + 0.1 * rng.standard_normal(g.shape)))
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(noisy, TANH.primals, [TANH.oracle])
    assert diagnosis_of_result(refused.value.result).pattern in ("not_repeatable", "random", "")


def test_state_between_calls():
    calls = []

    def forward(z):
        calls.append(z)
        return np.tanh(z), len(calls)

    subject = manual(forward, lambda k, d: {"z": k * d})
    diagnosis = diagnose(symptoms_at(subject, TANH.oracle, TANH.primals, TANH.delta, "z"))
    assert diagnosis.pattern == "not_repeatable"


def test_a_subject_that_crashes_in_experiments_is_not_diagnosed():
    calls = []

    def backward(cache, delta):
        calls.append(delta)
        if len(calls) > 1:
            raise RuntimeError("only once")
        return {"z": -delta * (1 - cache**2)}

    diagnosis = diagnose(
        symptoms_at(manual(lambda z: (np.tanh(z),) * 2, backward), TANH.oracle, TANH.primals, TANH.delta, "z")
    )
    assert diagnosis == NO_PATTERN_FOUND


def test_finite_differences_serve_as_the_oracle():
    subject = manual(lambda z: (np.tanh(z), z), lambda z, d: {"z": 3 * d / np.cosh(z) ** 2})
    symptoms = symptoms_at(subject, TANH.oracle, TANH.primals, TANH.delta, "z")
    diagnosis = diagnose(replace(symptoms, oracle=finite_difference(subject)))
    assert diagnosis.pattern == "constant_factor"


def test_a_single_entry_is_confirmed_at_other_primals():
    one = {"z": np.array([[0.5]])}
    rule = [
        manual(lambda z: (np.tanh(z),) * 2, lambda y, d, k=k: {"z": k(y) * d})
        for k in (lambda y: 2 - 2 * y * y, np.exp)
    ]
    diagnoses = [diagnose(symptoms_at(r, TANH.oracle, one, np.array([[0.75]]), "z")) for r in rule]
    assert [d.pattern for d in diagnoses] == ["constant_factor", ""]


def test_diagnosis_calls_the_subject_at_most_30_times():
    calls = []

    def backward(c, d, g):
        calls.append(None)
        return g * (1 + c * d)

    symptoms = symptoms_at(SOFTMAX.with_cotangents(z=backward), SOFTMAX.oracle, SOFTMAX.primals, SOFTMAX.delta, "z")
    assert not diagnose(symptoms)
    assert len(calls) <= 30


def negative(layer):
    return replace(layer, primals={"z": -np.abs(layer.primals["z"]) - 0.1})


def same_noise(*arrays):
    """Draw numbers that the bits of arrays determine."""
    return np.random.default_rng([b for a in arrays for b in np.asarray(a).tobytes()]).standard_normal(arrays[0].shape)


def only_at_this_point(c, d, g):
    return 2 * g if c[0, 0] == np.tanh(TANH.primals["z"])[0, 0] else g * (1 + np.cos(7 * c))


def float32_for_float64(c, d, g):
    return (d.astype(np.float32) * (1 - c**2).astype(np.float32)) * np.float32(1 + 1e-3)


@pytest.mark.parametrize(
    ("layer", "wrong", "told", "never"),
    [
        (TANH, float32_for_float64, {""}, ""),
        (TANH, lambda c, d, g: np.where(c > 0.5, np.nan, g), {"", "saturated"}, ""),
        (negative(TANH), lambda c, d, g: g * (1 + 0.1 * np.cos(9 * c)), {""}, "negative"),
        (TANH, lambda c, d, g: g * (1 + 1e-7), {"", "coarse_rounding"}, ""),
        (TANH, lambda c, d, g: g * (1 + 2e-8 * same_noise(c, d)), {""}, ""),
        (TANH, lambda c, d, g: g * (1 + 2e-8 * np.cos(c)), {""}, ""),
        (TANH, lambda c, d, g: g * np.sum(c * c), {"constant_factor"}, "extent"),
        (TANH, only_at_this_point, {""}, ""),
        (TANH, lambda c, d, g: g * 4, {"constant_factor"}, "extent"),
    ],
)
def test_what_is_not_confirmed_is_not_told(layer, wrong, told, never):
    diagnosis = diagnosis_of(layer, wrong, "z")
    assert diagnosis.pattern in told, diagnosis
    assert not never or never not in str(diagnosis)


def test_a_factor_that_cannot_be_tried_in_another_shape_is_told_as_a_number():
    def forward(z):
        if z.shape != (3, 4):
            raise ValueError("z: expected shape (3, 4)")
        return np.tanh(z), np.tanh(z)

    subject = manual(forward, lambda y, d: {"z": 3 * d * (1 - y * y)})
    diagnosis = diagnose(symptoms_at(subject, TANH.oracle, TANH.primals, TANH.delta, "z"))
    assert str(diagnosis) == "every entry is 3 times the oracle's"


def test_errors_move_with_the_sign():
    for layer, pattern in ((RELU, "signs"), (negative(TANH), "signs")):
        diagnosis = diagnosis_of(layer, lambda c, d, g: np.where(c < 0, g + 0.1 * d, g), "z")
        assert (diagnosis.pattern, "negative" in str(diagnosis)) == (pattern, True)


@pytest.mark.parametrize("z", [[-30.0, -35.0, -20.0, -3.0, 1.0], [-30.0], [-16.0, 20.0, -17.0, 1.0]])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_lost_digits_are_no_added_term_and_zeros_do_not_ignore_delta(z, dtype):
    """The derivative of elu, written as y + 1 with y = exp(z) - 1, loses the digits of exp(z), down to zero."""
    torch = pytest.importorskip("torch")

    def forward(z):
        return np.where(z > 0, z, np.expm1(np.minimum(z, 0))), z

    def rounded(z, delta):
        return {"z": delta * np.where(z > 0, 1, (np.exp(np.minimum(z, 0)) - 1) + 1)}

    reference = torch_autograd(lambda z: torch.nn.functional.elu(z))
    with pytest.raises(oracles.Disagreement) as refusal:
        oracles.check(manual(forward, rounded), {"z": np.array(z, dtype)}, [reference])
    pattern = diagnosis_of_result(refusal.value.result).pattern
    assert pattern not in ("added_primal", "added_array", "added_constant", "delta_ignored")
