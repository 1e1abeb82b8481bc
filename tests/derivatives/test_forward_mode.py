"""Forward mode: directional derivatives, right and wrong, in every adapter; rules for torch.vmap and jax.vmap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oracles
from oracles import Disagreement, InvalidInput, Verdict
from oracles.diagnosis.diagnose import diagnosis_of
from oracles.outputs import in_core

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
jnp = jax.numpy

RNG = np.random.default_rng(6)
PRIMALS = {"z": RNG.standard_normal((4, 3)), "W": RNG.standard_normal((3, 2))}
REFERENCES = [
    oracles.torch_autograd(lambda z, W: torch.tanh(z @ W)),
    oracles.jax_vjp(lambda z, W: jnp.tanh(z @ W)),
]


def forward(z: Any, W: Any) -> Any:
    return np.tanh(z @ W), (z, W)


def backward(cache: Any, delta: Any) -> Any:
    z, W = cache
    e = delta * (1 - np.tanh(z @ W) ** 2)
    return {"z": e @ W.T, "W": z.T @ e}


def halved_backward(cache: Any, delta: Any) -> Any:
    return {n: g / 2 for n, g in backward(cache, delta).items()}


def jvp(primals: Any, tangents: Any) -> Any:
    a = np.tanh(primals["z"] @ primals["W"])
    return a, (1 - a * a) * (tangents["z"] @ primals["W"] + primals["z"] @ tangents["W"])


def changed(change: Any) -> Any:
    """Return a jvp whose output or tangent is changed."""

    def wrong(primals: Any, tangents: Any) -> Any:
        y, pushed = jvp(primals, tangents)
        return change(primals, tangents, y, pushed)

    return wrong


WRONG = {
    "a term is missing": changed(
        lambda p, t, y, pushed: (y, (1 - y * y) * (t["z"] @ p["W"])),
    ),
    "another sign": changed(lambda p, t, y, pushed: (y, -pushed)),
    "no derivative of tanh": changed(lambda p, t, y, pushed: (y, pushed / (1 - y * y))),
    "not linear in the tangents": changed(lambda p, t, y, pushed: (y, pushed + t["z"].sum() ** 2)),
    "zero": changed(lambda p, t, y, pushed: (y, 0 * pushed)),
    "the tangent in place of the output": changed(lambda p, t, y, pushed: (pushed, pushed)),
    "averaged": changed(lambda p, t, y, pushed: (y, pushed / len(pushed))),
    "one row": changed(lambda p, t, y, pushed: (y, np.where(np.arange(len(pushed))[:, None] == 2, 0, pushed))),
}


@pytest.mark.parametrize("references", [REFERENCES, []], ids=["references", "differences"])
@pytest.mark.parametrize("mode", ["jvp", "both"])
def test_jvp_of_an_author_agrees(references: Any, mode: Any) -> None:
    result = oracles.check(oracles.manual(forward, backward, jvp=jvp), PRIMALS, references, mode=mode)
    assert result.verdict is Verdict.AGREES
    names = {"jvp": ("J v",), "both": ("jvp: J v", "jvp: z_dot")}[mode]
    assert all(result.judged[name][0] == result.judged[name][1] > 0 for name in names)


@pytest.mark.parametrize("references", [REFERENCES, []], ids=["references", "differences"])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_jvp_is_refused(name: str, references: Any) -> None:
    subject = oracles.manual(forward, backward, jvp=WRONG[name])
    assert oracles.check(subject, PRIMALS, references).verdict is Verdict.AGREES
    with pytest.raises(Disagreement) as refusal:
        oracles.check(subject, PRIMALS, references, mode="jvp")
    assert refusal.value.verdict is Verdict.WRONG
    assert refusal.value.result.property_name == "check, jvp"


@pytest.mark.parametrize("mode", ["jvp", "both"])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_jvp_without_a_reference_has_a_report(name: str, mode: Any) -> None:
    with pytest.raises(Disagreement) as refusal:
        oracles.check(oracles.manual(forward, backward, jvp=WRONG[name]), PRIMALS, mode=mode)
    assert "J v" in str(refusal.value)
    patterns = {"zero": "all_zero", "one row": "wrong_only_in_locations"}
    if mode == "jvp" and name in patterns:
        assert diagnosis_of(in_core(refusal.value.result)).pattern == patterns[name]


def test_backward_is_judged_against_the_forward_mode() -> None:
    """Without a reference, the adjoint identity alone finds which of the two is wrong for the other."""
    from oracles.decision.judge import judge
    from oracles.forward_mode import forward_mode

    wrong = oracles.manual(forward, halved_backward, jvp=jvp)
    forward_part = forward_mode(wrong, PRIMALS, [], np.random.default_rng(0), both=True)
    delta = (np.ones((4, 2)), np.random.default_rng(1).standard_normal((4, 2)))
    result = judge(forward_part.subject, forward_part.primals, delta, forward_part.oracles)
    assert {f.quantity for f in result.findings if f.refuses} == {"z_dot", "W_dot"}


def test_jvp_alone_needs_no_backward() -> None:
    assert oracles.check(oracles.manual(forward, jvp=jvp), PRIMALS, REFERENCES, mode="jvp").verdict is Verdict.AGREES


def test_subject_without_forward_mode_is_invalid_input() -> None:
    with pytest.raises(InvalidInput, match="jvp="):
        oracles.check(oracles.manual(forward, backward), PRIMALS, REFERENCES, mode="both")


def test_exception_of_a_jvp_is_a_finding() -> None:
    def broken(primals: Any, tangents: Any) -> Any:
        raise IndexError("beyond the end")

    with pytest.raises(Disagreement) as refusal:
        oracles.check(oracles.manual(forward, backward, jvp=broken), PRIMALS, REFERENCES, mode="jvp")
    assert isinstance(refusal.value.result.cause, IndexError)


# ---- torch


class Dense(torch.autograd.Function):
    @staticmethod
    def forward(z: Any, W: Any) -> Any:
        return torch.tanh(z @ W)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        z, W = ctx.saved_tensors
        e = delta * (1 - torch.tanh(z @ W) ** 2)
        return e @ W.T, z.T @ e

    @staticmethod
    def jvp(ctx: Any, z_dot: Any, W_dot: Any) -> Any:
        z, W = ctx.saved_tensors
        return (1 - torch.tanh(z @ W) ** 2) * (z_dot @ W + z @ W_dot)

    @staticmethod
    def vmap(info: Any, in_dims: Any, z: Any, W: Any) -> Any:
        z, W = (t if d is None else t.movedim(d, 0) for t, d in zip((z, W), in_dims, strict=True))
        return Dense.apply(z, W) if z.ndim == W.ndim == 2 else torch.tanh(z @ W), 0


class LostTangent(Dense):
    @staticmethod
    def jvp(ctx: Any, z_dot: Any, W_dot: Any) -> Any:
        z, W = ctx.saved_tensors
        return (1 - torch.tanh(z @ W) ** 2) * (z_dot @ W)


class SquaredTangent(Dense):
    @staticmethod
    def jvp(ctx: Any, z_dot: Any, W_dot: Any) -> Any:
        return Dense.jvp(ctx, z_dot, W_dot) * z_dot.abs().sum()


class WrongBatch(Dense):
    """The vmap rule reads the first matrix for the whole batch."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, z: Any, W: Any) -> Any:
        z = z if in_dims[0] is None else z.movedim(in_dims[0], 0)
        W = W if in_dims[1] is None else W.movedim(in_dims[1], 0)[0]
        return torch.tanh(z @ W), 0


