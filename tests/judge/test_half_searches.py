"""Searches in half precision: what is drawn, what is judged, and what is skipped since a subject does not take it."""

import argparse

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import oracles
from oracles import Case, Verdict, manual
from oracles.cli.parser import parse
from oracles.constants import LARGEST_IN_FLOAT16
from oracles.missing import NotTaken
from oracles.options import ALL_DTYPES, HALF_NAMES, block_sizes, dtypes_of
from oracles.properties import PROPERTIES, additive_in_delta, batch_is_a_sum
from oracles.search import Search, run_search
from oracles.self_consistency import compare_values
from oracles.strategies import Point, point_at, real, regimes, rows, widths

DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def test_names_of_dtypes_are_joined_and_all_stands_for_all():
    assert dtypes_of("float16, bfloat16") == HALF_NAMES
    assert dtypes_of("all") == dtypes_of("float64,all") == ALL_DTYPES
    assert parse(["verify", "--dtype", "float16", "--dtype", "bfloat16,float32"]).dtype == [*HALF_NAMES, "float32"]
    with pytest.raises(argparse.ArgumentTypeError, match="did you mean bfloat16"):
        dtypes_of("bflaot16")


def test_sizes_of_blocks_are_whole_numbers():
    assert block_sizes("128,64") == (64, 128)
    for text in ("64,", "1", "x", "64.5"):
        with pytest.raises(argparse.ArgumentTypeError):
            block_sizes(text)


def square(seen=None, factor=1.0):
    def forward(z):
        if seen is not None:
            seen.append(z)
        wide = z.astype(np.float32)
        return (wide * wide).astype(z.dtype), z

    def backward(z, delta):
        return {"z": (2 * factor * z.astype(np.float32) * delta.astype(np.float32)).astype(z.dtype)}

    return manual(forward, backward, name="square")


def of(subject, **references):
    @st.composite
    def cases(draw):
        primals = {"z": real(draw(rows()), draw(widths()))}
        return Case(subject, primals, **(references or {"torch": lambda z: z * z, "jax": lambda z: z * z}))

    return cases()


@pytest.mark.parametrize("dtype", HALF_NAMES)
def test_values_are_compared_in_half_precision(dtype):
    seen = []
    tally = run_search(of(square(seen)), "cotangents_agree", dtype, max_examples=20, seed=0)
    assert {name: tally.verdicts[name] for name in ("torch", "jax")} == dict.fromkeys(("torch", "jax"), Verdict.AGREES)
    assert np.dtype(DTYPES[dtype]) in {z.dtype for z in seen}
    assert tally.coverage.magnitudes[1] > 0  # what is drawn is counted
    with pytest.raises(oracles.Disagreement) as refused:
        run_search(of(square(factor=1.2)), "cotangents_agree", dtype, max_examples=20, seed=0)
    assert refused.value.verdict is Verdict.WRONG
    assert refused.value.result.setting.precision == dtype


def test_most_magnitudes_of_float16_neither_overflow_nor_vanish_and_some_do():
    magnitudes = {magnitude for _, magnitude, _ in regimes("float16").elements}  # those of a sampled_from
    inside = {m for m in magnitudes if 2.0**-4 <= m <= LARGEST_IN_FLOAT16}
    assert max(magnitudes) ** 2 > 65504  # the largest number of float16
    assert min(magnitudes) ** 2 < 2.0**-24  # the smallest one
    assert len(inside) == 3
    for dtype in HALF_NAMES:
        points = [point_at(square(), {"z": real(4, 8)}, dtype, seed=seed, special=True) for seed in range(300)]
        arrays = [np.asarray(a, np.float64) for p in points for a in (p.primals["z"], p.delta)]
        assert all(np.isfinite(a).all() for a in arrays)
        assert {a.dtype for p in points for a in (p.primals["z"], p.delta)} == {np.dtype(DTYPES[dtype])}
        zeros = [p for p in points if not np.asarray(p.delta, np.float64).any()]
        assert not zeros


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize("dtype", HALF_NAMES)
def test_every_property_holds_in_half_precision(name, dtype):
    cases = of(square()).map(lambda case: Case(case.subject, case.primals, case.torch, batched=("z",)))
    points = run_search(cases, name, dtype, max_examples=12, seed=0).points
    # Code for 16 bits computes in float32 whatever it is fed with: its differences have no digits.
    assert points == 0 if name == "adjoint_of_own_primal" else points > 0


