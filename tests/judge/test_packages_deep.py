"""No false alarm on the vjp rules of autograd and the backward passes of mygrad, at ordinary and at hard points.

What is refused is listed here, with what the package returns and what is right.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from packages.rules import POINTS

import oracles

mpmath = pytest.importorskip("mpmath")
of_autograd = pytest.importorskip("packages.of_autograd")
of_mygrad = pytest.importorskip("packages.of_mygrad")


class Refusal(NamedTuple):
    """A refusal that was looked into.

    Attributes:
        points: where it happens.
        returned: what the package returns in the worst entry: "nan", the name of an exception, or "inexact".
        exact: what is right there: the function, or its derivative, of the entry of x, by mpmath; else an argument.
        why: why what is returned is wrong, or which convention it breaks.
    """

    points: tuple[str, ...]
    returned: str
    exact: Callable[[Any], Any] | str
    why: str


def elu(x):
    return mpmath.mpf(0.7) * mpmath.expm1(x)


def elu_slope(x):
    return mpmath.mpf(0.7) * mpmath.exp(x)


# Of these two numbers SELU is made.
ALPHA, SCALE = mpmath.mpf("1.6732632423543772848170429916717"), mpmath.mpf("1.0507009873554804934193349852946")


def selu(x):
    return SCALE * ALPHA * mpmath.expm1(x)


def selu_slope(x):
    return SCALE * ALPHA * mpmath.exp(x)


TIES, NOTHING = ("ties",), "there is no derivative"
NORM = Refusal(TIES, "nan", NOTHING, "0/0 at a row of zeros, where every subgradient has a norm of 1 at most")
STD = Refusal(TIES, "nan", NOTHING, "0/0 at a row of equal entries, where every subgradient is finite")
ARCTAN2 = Refusal(TIES, "nan", NOTHING, "0/0 at (0, 0), where the convention of torch is 0")
CANCELS = "exp(x) − 1 cancels at small x, where expm1 keeps the digits"
CANCELS_TWICE = "α (exp(x) − 1) + α loses the digits of α exp(x) at large negative x"
REFUSED = {
    "autograd sinc": [Refusal(TIES, "nan", lambda x: mpmath.mpf(0), "0/0 at 0, where sinc is even and smooth")],
    "autograd arctan2": [ARCTAN2],
    "autograd einsum, a trace": [Refusal(POINTS, "ValueError", "delta times the unit matrix", "no rule for ii->")],
    "autograd diag of a matrix": [
        Refusal(POINTS, "ValueError", "delta on that diagonal", "a square matrix is returned")
    ],
    "autograd diagonal": [Refusal(POINTS, "ValueError", "delta on the diagonal", "a square matrix is returned")],
    "autograd broadcast_to": [Refusal(POINTS, "AssertionError", "delta summed over axis 0", "no rule for a new axis")],
    "autograd prod": [Refusal(TIES, "nan", "the product of the other entries", "the product over x is 0/0 at x = 0")],
    "autograd std": [STD],
    "autograd norm of rows": [NORM],
    "autograd norm 3": [NORM],
    "autograd singular values": [
        Refusal(TIES, "nan", "u vᵀ of each value: finite", "0 · ∞ of the vectors of a value 0, which get no cotangent")
    ],
    "mygrad arctan2": [ARCTAN2],
    "mygrad std": [STD],
    "mygrad norm": [NORM],
    "mygrad norm 3": [NORM],
    "mygrad selu": [
        Refusal(("small",), "inexact", selu, CANCELS),
        Refusal(("large",), "inexact", selu_slope, CANCELS_TWICE),
    ],
    "mygrad elu": [
        Refusal(("small",), "inexact", elu, CANCELS),
        Refusal(("large",), "inexact", elu_slope, CANCELS_TWICE),
    ],
    "mygrad leaky_relu": [
        Refusal(TIES, "inexact", NOTHING, "the slope 0 at 0 is not between the slopes 0.1 and 1 on both sides")
    ],
}
KNOWN = {(name, point): refusal for name, each in REFUSED.items() for refusal in each for point in refusal.points}

MODULES = {"autograd": of_autograd, "mygrad": of_mygrad}
# A few of each run always.
QUICK = {
    "autograd exp", "autograd prod", "autograd psi", "autograd solve", "autograd fft", "mygrad softmax",
    "mygrad batchnorm", "mygrad elu",
}  # fmt: skip
SUBJECTS = {f"{package} {rule.name}": (module, rule) for package, module in MODULES.items() for rule in module.RULES}


# autograd warns of a derivative that is 0 everywhere.
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.deep) for n in SUBJECTS])
def test_nothing_right_is_refused(name):
    module, rule = SUBJECTS[name]
    for point in POINTS[:1] if rule.make else POINTS:
        try:
            oracles.check(module.subject(rule), rule.primals(point), rule.against())
        except oracles.Disagreement as refused:
            _require_known(name, rule, point, refused)
        else:
            assert (name, point) not in KNOWN, "accepted now: take it off the list"


def _require_known(name, rule, point, refused):
    """Require that a refusal is on the list, and that the package returns there what the list says."""
    assert (name, point) in KNOWN, f"{name} at {point}: {refused}"
    known, worst = KNOWN[name, point], refused.result.worst
    value, cause = worst.evidence.subject, refused.result.cause
    returned = type(cause).__name__ if cause else "nan" if np.isnan(value) else "inexact"
    assert returned == known.returned
    if callable(known.exact):
        with mpmath.workdps(50):
            exact = known.exact(mpmath.mpf(float(rule.primals(point)["x"][worst.evidence.index])))
            if worst.is_cotangent:
                exact *= mpmath.mpf(float(refused.result.setting.delta[worst.evidence.index]))
            # By far more than rounding: 2^-40 of the value.
            assert returned == "nan" or abs(mpmath.mpf(value) - exact) > abs(exact) * mpmath.mpf(2) ** -40


def test_enough_is_judged():
    assert len(of_autograd.RULES) >= 100
    assert len(of_mygrad.RULES) >= 40
    assert len(SUBJECTS) == len(of_autograd.RULES) + len(of_mygrad.RULES)
    assert KNOWN.keys() <= {(name, point) for name in SUBJECTS for point in POINTS}
