"""A diagnosis names no defect that is none, and what is near it keeps its name."""

import os
import signal

import numpy as np
import pytest

import oracles

torch = pytest.importorskip("torch")


def refusal(subject, primals, *against, **options):
    """Return the Disagreement of a subject that must be refused."""
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(subject, primals, list(against), **options)
    return refused.value


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_crash_at_a_shape_that_nobody_gave_is_survived():
    """The one row that is assigned and not added is named, though the reference crashes at any other shape."""

    def reference(x):
        if x.shape != (6, 5):
            os.kill(os.getpid(), signal.SIGSEGV)
        return torch.cat([x[:, :2], x[:, :2] + x[:, 1:3]], 1)

    def pull(x, d):
        g = np.zeros_like(x)
        g[:, :2] = d[:, :2] + d[:, 2:]
        g[:, 1:3] = d[:, 2:]
        return {"x": g}

    subject = oracles.manual(lambda x: (np.concatenate([x[:, :2], x[:, :2] + x[:, 1:3]], 1), x), pull)
    x = np.random.default_rng(0).standard_normal((6, 5))
    assert "wrong only at index 1 along axis 1" in str(refusal(subject, {"x": x}, oracles.torch_autograd(reference)))


@pytest.mark.parametrize("z", [[12.0], [12.0, -3.0, 8.0, 0.3], [14.0, 13.1, 12.2, 15.0]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cancellation_is_no_solver(z, dtype):
    """-log(1 - sigmoid(z)) loses digits, and more in float32: nothing stops early, nothing is computed in float16."""

    def forward(z):
        s = 1 / (1 + np.exp(-z))
        return -np.log(1 - s), s

    subject = oracles.manual(forward, lambda s, d: {"z": d * s})
    refused = refusal(subject, {"z": np.array(z, dtype)}, oracles.torch_autograd(torch.nn.functional.softplus))
    assert "shrinks with the precision" in refused.evidence.reason
    assert "solved_to" not in str(refused)
    assert "float16" not in str(refused)


def test_a_solver_in_float32_that_stops_early_is_named():
    """Right control: the same error in float64 too."""

    def forward(z):
        u = z
        for _ in range(60):
            step = 0.5 * np.cos(u) + z - u
            u = u + step
            if np.abs(step).max() <= 1e-3:
                break
        return u, u

    def newton(z):
        u = z
        for _ in range(7):
            u = u - (u - 0.5 * torch.cos(u) - z) / (1 + 0.5 * torch.sin(u))
        return u

    subject = oracles.manual(forward, lambda u, d: {"z": d / (1 + np.float32(0.5) * np.sin(u))})
    z = np.random.default_rng(3).standard_normal((3, 2)).astype(np.float32)
    assert "not converged" in refusal(subject, {"z": z}, oracles.torch_autograd(newton)).diagnosis