@pytest.mark.filterwarnings("error")
def test_an_overflow_that_the_references_have_too_is_no_refusal():
    def backward(z, delta):  # in the order in which torch multiplies: 3 z² overflows where it does not
        return {"z": delta * (z * z) + (delta * z) * z + (delta * z) * z}

    cube = manual(lambda z: (z * z * z, z), backward, name="cube")
    cases = of(cube, torch=lambda z: z * z * z)
    for name in ("primal_agrees", "cotangents_agree", "additive_in_delta"):
        assert run_search(cases, name, "float16", seed=0).points


def taking(*dtypes, error=None):
    def forward(z):
        if z.dtype.name not in dtypes:
            raise error or TypeError("expected another dtype")
        return square()(z=z)[0], z

    return manual(forward, lambda z, delta: square()(z=z)[1](delta), name="choosy")


@pytest.mark.parametrize("error", [TypeError("x"), NotImplementedError("y"), RuntimeError("'mul' for 'Half'")])
def test_a_dtype_that_a_subject_does_not_take_is_skipped(error):
    search = Search(of(taking("float64", "float32", error=error)), "cotangents_agree", "float16", "choosy")
    found = search.attempt()
    assert isinstance(found, NotTaken)
    assert found.missing[0].dtype == "float16"
    assert str(error) in str(found)
    assert search.tally.verdicts == {}


def test_a_subject_of_half_precision_alone_is_searched():
    cases = of(taking(*HALF_NAMES))
    for name in ("adjoint_of_own_primal", "cotangents_agree", "shapes_and_dtypes_exact"):
        assert Search(cases, name, "bfloat16", "choosy", max_examples=12).attempt() is None


@pytest.mark.parametrize("error", [TypeError("x"), ZeroDivisionError("y")])
def test_what_fails_in_every_dtype_is_wrong(error):
    search = Search(of(taking(error=error)), "cotangents_agree", "bfloat16", "choosy")
    assert search.attempt() is error
    assert set(search.tally.verdicts.values()) == {Verdict.WRONG}
    of_value = Search(of(taking("float64", error=ZeroDivisionError("y"))), "cotangents_agree", "bfloat16", "choosy")
    assert isinstance(of_value.attempt(), ZeroDivisionError)  # it does not speak of a dtype


def test_torch_subjects_are_searched_in_half_precision():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z * z

        @staticmethod
        def backward(ctx, delta):
            return 2 * delta * ctx.saved_tensors[0]

    for dtype in HALF_NAMES:
        assert run_search(of(oracles.torch_function(Square)), "cotangents_agree", dtype, max_examples=12, seed=0).points


# --- What overflows where a subject is compared with itself ---


def within(tolerance):
    return lambda name, samples: np.asarray(tolerance)


@pytest.mark.parametrize(
    ("actual", "expected", "tolerance", "refuses"),
    [
        (np.inf, 70000.0, 10.0, False),
        (np.inf, 65500.0, 10.0, False),
        (-np.inf, 70000.0, 10.0, True),
        (np.inf, 65000.0, 10.0, True),
        (65504.0, np.inf, 10.0, False),
        (np.nan, 3.0, 70000.0, False),
        (np.nan, 3.0, 1.0, True),
        (np.inf, 3.0, 1.0, True),
    ],
)
def test_an_infinity_stands_for_what_is_beyond_the_dtype(actual, expected, tolerance, refuses):
    result = compare_values("z", np.array([actual], np.float16), np.array([expected]), within([tolerance]), "")
    assert result.refuses is refuses


def test_infinite_terms_say_nothing_of_their_sum():
    scale = manual(lambda z: (z, None), lambda _, delta: {"z": delta * delta.dtype.type(256)}, name="256 δ")
    case = Case(scale, {"z": real(2, 2)}, torch=lambda z: 256 * z, batched=("z",))
    delta = np.array([[300.0, 1.0], [2.0, -300.0]], np.float16)
    point = Point({"z": np.ones((2, 2), np.float16)}, delta, "float16")
    with np.errstate(all="ignore"):
        for judged in (additive_in_delta, batch_is_a_sum):
            assert not any(f.refuses for f in judged(case, point, case.oracles(["torch"])).findings)
