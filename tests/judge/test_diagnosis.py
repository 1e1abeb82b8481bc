"""Diagnosis names planted defects, keeps silent where one entry more is off, and finds nothing in noise."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from defects import CONV, DEFECTS, DENSE, EMBED, LOSS, MAX, NORM, RELU, SOFTMAX, SPLIT, SQUARE, TANH
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import Rule, finite_difference, manual
from oracles.diagnosis import naming
from oracles.diagnosis.naming import PATTERNS, Symptoms, diagnose
from oracles.rule import as_tuple, with_dtype
from oracles.tolerance import named_outputs, tolerance_at


@pytest.fixture(autouse=True)
def patterns_may_not_raise(monkeypatch):
    """In use a pattern that raises is passed over; here it fails the test."""
    monkeypatch.setattr(naming, "_tried", lambda pattern, s: pattern(s))


def symptoms(subject, oracle, primals, delta, name, precision="float64"):
    """Evaluate both rules at a point, the subject in the precision given, and gather what diagnosis goes by."""
    y, pullback = subject(**with_dtype(primals, precision))
    got = named_outputs(as_tuple(y), dict(pullback(with_dtype(delta, precision))))
    expected_y, expected_pullback = oracle(**primals)
    want = named_outputs(as_tuple(expected_y), dict(expected_pullback(delta)))
    allowed = tolerance_at([oracle], primals, delta, precision, fallback=subject).estimate(16)
    agrees = all(
        np.shape(got[n]) == want[n].shape and bool(np.all(np.abs(got[n] - want[n]) <= allowed[n]))
        for n in want
        if n.startswith("output")
    )
    return Symptoms(name, got.get(name), want[name], allowed[name], primals, delta, subject, oracle, agrees, precision)


def spoiled(rule: Rule, name: str, where: Any = -1) -> Rule:
    """The same subject with one entry of one cotangent off by a tenth of a delta."""

    def evaluate(**primals):
        y, pullback = rule(**primals)

        def other(delta):
            found = dict(pullback(delta))
            found[name] = np.array(found[name])
            found[name].flat[where] += 0.1 * np.ravel(as_tuple(delta)[0])[0]
            return found

        return y, other

    return Rule(evaluate, rule.name)


IDS = [f"{i}-{d[0]}" for i, d in enumerate(DEFECTS)]


@pytest.mark.parametrize("defect", DEFECTS, ids=IDS)
def test_planted_defect_is_named(defect):
    pattern, words, made, name, wrong, _ = defect
    found = diagnose(symptoms(made.but(**{name: wrong}), made.oracle, made.primals, made.delta, name))
    assert (found.pattern, words in str(found)) == (pattern, True), f"{found.pattern}: {found}"
    assert found
    assert "\n" not in str(found)


@pytest.mark.parametrize("defect", [d for d in DEFECTS if d[0] != "missing"], ids=IDS[:-1])
def test_near_miss_is_not_named(defect):
    pattern, words, made, name, wrong, where = defect
    subject = spoiled(made.but(**{name: wrong}), name, where)
    found = diagnose(symptoms(subject, made.oracle, made.primals, made.delta, name))
    assert not (found.pattern == pattern and words in str(found)), f"{found.pattern}: {found}"


def test_every_pattern_is_planted():
    alone = {"not_repeatable", "backward_of_own_forward", "zero_in_some"}
    assert {d[0] for d in DEFECTS} | alone | {"delta_sign", "delta_squared", "delta_summed"} == {n for n, _ in PATTERNS}


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


def diagnosed(made, wrong, name, precision="float64", oracle=None):
    """Diagnose a layer whose cotangent ``name`` is replaced."""
    subject = made.but(**{name: wrong})
    return diagnose(symptoms(subject, oracle or made.oracle, made.primals, made.delta, name, precision))


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_right_layers_have_no_diagnosis(which, precision):
    made, name = LAYERS[which]
    found = diagnosed(made, lambda c, d, g: g, name, precision)
    assert (bool(found), str(found)) == (False, "no pattern found")


@pytest.mark.deep
@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(st.sampled_from(sorted(LAYERS)), st.integers(0, 2**32 - 1), st.booleans())
def test_noise_has_no_diagnosis(which, seed, linear):
    """Errors of any size, the same for every delta or linear in delta: not one of them has a pattern."""

    def noisy(c, d, g):
        rng = np.random.default_rng(seed)
        size = 10.0 ** rng.uniform(-6, 0) * (np.sum(as_tuple(d)[0]) if linear else 1.0)
        return g + size * rng.standard_normal(g.shape)

    made, name = LAYERS[which]
    assert str(diagnosed(made, noisy, name)) == "no pattern found"


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
    assert diagnosed(DENSE, wrong, "z").pattern == pattern
    assert diagnosed(DENSE, lambda c, d, g: wrong(c, d, g) + 1e-6 * g**2, "z").pattern != pattern


def test_a_factor_near_the_number_of_rows_is_not_called_that():
    found = diagnosed(DENSE, lambda c, d, g: 1.0001 * 4 * g, "W")
    assert str(found) == "every entry is 4.0004 times the oracle's"


def test_zeros_without_a_place():
    def below(c, d, g):
        return np.where(np.abs(g) < np.median(np.abs(g)), 0, g)

    assert diagnosed(DENSE, below, "W").pattern == "zero_in_some"
    assert diagnosed(DENSE, lambda c, d, g: 0.9 * below(c, d, g), "W").pattern != "zero_in_some"


def test_float32_knows_factors_too_and_is_not_called_float16():
    assert diagnosed(DENSE, lambda c, d, g: g * 4, "W", "float32").pattern == "constant_factor"
    assert not diagnosed(DENSE, lambda c, d, g: g * (1 + 1e-4 * np.cos(c[1])), "W", "float32")


def test_a_wrong_forward_with_its_own_backward():
    doubled = manual(lambda z: (np.tanh(2 * z), z), lambda z, d: {"z": 2 * d / np.cosh(2 * z) ** 2})
    apart = manual(lambda z: (np.tanh(2 * z), z), lambda z, d: {"z": d / np.cosh(2 * z) ** 2})
    found = [diagnose(symptoms(s, TANH.oracle, TANH.primals, TANH.delta, "z")) for s in (doubled, apart)]
    assert [f.pattern for f in found] == ["backward_of_own_forward", ""]


def test_the_output_itself_is_diagnosed():
    for factor, pattern in ((2.0, "constant_factor"), (np.linspace(1, 2, 12).reshape(3, 4), "")):
        subject = manual(lambda z, k=factor: (k * np.tanh(z), z), lambda z, d: {"z": d})
        assert diagnose(symptoms(subject, TANH.oracle, TANH.primals, TANH.delta, "output")).pattern == pattern


def test_delta_read_in_memory_order():
    read = SQUARE.but(z=lambda c, d, g: d.ravel(order="K").reshape(d.shape) @ c[1].T)
    with_strides = symptoms(read, SQUARE.oracle, SQUARE.primals, np.asfortranarray(SQUARE.delta), "z")
    found = diagnose(with_strides)
    assert (found.pattern, "memory order" in str(found)) == ("not_repeatable", True)


def test_state_between_calls():
    calls = []

    def forward(z):
        calls.append(z)
        return np.tanh(z), len(calls)

    subject = manual(forward, lambda k, d: {"z": k * d})
    found = diagnose(symptoms(subject, TANH.oracle, TANH.primals, TANH.delta, "z"))
    assert found.pattern == "not_repeatable"


def test_a_subject_that_crashes_in_experiments_is_not_diagnosed():
    calls = []

    def backward(cache, delta):
        calls.append(delta)
        if len(calls) > 1:
            raise RuntimeError("only once")
        return {"z": -delta * (1 - cache**2)}

    found = diagnose(
        symptoms(manual(lambda z: (np.tanh(z),) * 2, backward), TANH.oracle, TANH.primals, TANH.delta, "z")
    )
    assert str(found) == "no pattern found"


def test_finite_differences_will_do_as_the_oracle():
    subject = manual(lambda z: (np.tanh(z), z), lambda z, d: {"z": 3 * d / np.cosh(z) ** 2})
    first = symptoms(subject, TANH.oracle, TANH.primals, TANH.delta, "z")
    found = diagnose(replace(first, oracle=finite_difference(subject)))
    assert found.pattern == "constant_factor"


def test_a_single_entry_is_confirmed_at_other_primals():
    one = {"z": np.array([[0.5]])}
    rule = [
        manual(lambda z: (np.tanh(z),) * 2, lambda y, d, k=k: {"z": k(y) * d})
        for k in (lambda y: 2 - 2 * y * y, np.exp)
    ]
    found = [diagnose(symptoms(r, TANH.oracle, one, np.array([[0.75]]), "z")) for r in rule]
    assert [f.pattern for f in found] == ["constant_factor", ""]


def test_it_calls_the_subject_a_few_times():
    calls = []

    def backward(c, d, g):
        calls.append(None)
        return g * (1 + c * d)

    made = symptoms(SOFTMAX.but(z=backward), SOFTMAX.oracle, SOFTMAX.primals, SOFTMAX.delta, "z")
    assert not diagnose(made)
    assert len(calls) <= 30
