"""In a coarse dtype: what overflows for the references too is unstable and not refused, and what does not is wrong."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import oracles


def in_float16(*values):
    return np.array(values, np.float16)


def cube():
    return oracles.manual(lambda z: (z * z * z, z), lambda z, delta: {"z": delta * (3 * (z * z))}, name="cube")


CUBE = {"torch": oracles.torch_autograd(lambda z: z * z * z), "jax": oracles.jax_vjp(lambda z: z * z * z)}


@pytest.mark.parametrize("framework", CUBE)
def test_an_overflow_of_the_references_too_is_unstable_and_passes(framework):
    # z² overflows, and the small delta brings the derivative back into the range of float16.
    point, delta = {"z": in_float16(300, 1.5)}, in_float16(0.1, 1)
    with np.errstate(all="ignore"):
        result = oracles.check(cube(), point, [CUBE[framework]], delta)
    assert {f.verdict for f in result.findings if f.quantity == "z"} == {oracles.Verdict.UNSTABLE}
    assert not result.refuses


def test_an_overflow_that_no_reference_has_is_wrong():
    def forward(z):
        e = np.exp(z)
        y = e / e.sum(-1, keepdims=True)
        return y, y

    softmax = oracles.manual(forward, lambda y, d: {"z": y * (d - (d * y).sum(-1, keepdims=True))}, name="softmax")
    reference = oracles.torch_autograd(lambda z: torch.softmax(z, -1))
    with np.errstate(all="ignore"), pytest.raises(oracles.Disagreement) as refused:
        oracles.check(softmax, {"z": in_float16(12, 11.5, 11)}, [reference])
    assert refused.value.verdict is oracles.Verdict.WRONG


def test_one_reference_that_does_not_overflow_is_enough():
    def inside_float32(z):
        return (z.astype(jnp.float32) ** 3).astype(z.dtype)

    point, delta = {"z": in_float16(300, 1.5)}, in_float16(0.1, 1)
    with np.errstate(all="ignore"), pytest.raises(oracles.Disagreement) as refused:
        oracles.check(cube(), point, [CUBE["torch"], oracles.jax_vjp(inside_float32)], delta)
    assert refused.value.verdict is oracles.Verdict.WRONG


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_nan_at_a_finite_gradient_stays_wrong(dtype):
    root = oracles.manual(
        lambda z: (np.sqrt(z * z), z), lambda z, d: {"z": d * z / np.sqrt(z * z)}, name="root of the square"
    )
    point = {"z": np.array([0.0, 1.0], dtype)}
    with np.errstate(all="ignore"), pytest.raises(oracles.Disagreement) as refused:
        oracles.check(root, point, [oracles.torch_autograd(torch.abs)])
    assert refused.value.verdict is oracles.Verdict.WRONG
