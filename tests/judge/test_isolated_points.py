"""Code that takes a branch at one point alone, ``np.where(x == 0, …)``: that branch says nothing of the derivative.

Without a reference, ball arithmetic differentiates the code that runs. A certified slope of the constant that stands
there would refuse the right gradient, and accept the wrong one.
"""

import numpy as np
import pytest

import oracles
from oracles import Disagreement, Verdict

pytest.importorskip("flint")


def safe(x):
    return np.where(x == 0, 1.0, x)


def x_times_exp(x):
    return (1 + x) * np.exp(x)


def sinc_slope(x):
    return np.where(x == 0, 0.0, (x * np.cos(x) - np.sin(x)) / safe(x) ** 2)


def relative_growth_slope(x):
    return np.where(x == 0, 0.5, (x * np.exp(x) - np.expm1(x)) / safe(x) ** 2)


# The forward, its slope, and a point at which one entry takes the branch of its own.
ELEMENTWISE = {
    "==": (lambda x: np.where(x == 0, 0.0, x * np.exp(x)), x_times_exp, [0.0, 1.0, -2.0]),
    "!=": (lambda x: np.where(x != 0, x * np.exp(x), 0.0), x_times_exp, [0.0, 1.0, -2.0]),
    "|x| > 0": (lambda x: np.where(np.abs(x) > 0, x * np.exp(x), 0.0), x_times_exp, [0.0, 1.0, -2.0]),
    "x² > 0": (lambda x: np.where(x * x > 0, x * np.exp(x), 0.0), x_times_exp, [0.0, 1.0, -2.0]),
    "another number": (lambda x: np.where(x == 1, 2.0, x * x + 1), lambda x: 2 * x, [1.0, 0.5, -1.0]),
    "truth value": (lambda x: np.where(x.astype(bool), x * np.exp(x), 0.0), x_times_exp, [0.0, 1.0, -2.0]),
    "removable": (lambda x: np.where(x == 0, 1.0, np.sin(x) / safe(x)), sinc_slope, [0.0, 1.0, -2.0]),
    "removable, steep": (
        lambda x: np.where(x == 0, 1.0, np.expm1(x) / safe(x)),
        relative_growth_slope,
        [0.0, 1.0, -2.0],
    ),
}  # fmt: skip


def subject_of(name, off=0.0):
    """Return a function whose slope is off at the one entry that takes another branch."""
    f, slope, point = ELEMENTWISE[name]
    subject = oracles.manual(lambda x: (f(x), x), lambda x, d: {"x": d * (slope(x) + off * (x == point[0]))})
    return subject, {"x": np.array(point)}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_the_right_slope_agrees(name):
    assert oracles.check(*subject_of(name)).verdict is Verdict.AGREES


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("off", [0.1, None])
def test_another_slope_is_refused(name, off):
    """By default it is that of the constant that stands there, zero, unless that is right."""
    _, slope, point = ELEMENTWISE[name]
    off = off or -float(slope(np.array(point[0]))) or 1.0
    with pytest.raises(Disagreement) as refusal:
        oracles.check(*subject_of(name, off))
    assert refusal.value.verdict is Verdict.WRONG


def xlogy(x, y):
    return np.where(x == 0, 0.0, x * np.log(np.where(x == 0, 1.0, y))), (x, y)


def xlogy_back(c, d, guarded):
    x, y = c
    by_x = d * np.log(y)
    return {"x": np.where(x == 0, 0.0, by_x) if guarded else by_x, "y": np.where(x == 0, 0.0, d * x / y)}


@pytest.mark.parametrize("guarded", [False, True])
def test_a_guard_that_is_copied_into_the_backward_is_refused(guarded):
    subject = oracles.manual(xlogy, lambda c, d: xlogy_back(c, d, guarded))
    point = {"x": np.array([0.0, 1.0, 2.0]), "y": np.array([2.0, 0.5, 3.0])}
    if not guarded:
        assert oracles.check(subject, point).verdict is Verdict.AGREES
        return
    with pytest.raises(Disagreement) as refusal:
        oracles.check(subject, point)
    assert refusal.value.verdict is Verdict.WRONG


def rotation(v):
    """Return sin(|v| / 2) / |v| · v, the vector of a rotation's quaternion."""
    t = np.sqrt((v * v).sum(-1, keepdims=True))
    return np.where(t == 0, 0.5, np.sin(t / 2) / safe(t)) * v, (v, t)


def rotation_back(c, d):
    v, t = c
    k = np.where(t == 0, 0.5, np.sin(t / 2) / safe(t))
    slope = np.where(t == 0, 0.0, (np.cos(t / 2) * t / 2 - np.sin(t / 2)) / safe(t) ** 3)
    return {"v": k * d + slope * v * (v * d).sum(-1, keepdims=True)}


def test_a_sum_of_squares_that_is_zero_has_a_tolerance():
    point = {"v": np.array([[0.0, 0.0, 0.0], [0.1, 0.2, 0.3]])}
    result = oracles.check(oracles.manual(rotation, rotation_back), point)
    assert result.verdict is Verdict.AGREES
    assert {f.judged for f in result.findings if f.oracle == "finite difference"} == {(6, 6)}
    wrong = oracles.manual(rotation, lambda c, d: {"v": np.where(c[1] == 0, 0.0, rotation_back(c, d)["v"])})
    with pytest.raises(Disagreement) as refusal:
        oracles.check(wrong, point)
    assert refusal.value.verdict is Verdict.WRONG


def test_where_the_function_jumps_the_branch_of_the_point_counts():
    """A mask of zeros and ones chooses the branch, and no number is near."""

    def forward(z, mask):
        return np.where(mask == 0, -1e3, z * z), (z, mask)

    point = {"z": np.array([1.0, 2.0, 3.0]), "mask": np.array([0.0, 1.0, 0.0])}
    right = oracles.manual(forward, lambda c, d: {"z": d * np.where(c[1] == 0, 0.0, 2 * c[0]), "mask": 0 * d})
    assert oracles.check(right, point).verdict is Verdict.AGREES
    wrong = oracles.manual(forward, lambda c, d: {"z": d * 2 * c[0], "mask": 0 * d})
    with pytest.raises(Disagreement) as refusal:
        oracles.check(wrong, point)
    assert refusal.value.verdict is Verdict.WRONG
