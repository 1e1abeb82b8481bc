"""Answers that change, depend on the layout of memory, or are never written: what `check` and a search report."""

import random

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import oracles
from oracles import Case, Disagreement, Verdict
from oracles.backends.arrays import copied
from oracles.evaluations import Memory, on_copies, remembered, same_values
from oracles.layouts import expanded, padded, repeated_rows, transposed
from oracles.nondeterminism import RANDOM, STATE, UNWRITTEN, cause_of_change
from oracles.search import run_search
from oracles.strategies import real

Z = np.random.default_rng(3).standard_normal((4, 3))
TORCH = oracles.torch_autograd(lambda z: z * z)


def square(backward=lambda z, delta: {"z": 2 * z * delta}, **options):
    return oracles.manual(lambda z: (z * z, z), backward, **options)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64"])
@pytest.mark.parametrize("layout", [padded, transposed, expanded, repeated_rows, np.flip, lambda a: a[::-2]])
def test_a_copy_has_the_values_and_strides(layout, dtype):
    array = layout((4 * Z).astype(dtype))
    copy = copied(array)
    assert copy.strides == array.strides
    assert copy.flags.writeable
    assert not np.shares_memory(copy, array)
    assert np.array_equal(copy, array)


def test_layouts_have_their_strides():
    assert padded(Z).strides == (32, 8)
    assert padded(Z[0]).strides == (16,)
    assert transposed(Z).strides == (8, 32)
    assert expanded(Z).strides == (0, 0)
    assert repeated_rows(Z).strides == (0, 8)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_strides_reach_the_subject_unchanged(kind):
    seen = []

    def backward(z, delta):
        seen.append(tuple(delta.stride()) if kind == "torch" else tuple(s // delta.itemsize for s in delta.strides))
        return {"z": 2 * z * delta}

    given = np.broadcast_to(np.ones(3), (4, 3))
    oracles.check(square(backward, arrays=kind), {"z": Z}, against=[TORCH], delta=given)
    assert {(0, 1), (0, 0), (4, 1), (3, 1)} <= set(seen)


def test_a_right_subject_is_called_a_bounded_number_of_times():
    calls = {"forward": 0, "backward": 0}

    def forward(a, b):
        calls["forward"] += 1
        return a * b, (a, b)

    def backward(cache, delta):
        calls["backward"] += 1
        return {"a": cache[1] * delta, "b": cache[0] * delta}

    # Code for one dtype is evaluated on plain arrays alone, so every call here is one of the judge's own.
    subject = oracles.manual(forward, backward, dtypes=("float64",))
    against = [oracles.torch_autograd(lambda a, b: a * b)]
    assert oracles.check(subject, {"a": Z, "b": Z + 1}, against=against).verdict is Verdict.AGREES
    assert calls["forward"] <= 15
    assert calls["backward"] <= 17


@pytest.mark.parametrize(
    ("actual", "expected", "same"),
    [
        (np.array([np.nan, 1.0]), np.array([-np.nan, 1.0]), True),
        (np.array([np.inf]), np.array([np.inf]), True),
        (np.array([0.0]), np.array([-0.0]), False),
        (np.array([1.0, 2.0]), np.array([1.0, 2.0000000000000004]), False),
        (np.array([1.0]), np.array([1.0], np.float32), False),
        (np.array([1.0, 2.0], np.longdouble), np.array([1.0, 2.0], np.longdouble), True),
        (np.array([1, 2]), np.array([1, 3]), False),
    ],
)
def test_same_values(actual, expected, same):
    assert same_values(actual, expected) is same


def test_padding_of_long_doubles_does_not_count():
    point = {"z": np.arange(1, 5, dtype=np.longdouble)}
    assert oracles.check(square(), point).verdict is Verdict.AGREES


def test_nan_is_no_state():
    subject = oracles.manual(lambda z: (np.sqrt(z), z), lambda z, delta: {"z": delta / (2 * np.sqrt(z))})
    with np.errstate(invalid="ignore"):
        result = oracles.check(subject, {"z": np.array([-1.0, 4.0])}, against=[oracles.torch_autograd(torch.sqrt)])
    assert result.verdict is Verdict.AGREES
    assert result.judged["z"] == (1, 2)


def unwritten(z, delta):
    dz = np.empty_like(z)
    dz[1:] = 2 * z[1:] * delta[1:]
    return {"z": dz}


def counted():
    calls = []

    def backward(z, delta):
        calls.append(1)
        return {"z": 2 * z * delta * (1 + (len(calls) > 1))}

    return square(backward)


@pytest.mark.parametrize(
    ("subject", "kind", "name"),
    [
        (square(lambda z, d: {"z": z * d * np.random.random(z.shape)}), RANDOM, "numpy.random"),  # noqa: NPY002
        (square(lambda z, d: {"z": z * d * random.random()}), RANDOM, "random"),
        (square(lambda z, d: {"z": z * d * torch.rand(z.shape)}, arrays="torch"), RANDOM, "torch"),
        (square(unwritten), UNWRITTEN, "np.empty"),
        (square(lambda z, d: {"z": z * d * np.random.default_rng().random()}), STATE, "every call"),
        (counted(), STATE, "state"),
    ],
)
def test_the_cause_of_a_change_is_named(subject, kind, name):
    cause = cause_of_change(on_copies(subject), {"z": Z}, Z, "z")
    assert cause.kind == kind
    assert name in cause.reason


def test_global_generators_are_left_as_they_were():
    subject = square(lambda z, d: {"z": z * d * random.random()})
    before = random.getstate(), torch.get_rng_state()
    cause_of_change(on_copies(subject), {"z": Z}, Z, "z")
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_memory_notices_two_answers_and_keeps_both():
    memory = Memory()
    subject = remembered(counted(), memory)
    for _ in range(2):
        subject(z=Z)[1](Z)
    found = memory.contradictions["z"]
    assert found.calls == (1, 2)
    assert np.array_equal(2 * found.first, found.second)


def squares(subject):
    return st.builds(lambda n, m: Case(subject, {"z": real(n, m)}, torch=lambda z: z * z), *[st.integers(1, 4)] * 2)


@pytest.mark.parametrize("number", [1, 2, 9, 30])
@pytest.mark.parametrize("raises", [False, True])
def test_a_search_reports_both_answers_of_one_wrong_call(number, raises):
    calls = []

    def backward(z, delta):
        calls.append(1)
        if len(calls) == number and raises:
            raise ValueError("once")
        return {"z": 2 * z * delta * (4 if len(calls) == number else 1)}

    with pytest.raises(Disagreement) as excinfo:
        run_search(
            squares(square(backward)), "cotangents_agree", "float64", against=("torch",), max_examples=40, seed=1
        )
    assert excinfo.value.verdict is Verdict.WRONG
    assert "not deterministic" in str(excinfo.value)
    if not raises:
        (earlier,) = excinfo.value.evidence.oracles.values()
        assert excinfo.value.evidence.subject * 4 == earlier


@pytest.mark.deep
def test_a_search_reports_an_answer_that_is_wrong_once_in_1009_calls():
    calls = []

    def backward(z, delta):
        calls.append(1)
        return {"z": 2 * z * delta * (1 + (len(calls) % 1009 == 0))}

    with pytest.raises(Disagreement, match="not deterministic"):
        run_search(
            squares(square(backward)), "cotangents_agree", "float64", against=["torch"], max_examples=1200, seed=1
        )


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("subject", [square(arrays="torch"), oracles.torch_module(lambda: Squared())])
def test_no_grad_around_the_call_changes_nothing(context, subject):
    with context():
        assert oracles.check(subject, {"z": torch.ones(3)}, against=[TORCH]).verdict is Verdict.AGREES
        with pytest.raises(Disagreement):
            oracles.check(square(lambda z, d: {"z": z * d}, arrays="torch"), {"z": torch.ones(3)}, against=[TORCH])


class Squared(torch.nn.Module):
    def forward(self, z):
        return z * z
