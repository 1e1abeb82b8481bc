"""Without a reference, the gradients near a kink are the subject's own: what its primal says of them decides."""

import numpy as np
import pytest

import oracles
from oracles import Disagreement, Verdict

ACCEPTED = (Verdict.AGREES, Verdict.KINK)


def refused(subject, point, **options):
    """Return the verdict of a check that must refuse."""
    with pytest.raises(Disagreement) as refusal:
        oracles.check(subject, point, **options)
    return refusal.value.verdict


def accepted(subject, point, **options):
    """Return whether a check accepts."""
    return oracles.check(subject, point, **options).verdict in ACCEPTED


def summed_to(shape, array):
    return array.sum().reshape(shape) if shape in ((), (1,)) else array


def relu_from(slope):
    """Return max(x − t, 0) with a threshold, and with this slope where it is reached."""

    def backward(c, d):
        x, t = c
        g = d * np.where(x == t, slope, x > t)
        return {"x": g, "t": summed_to(np.shape(t), -g)}

    return oracles.manual(lambda x, t: (np.maximum(x - t, 0), (x, t)), backward)


def clip_from(slope):
    """Return clip(x, −t, t), with this slope in t where a bound is reached."""

    def backward(c, d):
        x, t = c
        reached = np.where(np.abs(x) == t, slope, np.abs(x) > t)
        return {"x": d * (1 - reached), "t": summed_to(np.shape(t), d * np.sign(x) * reached)}

    return oracles.manual(lambda x, t: (np.clip(x, -t, t), (x, t)), backward)


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("subject", [relu_from, clip_from])
def test_a_primal_of_one_number_may_be_at_a_kink(subject, shape):
    point = {"x": np.array([0.5, 2.0, -3.0]), "t": np.full(shape, 0.5)}
    for slope in (0.0, 1.0):
        assert accepted(subject(slope), point)
    assert refused(subject(3.0), point) == "wrong"


def test_a_function_of_one_number():
    def relu(slope):
        return oracles.manual(
            lambda z: (np.maximum(z, 0), z), lambda z, d: {"z": np.float64(d) * np.where(z == 0, slope, z > 0)}
        )

    assert accepted(relu(0.0), {"z": np.zeros(())})
    assert accepted(relu(1.0), {"z": np.zeros(())})
    assert refused(relu(2.0), {"z": np.zeros(())}) == "wrong"


def test_a_lookup_error_of_the_subject_near_a_point_is_no_gradient_there():
    def table(slope):
        known = {0.0: slope, 1.0: 1.0}

        def backward(z, d):
            return {"z": d * np.array([known[float(v)] for v in z])}

        return oracles.manual(lambda z: (np.maximum(z, 0), z), backward)

    assert refused(table(5.0), {"z": np.array([0.0, 1.0])}) == "wrong"
