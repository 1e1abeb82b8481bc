"""Random subjects: under one seed or key they are judged pathwise; what draws from global state is named random."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import oracles
from oracles.verdict import Verdict

RNG = np.random.default_rng(0)
MU, LOG_SIGMA, LOGITS = RNG.standard_normal((3, 4)), RNG.standard_normal((3, 4)) / 4, RNG.standard_normal((3, 5))


def normal(seed, shape):
    return np.random.default_rng(int(seed)).standard_normal(shape)


def gumbel(seed, shape):
    return np.random.default_rng(int(seed)).gumbel(size=shape)


def kept(seed, shape):
    return np.random.default_rng(int(seed)).random(shape) >= 0.25


def there(noise, seed, like):
    return torch.from_numpy(np.asarray(noise(seed, tuple(like.shape))))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_vjp(p, d):
    return p * (d - (p * d).sum(-1, keepdims=True))


# name: primals, forward in NumPy, reference in torch, right pullback, wrong pullback. A cache is (primals, output).
SUBJECTS = {
    "dropout": (
        {"z": MU}, lambda seed, z: z * kept(seed, z.shape) / 0.75,
        lambda seed, z: z * there(kept, seed, z) / 0.75,
        lambda c, d: {"z": d * kept(c["seed"], d.shape) / 0.75},
        lambda c, d: {"z": d * kept(c["seed"] + 1, d.shape) / 0.75},  # another mask
    ),
    "reparameterised normal": (
        {"mu": MU, "s": LOG_SIGMA}, lambda seed, mu, s: mu + np.exp(s) * normal(seed, mu.shape),
        lambda seed, mu, s: mu + torch.exp(s) * there(normal, seed, mu),
        lambda c, d: {"mu": d, "s": d * np.exp(c["s"]) * normal(c["seed"], d.shape)},
        lambda c, d: {"mu": d, "s": d * normal(c["seed"], d.shape)},  # the factor σ forgotten
    ),
    "Gumbel softmax": (
        {"x": LOGITS}, lambda seed, x: softmax((x + gumbel(seed, x.shape)) / 0.5),
        lambda seed, x: torch.softmax((x + there(gumbel, seed, x)) / 0.5, -1),
        lambda c, d: {"x": softmax_vjp(softmax((c["x"] + gumbel(c["seed"], d.shape)) / 0.5), d) / 0.5},
        lambda c, d: {"x": softmax_vjp(softmax(c["x"] / 0.5), d) / 0.5},  # without the noise
    ),
    "straight-through sample": (
        {"x": LOGITS}, lambda seed, x: (softmax(x) > kept(seed, x.shape)) + 0.0 * x,
        lambda seed, x: (lambda p: (p > there(kept, seed, x)).double() + p - p.detach())(torch.softmax(x, -1)),
        lambda c, d: {"x": softmax_vjp(softmax(c["x"]), d)},
        lambda c, d: {"x": d},  # past the softmax
    ),
    "noisy product": (
        {"z": MU, "W": RNG.standard_normal((4, 2))},
        lambda seed, z, W: (z + 0.1 * normal(seed, z.shape)) @ W,
        lambda seed, z, W: (z + 0.1 * there(normal, seed, z)) @ W,
        lambda c, d: {"z": d @ c["W"].T, "W": (c["z"] + 0.1 * normal(c["seed"], c["z"].shape)).T @ d},
        lambda c, d: {"z": d @ c["W"].T, "W": c["z"].T @ d},  # the noise forgotten
    ),
}  # fmt: skip
SEED = {"seed": np.int64(7)}


def by_pair(name, which):
    primals, forward, _, *pullbacks = SUBJECTS[name]

    def evaluate(seed, **arrays):
        return forward(seed, **arrays), {"seed": seed, **arrays}

    return oracles.manual(evaluate, pullbacks[which], name=name), {**SEED, **primals}


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_seed_is_a_primal_without_a_cotangent(name):
    against = [oracles.torch_autograd(SUBJECTS[name][2])]
    right, primals = by_pair(name, 0)
    result = oracles.check(right, primals, against)
    assert result.verdict is Verdict.AGREES
    assert "seed" not in result.judged
    wrong, _ = by_pair(name, 1)
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(wrong, primals, against)
    assert excinfo.value.verdict is Verdict.WRONG


def reparameterised(key, mu, s):
    return mu + jnp.exp(s) * jax.random.normal(key, mu.shape, mu.dtype)


@pytest.mark.parametrize("factor", [1.0, -1.0])
def test_a_key_of_jax_is_a_primal(factor):
    @jax.custom_vjp
    def sample(key, mu, s):
        return reparameterised(key, mu, s)

    def forward(key, mu, s):
        return sample(key, mu, s), (key, s)

    def backward(cache, d):
        key, s = cache
        return None, d, factor * d * jnp.exp(s) * jax.random.normal(key, d.shape, d.dtype)

    sample.defvjp(forward, backward)
    primals = {"key": np.asarray(jax.random.PRNGKey(3)), "mu": MU, "s": LOG_SIGMA}
    against = [oracles.jax_vjp(reparameterised)]
    if factor == 1:
        assert oracles.check(oracles.jax_function(sample), primals, against).verdict is Verdict.AGREES
        return
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(oracles.jax_function(sample), primals, against)
    assert excinfo.value.result.worst.quantity == "s"


@pytest.mark.parametrize("is_right", [True, False])
def test_a_function_of_torch_with_a_seed(is_right):
    class Noisy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, seed, mu, s):
            generator = torch.Generator().manual_seed(int(seed))
            noise = torch.randn(mu.shape, generator=generator, dtype=torch.float64).to(mu.dtype)
            ctx.save_for_backward(noise, s)
            return mu + torch.exp(s) * noise

        @staticmethod
        def backward(ctx, d):
            noise, s = ctx.saved_tensors
            return None, d, d * torch.exp(s) * (noise if is_right else noise.abs())

    def reference(seed, mu, s):
        noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(int(seed)), dtype=torch.float64)
        return mu + torch.exp(s) * noise

    subject, against = oracles.torch_function(Noisy), [oracles.torch_autograd(reference)]
    primals = {**SEED, "mu": MU, "s": LOG_SIGMA}
    if is_right:
        assert oracles.check(subject, primals, against).verdict is Verdict.AGREES
        return
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(subject, primals, against)
    assert excinfo.value.result.worst.quantity == "s"


def test_what_draws_from_global_state_is_named_random():
    def forward(z):
        mask = np.random.random(z.shape) >= 0.25  # noqa: NPY002
        return z * mask, mask

    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(oracles.manual(forward, lambda mask, d: {"z": d * mask}), {"z": MU})
    assert excinfo.value.verdict is Verdict.WRONG
    assert "random" in str(excinfo.value)
