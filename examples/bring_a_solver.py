"""Judge the implicit derivative of a fixed point: the right one agrees, the one-step gradient is refused.

python examples/bring_a_solver.py
"""

import numpy as np
import torch

import oracles

MOST_STEPS = 60  # the oracle perturbs each step: without this cap a loop might not end


def solve(W, x):
    """Return z = tanh(W z + x), iterated until a step is below 1e-10."""
    z = np.zeros_like(x)
    for _ in range(MOST_STEPS):
        z, before = np.tanh(W @ z + x), z
        if np.abs(z - before).max() <= 1e-10:
            break
    return z, (W, z)


def implicit(cache, delta):
    """Solve u = s (delta + W^T u) with the slope s = 1 - z^2, since dz = s (dW z + W dz + dx)."""
    W, z = cache
    s = 1 - z * z
    u = s * np.linalg.solve(np.eye(len(z)) - W.T * s, delta)
    return {"W": np.outer(u, z), "x": u}


def one_step(cache, delta):
    """Differentiate the last step alone, and take the z that enters it for a constant."""
    _, z = cache
    u = (1 - z * z) * delta
    return {"W": np.outer(u, z), "x": u}


def unrolled(W, x):
    """The same fixed point in torch, which differentiates every step."""
    z = torch.zeros_like(x)
    for _ in range(MOST_STEPS):
        z = torch.tanh(W @ z + x)
    return z


rng = np.random.default_rng(0)
primals = {"W": 0.2 * rng.standard_normal((3, 3)), "x": rng.standard_normal(3)}
against = [oracles.torch_autograd(unrolled)]
for name, backward in {"implicit": implicit, "one step": one_step}.items():
    subject = oracles.declared(oracles.manual(solve, backward, name=name), solved_to=1e-10)
    try:
        print(oracles.check(subject, primals, against))
    except oracles.Disagreement as disagreement:
        print(disagreement)
try:
    oracles.check(oracles.manual(solve, implicit, name="undeclared"), primals, against)
except oracles.Disagreement as disagreement:
    print(disagreement)
