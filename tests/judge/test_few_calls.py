"""How often a check calls the subject, and what the few calls show."""

import numpy as np
import pytest
import torch

import oracles
from oracles import Verdict

POINT = {"x": np.linspace(-1.0, 1.0, 12).reshape(3, 4), "w": np.linspace(0.5, 2.0, 12).reshape(3, 4)}
TORCH = oracles.torch_autograd(lambda x, w: x * w + torch.sin(x))


class Counted:
    """x ⊙ w + sin x, with a defect, which counts its calls."""

    def __init__(self, defect=""):
        self.defect, self.forwards, self.pullbacks, self.kept = defect, 0, 0, None

    def forward(self, x, w):
        self.forwards += 1
        self.kept = x
        if self.defect == "random":
            x = x * (1 + 1e-6 * (self.forwards == 2))
        if self.defect == "another function later" and self.forwards > 2:
            x = 2 * x
        if self.defect == "writes into x":
            y = x * w + np.sin(x), (x.copy(), w)
            x[...] = 0.0
            return y
        if self.defect == "strides" and not x.flags.c_contiguous:
            return x.T.reshape(x.shape) * w + np.sin(x), (x, w)
        if self.defect == "shared" and x is w:
            return 2 * x + np.sin(x), (x, w)
        return x * w + np.sin(x), (x, w)

    def backward(self, cache, delta):
        self.pullbacks += 1
        x, w = cache
        if self.defect == "state":
            x = self.kept
        if self.defect == "expanded delta" and 0 in delta.strides:
            delta = delta / 2
        dx = np.empty_like(x) if self.defect == "unwritten" else delta * (w + np.cos(x))
        if self.defect == "unwritten":
            dx[:-1] = (delta * (w + np.cos(x)))[:-1]
            if not np.isfinite(dx[-1]).all() or self.pullbacks == 1:
                dx[-1:] = (delta * (w + np.cos(x)))[-1:] if self.pullbacks == 1 else np.nan
        return {"x": dx, "w": delta * x}


def check(counted, **options):
    return oracles.check(oracles.manual(counted.forward, counted.backward), POINT, against=[TORCH], **options)


@pytest.mark.parametrize("size", [1, 400])
def test_agreement_takes_six_forwards_and_six_pullbacks(size):
    counted = Counted()
    point = {n: np.tile(a, (size, 1)) for n, a in POINT.items()}
    subject = oracles.manual(counted.forward, counted.backward)
    assert oracles.check(subject, point, against=[TORCH]).verdict is Verdict.AGREES
    assert (counted.forwards, counted.pullbacks) == (6, 6)


def test_one_given_cotangent_takes_as_many():
    counted = Counted()
    assert check(counted, delta=np.ones((3, 4))).verdict is Verdict.AGREES
    assert (counted.forwards, counted.pullbacks) == (6, 6)


@pytest.mark.parametrize(
    "defect",
    ["random", "another function later", "state", "writes into x", "strides", "shared", "expanded delta", "unwritten"],
)
def test_the_few_calls_show_a_defect(defect):
    counted = Counted(defect)
    with pytest.raises(oracles.Disagreement) as excinfo:
        check(counted)
    assert excinfo.value.verdict is Verdict.WRONG
    assert counted.forwards > 6


@pytest.mark.parametrize("defect", ["state", "writes into x", "shared"])
def test_a_defect_that_only_further_calls_show_is_named(defect):
    with pytest.raises(oracles.Disagreement) as excinfo:
        check(Counted(defect))
    assert excinfo.value.evidence.reason


@pytest.mark.parametrize("scale", [1.0, -3.0])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_cotangents_are_no_multiple_of_a_primal_from_the_same_seed(scale, dtype):
    """A norm has no gradient along z itself: an error of one per cent would pass."""
    z = (scale * np.random.default_rng(0).standard_normal((6, 8))).astype(dtype)
    deltas = []

    def backward(cache, delta):
        y, inverse = cache
        deltas.append(np.array(delta, np.float64))
        return {"z": (delta - y * np.mean(delta * y, -1, keepdims=True)) * inverse}

    def forward(z):
        inverse = 1 / np.sqrt(np.mean(z * z, -1, keepdims=True))
        return z * inverse, (z * inverse, inverse)

    oracles.check(oracles.manual(forward, backward), {"z": z})
    wide = z.astype(np.float64)
    assert all(np.ptp(delta / wide) > 0.1 for delta in deltas if np.ptp(delta))
