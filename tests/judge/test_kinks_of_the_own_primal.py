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


def gather(adds):
    """Return q at the floor of x; a gradient that does not add loses what equal indices give."""

    def backward(c, d):
        i, q = c
        g = np.zeros_like(q)
        if adds:
            np.add.at(g, i, d)
        else:
            g[i] += d
        return {"x": None, "q": g}

    def forward(x, q):
        i = np.floor(x).astype(int)
        return q[i] * 1.0, (i, q)

    return oracles.manual(forward, backward), {"x": np.array([1.0, 1.0, 2.0]), "q": np.array([1.0, 2.0, 3.0, 4.0])}


def interpolation(adds):
    """Return the linear interpolation of y between knots, at one of them."""
    knots = np.array([0.0, 1.0, 2.0, 4.0])

    def forward(x, y):
        i = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, 2)
        w = (x - knots[i]) / (knots[i + 1] - knots[i])
        return (1 - w) * y[i] + w * y[i + 1], (y, i, w)

    def backward(c, d):
        y, i, w = c
        g = np.zeros_like(y)
        for k, part in ((i, d * (1 - w)), (i + 1, d * w)):
            if adds:
                np.add.at(g, k, part)
            else:
                g[k] += part
        return {"x": d * (y[i + 1] - y[i]) / (knots[i + 1] - knots[i]), "y": g}

    point = {"x": np.array([1.0, 1.5]), "y": np.array([0.1, -0.1, 0.6, 0.1])}
    return oracles.manual(forward, backward), point


def exponential(right):
    """Return exp of a symmetric matrix of equal eigenvalues, whose gradient is zero there where it is not right."""

    def forward(A):
        w, V = np.linalg.eigh(A)
        return (V * np.exp(w)) @ V.T, (w, V)

    def backward(c, d):
        w, V = c
        gap, limit = w[:, None] - w, np.exp(w) if right else np.zeros_like(w)
        slopes = (np.exp(w)[:, None] - np.exp(w)) / np.where(gap == 0, 1.0, gap)
        return {"A": V @ (np.where(np.abs(gap) < 1e-8, limit, slopes) * (V.T @ d @ V)) @ V.T}

    return oracles.declared(oracles.manual(forward, backward), symmetric="A"), {"A": np.eye(3)}


def square(right):
    """Return x²; where it is not right, its gradient alone jumps at 0."""

    def backward(x, d):
        off = np.where(np.abs(x) < 1e-3, np.where(x >= 0, 0.3, -1.0), 0.0)
        return {"x": d * (2 * x + (0.0 if right else off))}

    return oracles.manual(lambda x: (x**2, x), backward), {"x": np.array([0.0, 1.0])}


SMOOTH = {"gather": gather, "interpolation": interpolation, "exponential": exponential, "square": square}


@pytest.mark.parametrize("name", SMOOTH)
def test_a_gradient_that_jumps_where_its_primal_is_smooth_is_wrong(name):
    assert accepted(*SMOOTH[name](True))
    assert refused(*SMOOTH[name](False)) == "wrong"


def median(pick, factor=1.0):
    """Return the median, whose gradient goes to the first or to the last of equal numbers."""

    def backward(x, d):
        g = np.zeros_like(x)
        g[np.flatnonzero(x == np.median(x))[pick]] = d * np.where(np.ptp(x) == 0, factor, 1.0)
        return {"x": g}

    return oracles.manual(lambda x: (np.sort(x)[len(x) // 2], x), backward)


@pytest.mark.parametrize("x", [np.ones(3), np.array([1.0, 1.0, 0.0, 1.0, 3.0]), np.ones(5)], ids=str)
@pytest.mark.parametrize("pick", [0, -1])
def test_a_kink_that_no_axis_crosses_is_one_all_the_same(x, pick):
    """Of three equal numbers each may move without moving the median: finite differences find the slope 0."""
    assert accepted(median(pick), {"x": x})
    if np.ptp(x) == 0:
        assert refused(median(pick, 1.5), {"x": x}) == "wrong"


def median_of_three(weights):
    def backward(c, d):
        middle, tied = np.median(np.stack(c), 0), (c[0] == c[1]) & (c[1] == c[2])
        return {n: d * np.where(tied, w, a == middle) for n, w, a in zip("abc", weights, c, strict=True)}

    return oracles.manual(
        lambda a, b, c: (np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c)), (a, b, c)), backward
    )


def test_a_kink_that_no_primal_crosses_alone():
    point = {n: np.ones(2) for n in "abc"}
    for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert accepted(median_of_three(weights), point)
    for weights in ((1, 1, 0), (0, 0, 0), (3, 0, 0)):
        assert refused(median_of_three(weights), point) == "wrong"


@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_a_jump_of_the_primal_is_no_kink(slope):
    """x − floor(x) jumps at whole numbers, where the code that runs goes up with the slope 1."""
    subject = oracles.manual(lambda x: (x - np.floor(x), x), lambda x, d: {"x": d * slope})
    point = {"x": np.array([0.5, 1.2])}
    assert accepted(subject, point) if slope else refused(subject, point) == "wrong"
