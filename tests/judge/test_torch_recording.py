"""Recorded evaluations of torch: a replay gives the bits that the evaluation gives."""

import numpy as np
import pytest

import oracles
from oracles.backends import torch_reference
from oracles.perturbation.torch_recording import Recordings
from oracles.rule import Perturbation, as_tuple

torch = pytest.importorskip("torch")
F = torch.nn.functional
RNG = np.random.default_rng(3)
X, W, B = (RNG.standard_normal(shape) for shape in ((6, 4), (4, 4), (4,)))
INDEX = np.array([0, 2, 2, 5])
IMAGE, KERNEL = RNG.standard_normal((2, 3, 5, 5)), RNG.standard_normal((4, 3, 3, 3))
HELD = torch.linspace(-1.0, 1.0, 4, dtype=torch.float64)


def in_place(x):
    y = x * 2.0
    y[1:3] += x[:2].sum()
    y.mul_(x)
    return y.t()


def heads(x, w):
    """Views of one array, transposed."""
    y = (x @ w).unflatten(2, (2, 3)).transpose(1, 2)
    return F.scaled_dot_product_attention(y, 2 * y, y).transpose(1, 2).flatten(2)


def constants(x):
    return x * HELD + torch.tensor([1.0, 2.0, 3.0, 4.5], dtype=torch.float64) * torch.eye(4, dtype=torch.float64)[1]


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, delta):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * delta


REPLAYED = {
    "linear": (lambda x, w, b: F.linear(x, w, b).tanh(), {"x": X, "w": W, "b": B}),
    "layer norm": (lambda x, w, b: F.layer_norm(x, (4,), w[0], b), {"x": X, "w": W, "b": B}),
    "batch norm": (lambda x, b: F.batch_norm(x, None, None, b, b, True), {"x": X, "b": B}),
    "softmax": (lambda x: F.softmax(x, -1).log(), {"x": X}),
    "attention": (lambda x, w: F.scaled_dot_product_attention(x @ w, x @ w.T, x), {"x": X[None], "w": W}),
    "heads": (heads, {"x": RNG.standard_normal((2, 4, 6)), "w": RNG.standard_normal((6, 6))}),
    "convolution": (lambda x, w: F.max_pool2d(F.conv2d(x, w, padding=1), 2), {"x": IMAGE, "w": KERNEL}),
    "embedding": (lambda w, i: F.embedding(i, w).cumsum(0), {"w": X, "i": INDEX}),
    "cross-entropy": (lambda x, i: F.cross_entropy(x[i], i % 4, reduction="sum"), {"x": X, "i": INDEX}),
    "in place": (in_place, {"x": X}),
    "constants": (constants, {"x": X}),
    "lists": (lambda x, w: torch.cat([x, w, x[:1]]).split(3)[0].prod(0), {"x": X, "w": W}),
    "several outputs": (lambda x, w: (x @ w, w.sum(), torch.linalg.norm(x)), {"x": X, "w": W}),
    "an own function": (lambda x: Cube.apply(x).sum(0), {"x": X}),
    "a large array": (lambda x: (x * x).mean() + x[0], {"x": RNG.standard_normal(200_000)}),
    "complex numbers": (lambda x: torch.fft.fft(x).abs().square(), {"x": X}),
    "float32": (lambda x, w: torch.sigmoid(x @ w), {"x": X.astype(np.float32), "w": W.astype(np.float32)}),
    "no gradient of one": (lambda x, w: x.exp(), {"x": X, "w": W}),
}
LIVE = {
    "a branch on values": (lambda x: x * 2 if x.sum() > -1e9 else x, {"x": X}),
    "a number that is read": (lambda x: x * x.detach().abs().max().item(), {"x": X}),
    "a mask that selects": (lambda x: x[x > 0].sum() * x, {"x": X}),
    "NumPy inside": (lambda x: x * torch.from_numpy(np.sin(x.detach().numpy())), {"x": X}),
    "random numbers": (lambda x: F.dropout(x, 0.5, training=True), {"x": X}),
}


def samples(f, primals, *, replayed, monkeypatch, forward=True, absolute=(0.0,)):
    """Return what six perturbed evaluations give, and how many of them ran as they are written."""
    evaluations = []

    def counted(**tensors):
        evaluations.append(1)
        return f(**tensors)

    with monkeypatch.context() as patch:
        if not replayed:
            patch.setattr(Recordings, "find", lambda self, kind: None)
        oracle = oracles.torch_autograd(counted)
        y, _ = oracle(**primals)
        rng = np.random.default_rng(8)
        deltas = [np.asarray(rng.standard_normal(part.shape), part.dtype) for part in as_tuple(y)]
        delta = tuple(deltas) if isinstance(y, tuple) else deltas[0]
        values = []
        for seed in range(6):
            torch.manual_seed(0)
            noise = Perturbation(np.random.default_rng(seed), 2.0**-20, absolute[seed % len(absolute)], forward)
            outputs, cotangents = oracle.evaluate_perturbed(primals, delta, noise)
            values.append([*outputs, *cotangents.values()])
    return values, len(evaluations) - 1


@pytest.mark.parametrize(("forward", "absolute"), [(True, (0.0,)), (False, (1e-30,)), (True, (1e-30, 0.0))])
@pytest.mark.parametrize("name", REPLAYED)
def test_replay_gives_the_bits_of_the_evaluation(name, forward, absolute, monkeypatch):
    f, primals = REPLAYED[name]
    options = {"monkeypatch": monkeypatch, "forward": forward, "absolute": absolute}
    replayed, ran = samples(f, primals, replayed=True, **options)
    evaluated, _ = samples(f, primals, replayed=False, **options)
    assert ran == 4
    for one, other in zip(replayed, evaluated, strict=True):
        assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(replayed[4], replayed[5], strict=True))


@pytest.mark.parametrize("name", LIVE)
def test_code_that_reads_values_is_never_replayed(name, monkeypatch):
    f, primals = LIVE[name]
    replayed, ran = samples(f, primals, replayed=True, monkeypatch=monkeypatch)
    evaluated, _ = samples(f, primals, replayed=False, monkeypatch=monkeypatch)
    assert ran == 6
    for one, other in zip(replayed, evaluated, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_recording_is_of_one_point():
    """The branch depends on an integer that no operation reads."""
    oracle = oracles.torch_autograd(lambda x, n: x**2 if n.numpy()[0] > 1 else x * 3)
    for n in (1, 2):
        point = {"x": X, "n": np.array([n])}
        for seed in range(6):
            noise = Perturbation(np.random.default_rng(seed), 2.0**-30)
            (y,), _ = oracle.evaluate_perturbed(point, np.ones_like(X), noise)
            assert np.abs(y - (X**2 if n > 1 else 3 * X)).max() < 1e-6


def test_a_replay_that_raises_is_an_evaluation_as_written(monkeypatch):
    f, primals = REPLAYED["linear"]

    def fail(*args, **kwargs):
        raise RuntimeError("view size is not compatible")

    monkeypatch.setattr(torch_reference, "replay", fail)
    failed, ran = samples(f, primals, replayed=True, monkeypatch=monkeypatch)
    evaluated, _ = samples(f, primals, replayed=False, monkeypatch=monkeypatch)
    assert ran == 6
    for one, other in zip(failed, evaluated, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
