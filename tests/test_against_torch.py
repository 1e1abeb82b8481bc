"""A whole training run, step by step the same as torch's."""

import numpy as np
import pytest
import torch

from manual_bp import SGD, Linear, Sequential, SoftmaxCrossEntropy, Tanh, minibatches, value_and_grad
from oracles import Rule, Verdict, torch_autograd
from oracles.decision.judge import judge
from oracles.references.network import sequential_options as options
from oracles.references.network import sequential_torch as torch_reference

NETWORK = Sequential(Linear(5, 8), Tanh(), Linear(8, 3))
LOSS = SoftmaxCrossEntropy("mean")
BATCH = 7


def order(n_rows):
    rng = np.random.default_rng(11)
    while True:
        yield from minibatches(n_rows, BATCH, rng)


def ours(x, target, *, steps=100, **params):
    names = list(params)
    optimizer = SGD(0.1)
    state = optimizer.init(params)
    for _, rows in zip(range(steps), order(len(x)), strict=False):
        _, grads = value_and_grad(NETWORK, LOSS, params, x[rows], target[rows])
        params, state = optimizer.step(params, grads, state)
    return tuple(params[n] for n in names), lambda delta: {}


def torchs(x, target, *, steps=100, **params):
    names = list(params)
    for _, rows in zip(range(steps), order(len(x)), strict=False):
        leaves = {n: p.detach().requires_grad_() for n, p in params.items()}
        y = torch_reference(x[rows], **options(NETWORK), **leaves)
        loss = torch.nn.functional.cross_entropy(y, target[rows])
        grads = torch.autograd.grad(loss, list(leaves.values()))
        params = {n: leaves[n].detach() - 0.1 * g for n, g in zip(names, grads, strict=True)}
    return tuple(params[n] for n in names)


def test_the_same_weights_after_100_steps():
    rng = np.random.default_rng(3)
    x, target = rng.standard_normal((30, 5)), rng.integers(0, 3, 30)
    params = NETWORK.init(rng, np.float64)
    delta = tuple(rng.standard_normal(p.shape) for p in params.values())
    weights = {f"output[{i}]" for i in range(4)}
    subject, point = Rule(ours, "SGD, 100 steps"), {"x": x, "target": target, **params}
    result = judge(subject, point, delta, [torch_autograd(torchs)], only=weights)
    assert result.verdict is Verdict.AGREES
    assert {f.quantity for f in result.findings} == weights
    moved = [np.abs(a - b).max() for a, b in zip(ours(x, target, **params)[0], params.values(), strict=True)]
    assert min(moved) > 0
    assert max(f.detects_above for f in result.findings) < 1e-10  # the tolerance itself is tight after 100 steps


@pytest.mark.slow
def test_a_run_with_another_rate_is_refused():
    rng = np.random.default_rng(3)
    x, target = rng.standard_normal((30, 5)), rng.integers(0, 3, 30)
    params = NETWORK.init(rng, np.float64)

    def faster(x, target, **params):
        final, pullback = ours(x, target, steps=5, **params)
        return tuple(p + (1 + 1e-6) * (f - p) for p, f in zip(params.values(), final, strict=True)), pullback

    delta = tuple(rng.standard_normal(p.shape) for p in params.values())
    oracle = torch_autograd(lambda **primals: torchs(steps=5, **primals))
    result = judge(Rule(faster), {"x": x, "target": target, **params}, delta, [oracle])
    assert result.verdict is Verdict.WRONG
