"""Patterns of calls, functions, terms, indices, symmetry and blocks: each names its bug, and no near miss."""

import numpy as np
import pytest
import torch
from bugs_of_functions import BUGS
from diagnosed_bugs import TANH
from test_diagnosis import patterns_may_not_raise, symptoms_at, with_wrong_entry

from oracles import manual, torch_autograd, torch_function
from oracles.diagnosis.diagnose import diagnose

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
