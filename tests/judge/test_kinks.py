"""Ties: every way to break them is right, by row, by column, evenly or at will, and a wrong sum of weights is not."""

import numpy as np
import pytest

import oracles

ORDERS = {
    "first": lambda tied: np.flatnonzero(tied)[0],
    "last": lambda tied: np.flatnonzero(tied)[-1],
    "middle": lambda tied: np.flatnonzero(tied)[np.count_nonzero(tied) // 2],
    "first of a column": lambda tied: np.ravel_multi_index(
        np.argwhere(tied.T)[0][::-1] if tied.ndim > 1 else np.argwhere(tied)[0], tied.shape
    ),
}


def windows_of(shape, size, stride):
    if len(shape) == 1:
        return [np.s_[:]]
    starts = [range(0, n - size + 1, stride) for n in shape]
    return [np.s_[i : i + size, j : j + size] for i in starts[0] for j in starts[1]]


def chosen(order):
    def weights(tied):
        w = np.zeros(tied.shape)
        w.flat[ORDERS[order](tied)] = 1.0
        return w

    return weights


def evenly(tied):
    return tied / np.count_nonzero(tied)


def unevenly(tied):
    w = tied * np.arange(1.0, tied.size + 1).reshape(tied.shape)
    return w / w.sum()


def another_each_time():
    state = np.random.default_rng(5)

    def weights(tied):
        w = np.zeros(tied.shape)
        w.flat[state.choice(np.flatnonzero(tied))] = 1.0
        return w

    return weights


def by_place(tied):
    """Choose by the number of ties and not by one order: neighbouring windows may break a tie in two ways."""
    return chosen("first" if np.count_nonzero(tied) % 2 else "last")(tied)


def pooling(weights, size=3, stride=2):
    """Maxima over overlapping windows, or over the whole of a vector."""

    def forward(z):
        return np.array([np.max(z[w]) for w in windows_of(z.shape, size, stride)]), z

    def backward(z, delta):
        dz = np.zeros_like(z)
        for w, d in zip(windows_of(z.shape, size, stride), delta, strict=True):
            dz[w] += d * weights(z[w] == np.max(z[w]))
        return {"z": dz}

    return oracles.manual(forward, backward, name="pooling")


def reference(size=3, stride=2):
    import jax.numpy as jnp

    return oracles.jax_vjp(lambda z: jnp.stack([jnp.max(z[w]) for w in windows_of(z.shape, size, stride)]))


TIED = {
    "zeros": np.zeros((7, 7)),
    "halves": np.round(np.random.default_rng(3).standard_normal((7, 7))) / 2,
    "vector of 10": np.zeros(10),
    "vector of 1,000": np.full(1000, 0.25),
}
RIGHT = {order: chosen(order) for order in ORDERS} | {"evenly": evenly, "by place": by_place}


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("weights", RIGHT)
def test_every_choice_among_ties_is_a_subgradient(weights, tied):
    result = oracles.check(pooling(RIGHT[weights]), {"z": TIED[tied]}, [reference()])
    assert {f.verdict for f in result.findings} <= {oracles.Verdict.AGREES, oracles.Verdict.KINK}


@pytest.mark.parametrize("tied", ["zeros", "vector of 10"])
def test_weights_that_no_order_gives_are_a_subgradient(tied):
    oracles.check(pooling(unevenly), {"z": TIED[tied]}, [reference()])


WRONG = {
    "1 % too large": lambda tied: 1.01 * chosen("first")(tied),
    "to every tie": lambda tied: tied.astype(float),
    "1 % too small": lambda tied: 0.99 * evenly(tied),
    "to none": lambda tied: np.zeros(tied.shape),
    "negative weights": lambda tied: 2 * chosen("first")(tied) - chosen("last")(tied),
    "outside of the ties": lambda tied: np.roll(chosen("last")(tied), 1) if not tied.all() else 2 * evenly(tied),
}


@pytest.mark.parametrize("tied", TIED)
@pytest.mark.parametrize("weights", WRONG)
def test_weights_that_do_not_sum_to_one_are_wrong(weights, tied):
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(pooling(WRONG[weights]), {"z": TIED[tied]}, [reference()])
    assert refused.value.verdict is oracles.Verdict.WRONG


def test_a_subject_that_takes_one_cotangent_alone_is_judged_all_the_same():
    given = np.linspace(1.0, 2.0, 9)
    right = pooling(RIGHT["last"])

    def backward(cache, delta):
        assert np.array_equal(delta, given)
        return right.evaluate(z=cache)[1](delta)

    subject = oracles.manual(lambda z: (right.evaluate(z=z)[0], z), backward, name="for one cotangent")
    with pytest.raises(oracles.Disagreement):  # layouts call it with other cotangents, and it raises
        oracles.check(subject, {"z": TIED["zeros"]}, [reference()], given)


def test_a_choice_that_changes_from_call_to_call_is_not_accepted():
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(pooling(another_each_time()), {"z": TIED["zeros"]}, [reference()])
    assert refused.value.verdict is oracles.Verdict.WRONG


@pytest.mark.parametrize("delta", [np.linspace(-1.0, 2.0, 40), np.cos(np.arange(40.0))], ids=["rising", "any"])
def test_a_sort_may_permute_ties(delta):
    import torch

    permutation = np.argsort(np.sin(7.0 * np.arange(40)))

    def backward(_, d):
        dz = np.empty(40)
        dz[permutation] = d
        return {"z": dz}

    subject = oracles.manual(lambda z: (np.sort(z), None), backward)
    oracles.check(subject, {"z": np.zeros(40)}, [oracles.torch_autograd(lambda z: torch.sort(z).values)], delta)