class WrongBatchAlone(Dense):
    """The vmap rule is wrong where the first argument alone has a batch."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, z: Any, W: Any) -> Any:
        y, _ = Dense.vmap(info, in_dims, z, W)
        return (y.roll(1, 0) if in_dims[1] is None else y), 0


def test_jvp_of_a_torch_function_agrees() -> None:
    for references in (REFERENCES, []):
        result = oracles.check(oracles.torch_function(Dense), PRIMALS, references, mode="both")
        assert result.verdict is Verdict.AGREES
        assert result.judged["jvp: J v"] == (8, 8)


@pytest.mark.parametrize("function", [LostTangent, SquaredTangent])
def test_wrong_jvp_of_a_torch_function_is_refused(function: Any) -> None:
    subject = oracles.torch_function(function)
    assert oracles.check(subject, PRIMALS, REFERENCES).verdict is Verdict.AGREES
    for mode in ("jvp", "both"):
        with pytest.raises(Disagreement):
            oracles.check(subject, PRIMALS, REFERENCES, mode=mode)


@pytest.mark.parametrize("function", [WrongBatch, WrongBatchAlone])
def test_wrong_vmap_rule_of_a_torch_function_is_refused(function: Any) -> None:
    with pytest.raises(Disagreement) as refusal:
        oracles.check(oracles.torch_function(function), PRIMALS, REFERENCES)
    assert "torch.vmap" in str(refusal.value)


def test_module_in_forward_mode() -> None:
    class Layer(torch.nn.Module):
        def __init__(self, function: Any) -> None:
            super().__init__()
            self.W = torch.nn.Parameter(torch.zeros(3, 2))
            self.function = function

        def forward(self, z: Any) -> Any:
            return self.function.apply(z, self.W)

    right, wrong = (oracles.torch_module(lambda f=f: Layer(f)) for f in (Dense, LostTangent))
    assert oracles.check(right, PRIMALS, REFERENCES, mode="jvp").verdict is Verdict.AGREES
    with pytest.raises(Disagreement):
        oracles.check(wrong, PRIMALS, REFERENCES, mode="jvp")


# ---- JAX


def custom_jvp(rule: Any) -> Any:
    @jax.custom_jvp
    def dense(z: Any, W: Any) -> Any:
        return jnp.tanh(z @ W)

    dense.defjvp(lambda primals, tangents: (dense(*primals), rule(*primals, *tangents)))
    return dense


def right_rule(z: Any, W: Any, z_dot: Any, W_dot: Any) -> Any:
    return (1 - jnp.tanh(z @ W) ** 2) * (z_dot @ W + z @ W_dot)


def test_custom_jvp_agrees_and_so_does_its_transpose() -> None:
    for references in (REFERENCES, []):
        subject = oracles.jax_function(custom_jvp(right_rule))
        assert oracles.check(subject, PRIMALS, references, mode="both").verdict is Verdict.AGREES


@pytest.mark.parametrize(
    "rule",
    [
        lambda z, W, z_dot, W_dot: (1 - jnp.tanh(z @ W)) * (z_dot @ W + z @ W_dot),
        lambda z, W, z_dot, W_dot: (1 - jnp.tanh(z @ W) ** 2) * (z @ W_dot),
        lambda z, W, z_dot, W_dot: right_rule(z, W, z_dot, W_dot) * jnp.abs(z_dot).sum(),
    ],
    ids=["formula", "tangent lost", "not linear"],
)
def test_wrong_custom_jvp_is_refused(rule: Any) -> None:
    with pytest.raises(Disagreement) as refusal:
        oracles.check(oracles.jax_function(custom_jvp(rule)), PRIMALS, REFERENCES, mode="jvp")
    assert refusal.value.verdict is Verdict.WRONG


def test_custom_vjp_has_no_forward_mode() -> None:
    f = jax.custom_vjp(lambda z, W: jnp.tanh(z @ W))
    f.defvjp(lambda z, W: (jnp.tanh(z @ W), (z, W)), lambda r, d: (d @ r[1].T, r[0].T @ d))
    with pytest.raises(InvalidInput, match="custom_vjp"):
        oracles.check(oracles.jax_function(f), PRIMALS, REFERENCES, mode="jvp")


def custom_vmap(rule: Any) -> Any:
    @jax.custom_batching.custom_vmap
    def dense(z: Any, W: Any) -> Any:
        return jnp.tanh(z @ W)

    dense.def_vmap(lambda size, is_batched, z, W: (rule(jnp.tanh(jnp.matmul(z, W))), True))
    return dense


def test_custom_vmap_equals_a_loop() -> None:
    right = oracles.jax_function(custom_vmap(lambda y: y))
    assert oracles.check(right, PRIMALS, REFERENCES, mode="jvp").verdict is Verdict.AGREES
    for change in (lambda y: y[::-1], lambda y: jnp.roll(y, 1, axis=0), lambda y: jnp.broadcast_to(y[:1], y.shape)):
        with pytest.raises(Disagreement) as refusal:
            oracles.check(oracles.jax_function(custom_vmap(change)), PRIMALS, REFERENCES, mode="jvp")
        assert "jax.vmap" in str(refusal.value)
