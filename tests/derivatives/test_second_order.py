"""The second order: pullbacks that are differentiated once more, right and wrong, in every adapter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oracles
from oracles import Disagreement, Inconclusive, InvalidInput, Verdict
from oracles.diagnosis.diagnose import diagnosis_of
from oracles.second_order import hessian_findings

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
jnp = jax.numpy

RNG = np.random.default_rng(5)
DENSE = {
    "z": RNG.standard_normal((4, 3)),
    "W": RNG.standard_normal((3, 2)),
    "b": RNG.standard_normal((1, 2)),
}
VECTOR = {"z": RNG.standard_normal((3, 4))}


def dense_by_torch(z: Any, W: Any, b: Any) -> Any:
    return torch.tanh(z @ W + b)


def dense_by_jax(z: Any, W: Any, b: Any) -> Any:
    return jnp.tanh(z @ W + b)


DENSE_REFERENCES = [oracles.torch_autograd(dense_by_torch), oracles.jax_vjp(dense_by_jax)]
SOFTMAX_REFERENCES = [
    oracles.torch_autograd(lambda z: torch.softmax(z, 1)),
    oracles.jax_vjp(lambda z: jax.nn.softmax(z, axis=1)),
]


# ---- NumPy: the author's own second rule, or finite differences of the backward


def forward(z: Any, W: Any, b: Any) -> Any:
    a = np.tanh(z @ W + b)
    return a, (z, W, a)


def backward(cache: Any, delta: Any) -> Any:
    z, W, a = cache
    e = delta * (1 - a * a)
    return {"z": e @ W.T, "W": z.T @ e, "b": e.sum(axis=0, keepdims=True)}


def second(cache: Any, delta: Any, w: Any) -> Any:
    z, W, a = cache
    slope = 1 - a * a
    pushed = w["z"] @ W + z @ w["W"] + w["b"]
    e, de = delta * slope, -2 * a * slope * delta * pushed
    return {
        "z": de @ W.T + e @ w["W"].T,
        "W": z.T @ de + w["z"].T @ e,
        "b": de.sum(axis=0, keepdims=True),
        "delta": slope * pushed,
    }


def second_without_weights(cache: Any, delta: Any, w: Any) -> Any:
    """The term that goes through W itself is forgotten: the Gauss-Newton part alone."""
    a = cache[2]
    right = second(cache, delta, w)
    return {**right, "z": right["z"] - (delta * (1 - a * a)) @ w["W"].T}


def second_of_wrong_sign(cache: Any, delta: Any, w: Any) -> Any:
    right = second(cache, delta, w)
    return {**right, "W": -right["W"]}


def second_without_delta(cache: Any, delta: Any, w: Any) -> Any:
    right = second(cache, delta, w)
    return {**right, "delta": 0 * right["delta"]}


def second_averaged(cache: Any, delta: Any, w: Any) -> Any:
    right = second(cache, delta, w)
    return {**right, "b": right["b"] / len(delta)}


def test_own_second_rule_agrees_by_references_and_without() -> None:
    subject = oracles.manual(forward, backward, second=second)
    result = oracles.check(subject, DENSE, DENSE_REFERENCES, order=2)
    assert result.verdict is Verdict.AGREES
    assert result.judged["order 2: W"] == (6, 6)
    assert result.judged["order 2: delta"] == (8, 8)
    assert 0 < result.detects_above < 1e-12
    assert oracles.check(subject, DENSE, order=2).verdict is Verdict.AGREES


@pytest.mark.parametrize(
    ("wrong", "quantity"),
    [
        (second_without_weights, "z"),
        (second_of_wrong_sign, "W"),
        (second_without_delta, "delta"),
        (second_averaged, "b"),
    ],
)
def test_wrong_second_rule_is_refused(wrong: Any, quantity: str) -> None:
    subject = oracles.manual(forward, backward, second=wrong)
    assert oracles.check(subject, DENSE, DENSE_REFERENCES).verdict is Verdict.AGREES
    for references in (DENSE_REFERENCES, []):
        with pytest.raises(Disagreement) as refusal:
            oracles.check(subject, DENSE, references, order=2)
        assert refusal.value.verdict is Verdict.WRONG
        assert {f.quantity for f in refusal.value.result.findings if f.refuses} == {quantity}
        assert refusal.value.result.property_name == "check, order 2"


def test_finite_differences_of_a_backward_agree() -> None:
    result = oracles.check(oracles.manual(forward, backward), DENSE, DENSE_REFERENCES, order=2)
    assert result.verdict is Verdict.AGREES
    assert result.judged["order 2: z"] == (12, 12)


def test_backward_that_is_right_at_the_point_alone_does_not_agree() -> None:
    """Its finite differences know no slope: the value at the point is off those nearby."""

    def memorized(cache: Any, delta: Any) -> Any:
        is_here = np.array_equal(cache[0], DENSE["z"])
        return {n: g if is_here else 1.5 * g for n, g in backward(cache, delta).items()}

    subject = oracles.manual(forward, memorized)
    assert oracles.check(subject, DENSE, DENSE_REFERENCES).verdict is Verdict.AGREES
    with pytest.raises((Disagreement, Inconclusive)):
        oracles.check(subject, DENSE, DENSE_REFERENCES, order=2)


def test_pullback_of_no_function_has_no_symmetric_hessian() -> None:
    """A field that is no gradient: of ½ zᵀAz with A not symmetric, the gradient is taken for A z."""
    A = np.array([[1.0, 2.0, 0.5], [-1.0, 3.0, 0.25], [0.5, 0.75, 1.5]])

    def quadratic(z: Any) -> Any:
        return 0.5 * z @ A @ z, z

    def right(z: Any, delta: Any) -> Any:
        return {"z": delta * 0.5 * (A + A.T) @ z}

    def wrong(z: Any, delta: Any) -> Any:
        return {"z": delta * A @ z}

    point, delta = {"z": np.array([0.3, -1.2, 0.7])}, np.array(1.0)
    findings = hessian_findings(oracles.manual(quadratic, right), point, delta, ["z"])
    assert [f.verdict for f in findings] == [Verdict.AGREES]
    (finding,) = hessian_findings(oracles.manual(quadratic, wrong), point, delta, ["z"])
    assert finding.verdict is Verdict.WRONG
    assert finding.refuses
    assert oracles.check(oracles.manual(quadratic, right), point, order=2).verdict is Verdict.AGREES


def test_layers_and_losses_of_manual_bp_agree() -> None:
    from manual_bp import LayerNorm, Linear, Sequential, Tanh

    network = Sequential(Linear(3, 4), Tanh(), Linear(4, 2))
    rng = np.random.default_rng(2)
    params = network.init(rng)
    primals = {"z": rng.standard_normal((2, 3)), **params}

    def reference(z: Any, **p: Any) -> Any:
        return torch.tanh(z @ p["0.W"] + p["0.b"]) @ p["2.W"] + p["2.b"]

    against = [oracles.torch_autograd(reference)]
    assert oracles.check(oracles.manual_layer(network), primals, against, order=2).verdict is Verdict.AGREES
    norm = LayerNorm(4)
    point = {"z": rng.standard_normal((3, 4)), **norm.init(rng)}
    assert oracles.check(oracles.manual_layer(norm), point, order=2).verdict is Verdict.AGREES


# ---- torch: double backward by the engine


class Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Any, W: Any, b: Any) -> Any:
        ctx.save_for_backward(z, W, b)
        return torch.tanh(z @ W + b)

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        z, W, b = ctx.saved_tensors
        e = delta * (1 - torch.tanh(z @ W + b) ** 2)
        return e @ W.T, z.T @ e, e.sum(0, keepdim=True)


class Detached(Dense):
    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        z, W, b = ctx.saved_tensors
        e = delta * (1 - torch.tanh(z @ W + b).detach() ** 2)
        return e @ W.T, z.T @ e, e.sum(0, keepdim=True)


class KeptOnContext(Dense):
    """The activation is an attribute of ctx, so that it has no graph."""

    @staticmethod
    def forward(ctx: Any, z: Any, W: Any, b: Any) -> Any:
        ctx.save_for_backward(z, W)
        ctx.a = torch.tanh(z @ W + b)
        return ctx.a.clone()

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        z, W = ctx.saved_tensors
        e = delta * (1 - ctx.a**2)
        return e @ W.T, z.T @ e, e.sum(0, keepdim=True)


class ThroughNumpy(Dense):
    """Its backward computes in NumPy, and nothing says that it can be differentiated once alone."""

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        z, W, b = (t.detach().numpy() for t in ctx.saved_tensors)
        e = delta.detach().numpy() * (1 - np.tanh(z @ W + b) ** 2)
        return tuple(map(torch.from_numpy, (e @ W.T, z.T @ e, e.sum(0, keepdims=True))))


class WithoutGrad(Dense):
    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        z, W, b = ctx.saved_tensors
        with torch.no_grad():
            slope = 1 - torch.tanh(z @ W + b) ** 2
        e = delta * slope
        return e @ W.T, z.T @ e, e.sum(0, keepdim=True)


class OnceDifferentiable(Dense):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, delta: Any) -> Any:
        return Dense.backward(ctx, delta)


class RowSum(torch.autograd.Function):
    """The sum over rows, whose backward leaves the expansion out: the engine expands for it."""

    @staticmethod
    def forward(ctx: Any, e: Any) -> Any:
        ctx.rows = e.shape[0]
        return e.sum(0, keepdim=True)

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        return torch.cat([delta] * (ctx.rows + 1))[: ctx.rows]


class RowTimes(torch.autograd.Function):
    """delta times a row, whose own backward returns the row's gradient unsummed: the engine sums it to shape."""

    @staticmethod
    def forward(ctx: Any, delta: Any, g: Any) -> Any:
        ctx.save_for_backward(delta, g)
        return delta * g

    @staticmethod
    def backward(ctx: Any, w: Any) -> Any:
        delta, g = ctx.saved_tensors
        return w * g, w * delta  # the latter has the shape of delta, and not that of g


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Any, g: Any) -> Any:
        ctx.save_for_backward(z, g)
        return z * g

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        z, g = ctx.saved_tensors
        return delta * g, (delta * z).sum(0, keepdim=True)


class ScaleRepaired(Scale):
    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        z, g = ctx.saved_tensors
        return RowTimes.apply(delta, g), (delta * z).sum(0, keepdim=True)


class TanhDerivative(torch.autograd.Function):
    """1 − tanh², whose own derivative lacks its factor 2."""

    @staticmethod
    def forward(ctx: Any, u: Any) -> Any:
        a = torch.tanh(u)
        ctx.save_for_backward(a)
        return 1 - a**2

    @staticmethod
    def backward(ctx: Any, w: Any) -> Any:
        (a,) = ctx.saved_tensors
        return -w * a * (1 - a**2)


class DenseOfWrongSecond(Dense):
    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        z, W, b = ctx.saved_tensors
        e = delta * TanhDerivative.apply(z @ W + b)
        return e @ W.T, z.T @ e, RowSum.apply(e)


class DenseByRowSum(Dense):
    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        z, W, b = ctx.saved_tensors
        e = delta * (1 - torch.tanh(z @ W + b) ** 2)
        return e @ W.T, z.T @ e, RowSum.apply(e)


class Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Any) -> Any:
        a = torch.softmax(z, 1)
        ctx.save_for_backward(a)  # an output: its graph is this Function's own
        return a

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        (a,) = ctx.saved_tensors
        return a * (delta - (delta * a).sum(1, keepdim=True))


@pytest.mark.parametrize("function", [Dense, DenseByRowSum])
def test_double_backward_of_a_function_agrees(function: Any) -> None:
    result = oracles.check(oracles.torch_function(function), DENSE, DENSE_REFERENCES, order=2)
    assert result.verdict is Verdict.AGREES
    assert result.judged["order 2: b"] == (2, 2)


def test_double_backward_through_a_saved_output_agrees() -> None:
    subject = oracles.torch_function(Softmax)
    assert oracles.check(subject, VECTOR, SOFTMAX_REFERENCES, order=2).verdict is Verdict.AGREES


def test_double_backward_agrees_in_float32() -> None:
    primals = {n: a.astype(np.float32) for n, a in DENSE.items()}
    result = oracles.check(oracles.torch_function(Dense), primals, DENSE_REFERENCES, order=2)
    assert result.verdict is Verdict.AGREES
    assert 1e-8 < result.detects_above < 1e-3


@pytest.mark.parametrize("function", [Detached, KeptOnContext, ThroughNumpy, WithoutGrad, DenseOfWrongSecond])
def test_wrong_double_backward_is_refused_and_named(function: Any) -> None:
    subject = oracles.torch_function(function)
    assert oracles.check(subject, DENSE, DENSE_REFERENCES).verdict is Verdict.AGREES
    with pytest.raises(Disagreement) as refusal:
        oracles.check(subject, DENSE, DENSE_REFERENCES, order=2)
    assert refusal.value.verdict is Verdict.WRONG
    assert diagnosis_of(refusal.value.result).pattern == "cut_graph"


def test_shape_that_the_engine_repairs_in_double_backward_is_refused() -> None:
    primals = {"z": DENSE["z"], "g": RNG.standard_normal((1, 3))}
    against = [oracles.torch_autograd(lambda z, g: z * g)]
    assert oracles.check(oracles.torch_function(Scale), primals, against, order=2).verdict is Verdict.AGREES
    subject = oracles.torch_function(ScaleRepaired)
    assert oracles.check(subject, primals, against).verdict is Verdict.AGREES
    inputs = [torch.tensor(a, requires_grad=True) for a in primals.values()]
    assert torch.autograd.gradgradcheck(ScaleRepaired.apply, inputs)  # it does not see the repair
    with pytest.raises(Disagreement) as refusal:
        oracles.check(subject, primals, against, order=2)
    assert "RowTimes" in str(refusal.value)


def test_function_that_is_differentiable_once_is_no_wrong_one() -> None:
    with pytest.raises(InvalidInput, match="once_differentiable"):
        oracles.check(oracles.torch_function(OnceDifferentiable), DENSE, DENSE_REFERENCES, order=2)


def test_module_with_a_detached_function_inside_is_refused() -> None:
    class Layer(torch.nn.Module):
        def __init__(self, function: Any) -> None:
            super().__init__()
            self.W = torch.nn.Parameter(torch.zeros(3, 2))
            self.b = torch.nn.Parameter(torch.zeros(1, 2))
            self.function = function

        def forward(self, z: Any) -> Any:
            return self.function.apply(z, self.W, self.b)

    right, wrong = (oracles.torch_module(lambda f=f: Layer(f)) for f in (Dense, Detached))
    assert oracles.check(right, DENSE, DENSE_REFERENCES, order=2).verdict is Verdict.AGREES
    with pytest.raises(Disagreement):
        oracles.check(wrong, DENSE, DENSE_REFERENCES, order=2)


def test_kink_of_the_first_order_is_no_defect_of_the_second() -> None:
    class Relu(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Any) -> Any:
            ctx.save_for_backward(z)
            return z.clamp(min=0)

        @staticmethod
        def backward(ctx: Any, delta: Any) -> Any:
            (z,) = ctx.saved_tensors
            return delta * (z > 0)

    against = [oracles.torch_autograd(torch.relu), oracles.jax_vjp(jax.nn.relu)]
    z = np.array([[1.0, -2.0, 0.0, 3.0]])
    assert oracles.check(oracles.torch_function(Relu), {"input": z}, against[:1], order=2).verdict is not Verdict.WRONG


def test_cumprod_of_zeros_has_its_second_derivative() -> None:
    """The gradient by division is right where no entry is zero; torch's own, and one by products, are right there."""

    def products(z: Any) -> Any:
        parts = [torch.ones_like(z[0])]
        for i in range(len(z)):
            parts.append(parts[-1] * z[i])
        return torch.stack(parts[1:])

    class Cumprod(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Any) -> Any:
            ctx.save_for_backward(z)
            return torch.cumprod(z, 0)

        @staticmethod
        def backward(ctx: Any, delta: Any) -> Any:
            (z,) = ctx.saved_tensors
            total = torch.zeros_like(z)
            for i in range(len(z)):
                others = torch.cat([z[:i], torch.ones(1, dtype=z.dtype), z[i + 1 :]])
                parts = [torch.prod(others[: k + 1]) if k >= i else 0 * z[0] for k in range(len(z))]
                slope = torch.stack(parts)
                total = total + torch.nn.functional.one_hot(torch.tensor(i), len(z)).to(z) * (delta * slope).sum()
            return total

    class CumprodOfZeros(Cumprod):
        """Products of the others at a zero are computed without a graph."""

        @staticmethod
        def backward(ctx: Any, delta: Any) -> Any:
            (z,) = ctx.saved_tensors
            if bool((z != 0).all()):
                return (delta * torch.cumprod(z, 0)).flip(0).cumsum(0).flip(0) / z
            return Cumprod.backward(type("Context", (), {"saved_tensors": (z.detach(),)}), delta)

    against = [oracles.torch_autograd(products), oracles.jax_vjp(lambda z: jnp.cumprod(z))]
    zeros = {"z": np.array([0.5, 0.0, 2.0, 0.0, 1.5])}
    ordinary = {"z": np.array([0.5, 1.0, 2.0, -0.5, 1.5])}
    assert oracles.check(oracles.torch_function(Cumprod), zeros, against, order=2).verdict is Verdict.AGREES
    subject = oracles.torch_function(CumprodOfZeros)
    assert oracles.check(subject, ordinary, against, order=2).verdict is Verdict.AGREES
    assert oracles.check(subject, zeros, against).verdict is Verdict.AGREES
    with pytest.raises(Disagreement):
        oracles.check(subject, zeros, against, order=2)


# ---- JAX


def jax_dense(cut: Any) -> Any:
    @jax.custom_vjp
    def dense(z: Any, W: Any, b: Any) -> Any:
        return jnp.tanh(z @ W + b)

    def fwd(z: Any, W: Any, b: Any) -> Any:
        return jnp.tanh(z @ W + b), (z, W, b)

    def bwd(residuals: Any, delta: Any) -> Any:
        z, W, b = residuals
        e = delta * (1 - cut(jnp.tanh(z @ W + b)) ** 2)
        return e @ W.T, z.T @ e, e.sum(axis=0, keepdims=True)

    dense.defvjp(fwd, bwd)
    return dense


@jax.custom_jvp
def halved(a: Any) -> Any:
    return a


halved.defjvp(lambda primals, tangents: (primals[0], 0.5 * tangents[0]))


def test_reverse_over_reverse_of_a_custom_vjp_agrees() -> None:
    subject = oracles.jax_function(jax_dense(lambda a: a))
    assert oracles.check(subject, DENSE, DENSE_REFERENCES, order=2).verdict is Verdict.AGREES


@pytest.mark.parametrize("cut", [jax.lax.stop_gradient, halved])
def test_constant_or_wrong_rule_inside_bwd_is_refused(cut: Any) -> None:
    subject = oracles.jax_function(jax_dense(cut))
    assert oracles.check(subject, DENSE, DENSE_REFERENCES).verdict is Verdict.AGREES
    with pytest.raises(Disagreement) as refusal:
        oracles.check(subject, DENSE, DENSE_REFERENCES, order=2)
    assert diagnosis_of(refusal.value.result).pattern == "cut_graph"


# ---- what is around it


def test_refusal_of_the_second_order_writes_a_script_and_json(tmp_path: Any) -> None:
    import subprocess
    import sys

    with pytest.raises(Disagreement) as refusal:
        oracles.check(oracles.torch_function(Detached), DENSE, DENSE_REFERENCES, order=2)
    file = tmp_path / "shows_it.py"
    file.write_text(refusal.value.script())
    assert subprocess.run([sys.executable, str(file)], capture_output=True, check=False).returncode == 1
    assert refusal.value.document()["property"] == "check, order 2"


def test_several_outputs_and_an_integer_one() -> None:
    class Pair(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Any) -> Any:
            ctx.save_for_backward(z)
            count = (z > 0).sum()
            ctx.mark_non_differentiable(count)
            return z**3, torch.sin(z), count

        @staticmethod
        def backward(ctx: Any, cubed: Any, sine: Any, _: Any) -> Any:
            (z,) = ctx.saved_tensors
            return cubed * 3 * z**2 + sine * torch.cos(z)

    class CutPair(Pair):
        @staticmethod
        def backward(ctx: Any, cubed: Any, sine: Any, _: Any) -> Any:
            (z,) = ctx.saved_tensors
            return cubed * 3 * z**2 + sine * torch.cos(z.detach())

    against = [oracles.torch_autograd(lambda z: (z**3, torch.sin(z), (z > 0).sum()))]
    for reference in (against, [oracles.torch_autograd(lambda z: (z**3, torch.sin(z)))]):
        assert oracles.check(oracles.torch_function(Pair), VECTOR, reference, order=2).verdict is Verdict.AGREES
        with pytest.raises(Disagreement) as refusal:
            oracles.check(oracles.torch_function(CutPair), VECTOR, reference, order=2)
        assert diagnosis_of(refusal.value.result).pattern == "cut_graph"


def test_trees_of_primals() -> None:
    def tree_forward(params: Any, z: Any) -> Any:
        return forward(z, params["W"], params["b"])

    def tree_backward(cache: Any, delta: Any) -> Any:
        g = backward(cache, delta)
        return {"params": {"W": g["W"], "b": g["b"]}, "z": g["z"]}

    point = {"params": {"W": DENSE["W"], "b": DENSE["b"]}, "z": DENSE["z"]}
    against = [oracles.torch_autograd(lambda params, z: dense_by_torch(z, params["W"], params["b"]))]
    result = oracles.check(oracles.manual(tree_forward, tree_backward), point, against, order=2)
    assert result.verdict is Verdict.AGREES
    assert 'order 2: params["W"]' in result.judged


@pytest.mark.parametrize(("order", "mode"), [(3, "vjp"), (True, "vjp"), (2, "jvp"), (1, "forward")])
def test_orders_and_modes_that_do_not_exist_are_invalid(order: Any, mode: Any) -> None:
    with pytest.raises(InvalidInput, match=r"order|mode"):
        oracles.check(oracles.manual(forward, backward), DENSE, order=order, mode=mode)


def test_reference_by_torchs_fused_attention_has_a_second_derivative() -> None:
    def attention(q: Any, k: Any, v: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    def by_hand(q: Any, k: Any, v: Any) -> Any:
        p = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
        p = p / p.sum(axis=-1, keepdims=True)
        return p @ v, (q, k, v, p)

    def backward_by_hand(cache: Any, delta: Any) -> Any:
        q, k, v, p = cache
        dp = delta @ v.swapaxes(-1, -2)
        ds = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / np.sqrt(q.shape[-1])
        return {"q": ds @ k, "k": ds.swapaxes(-1, -2) @ q, "v": p.swapaxes(-1, -2) @ delta}

    primals = {n: np.random.default_rng(i).standard_normal((1, 3, 2)) for i, n in enumerate("qkv")}
    subject = oracles.manual(by_hand, backward_by_hand)
    assert oracles.check(subject, primals, [oracles.torch_autograd(attention)], order=2).verdict is Verdict.AGREES


class ComplexSquare(torch.autograd.Function):
    @staticmethod
    def forward(z: Any) -> Any:
        return z * z

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        return delta * 2 * ctx.saved_tensors[0].conj()

    @staticmethod
    def jvp(ctx: Any, tangent: Any) -> Any:
        return 2 * ctx.saved_tensors[0] * tangent


class ComplexSquareCut(ComplexSquare):
    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        return delta * 2 * ctx.saved_tensors[0].conj().detach()


class ComplexSquareConjugated(ComplexSquare):
    @staticmethod
    def jvp(ctx: Any, tangent: Any) -> Any:
        return 2 * ctx.saved_tensors[0].conj() * tangent


def test_complex_numbers_are_pairs_in_further_derivatives_too() -> None:
    z = RNG.standard_normal((3, 2)) + 1j * RNG.standard_normal((3, 2))
    against = [oracles.torch_autograd(lambda z: z * z)]
    result = oracles.check(oracles.torch_function(ComplexSquare), {"z": z}, against, order=2, mode="both")
    assert result.verdict is Verdict.AGREES
    assert {"order 2: z.imag", "jvp: z.real_dot"} <= {*result.judged}
    for wrong in (ComplexSquareCut, ComplexSquareConjugated):
        assert oracles.check(oracles.torch_function(wrong), {"z": z}, against).verdict is Verdict.AGREES
        with pytest.raises(Disagreement):
            oracles.check(oracles.torch_function(wrong), {"z": z}, against, order=2, mode="both")


# ---- the derivative by delta, in the structure of the output


def in_dict(sine: Any, square: Any) -> Any:
    return {"sine": sine, "square": square}


def nested(sine: Any, square: Any) -> Any:
    return {"all": [sine, (square,)], "none": None}


# How the two outputs sin(x) and x² are returned, and how they are read from a cotangent.
STRUCTURES = {
    "tuple": (lambda sine, square: (sine, square), lambda d: d),
    "dict": (in_dict, lambda d: (d["sine"], d["square"])),
    "nested": (nested, lambda d: (d["all"][0], d["all"][1][0])),
}
VECTOR_OF_THREE = {"x": np.array([0.4, -1.3, 2.1])}


def sine_and_square(structure: str, by_delta: Any, arrays: Any = "numpy") -> Any:
    """Return the subject of sin(x) and x²; ``by_delta(x, w)`` gives what ``second`` returns for the two deltas."""
    module = torch if arrays == "torch" else np
    made, read = STRUCTURES[structure]

    def backward(x: Any, delta: Any) -> Any:
        of_sine, of_square = read(delta)
        return {"x": of_sine * module.cos(x) + 2 * x * of_square}

    def second(x: Any, delta: Any, w: Any) -> Any:
        of_sine, of_square = read(delta)
        by_x = w["x"] * (2 * of_square - of_sine * module.sin(x))
        return {"x": by_x, "delta": made(*by_delta(module, x, w["x"]))}

    return oracles.manual(lambda x: (made(module.sin(x), x**2), x), backward, second=second, arrays=arrays)


def right_by_delta(module: Any, x: Any, w: Any) -> Any:
    return w * module.cos(x), 2 * x * w


@pytest.mark.parametrize("has_reference", [True, False], ids=["torch", "differences"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_delta_of_a_second_rule_has_the_structure_of_the_output(structure: str, has_reference: bool) -> None:
    made, _ = STRUCTURES[structure]
    against = [oracles.torch_autograd(lambda x: made(torch.sin(x), x**2))] if has_reference else []
    for arrays in ("numpy", "torch"):
        subject = sine_and_square(structure, right_by_delta, arrays)
        assert oracles.check(subject, VECTOR_OF_THREE, against, order=2).verdict is Verdict.AGREES
    wrong = sine_and_square(structure, lambda module, x, w: (w * module.cos(x), x * w))
    with pytest.raises(Disagreement) as refusal:
        oracles.check(wrong, VECTOR_OF_THREE, against, order=2)
    assert refusal.value.result.worst.quantity == "delta[1]"


@pytest.mark.parametrize("has_reference", [True, False], ids=["torch", "differences"])
def test_delta_of_a_complex_output_is_complex(has_reference: bool) -> None:
    """∂⟨w, δ·conj(3z²)⟩/∂δ = w·3z² and ∂/∂z = conj(w)·δ·conj(6z), in torch's convention."""
    z = RNG.standard_normal(3) + 1j * RNG.standard_normal(3)

    def cube(by_delta: Any) -> Any:
        return oracles.manual(
            lambda z: (z**3, z),
            lambda z, delta: {"z": delta * np.conj(3 * z**2)},
            second=lambda z, delta, w: {"z": np.conj(w["z"]) * delta * np.conj(6 * z), "delta": by_delta(z, w["z"])},
        )

    def conjugated(z: Any, w: Any) -> Any:
        return w * np.conj(3 * z**2)

    against = [oracles.torch_autograd(lambda z: z**3)] if has_reference else []
    assert oracles.check(cube(lambda z, w: w * 3 * z**2), {"z": z}, against, order=2).verdict is Verdict.AGREES
    with pytest.raises(Disagreement) as refusal:
        oracles.check(cube(conjugated), {"z": z}, against, order=2)
    assert refusal.value.result.worst.quantity.startswith("delta")


@pytest.mark.parametrize("wrong", [lambda a, b: (a,), lambda a, b: {"sine": a}, lambda a, b: {"sine": a, "cube": b}])
def test_delta_of_another_structure_is_invalid_input(wrong: Any) -> None:
    made, read = STRUCTURES["dict"]
    subject = oracles.manual(
        lambda x: (made(np.sin(x), x**2), x),
        lambda x, delta: {"x": read(delta)[0] * np.cos(x) + 2 * x * read(delta)[1]},
        second=lambda x, delta, w: {"x": w["x"], "delta": wrong(w["x"] * np.cos(x), 2 * x * w["x"])},
    )
    with pytest.raises(InvalidInput, match="delta"):
        oracles.check(subject, VECTOR_OF_THREE, order=2)


def test_primal_that_is_called_delta_is_no_delta() -> None:
    """With such a primal, the derivative by the cotangent is called "delta_"."""
    subject = oracles.manual(
        lambda delta: (delta**2, delta),
        lambda primal, cotangent: {"delta": 2 * primal * cotangent},
        second=lambda primal, cotangent, w: {"delta": 2 * cotangent * w["delta"], "delta_": 2 * primal * w["delta"]},
    )
    result = oracles.check(subject, {"delta": VECTOR_OF_THREE["x"]}, order=2)
    assert result.verdict is Verdict.AGREES
    assert {"order 2: delta", "order 2: delta_"} <= {*result.judged}


def test_isolated_subject_is_differentiated_twice_in_its_own_process() -> None:
    pytest.importorskip("cloudpickle")
    result = oracles.check(oracles.torch_function(Dense), DENSE, DENSE_REFERENCES, order=2, isolate=True, seconds=120)
    assert result.verdict is Verdict.AGREES
    with pytest.raises(Disagreement):
        oracles.check(oracles.torch_function(Detached), DENSE, DENSE_REFERENCES, order=2, isolate=True, seconds=120)


# ---- what it costs


def test_finite_differences_of_a_backward_call_it_as_often_as_they_need() -> None:
    """Its calls are compared in the first order; three deltas share the points of the second."""
    calls = 0

    def counted(z: Any, W: Any, b: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(z, W, b)

    subject = oracles.manual(counted, backward)
    oracles.check(subject, DENSE, DENSE_REFERENCES)
    first, calls = calls, 0
    assert oracles.check(subject, DENSE, DENSE_REFERENCES, order=2).verdict is Verdict.AGREES
    entries = sum(a.size for a in DENSE.values()) + 8  # and those of delta
    assert calls <= 2 * first + 22 * entries


def test_backward_that_counts_its_calls_is_refused_before_the_second_order() -> None:
    """The second order compares no calls of a measured pullback: those of the first order show what changes."""
    calls = 0

    def drifting(cache: Any, delta: Any) -> Any:
        nonlocal calls
        calls += 1
        return {n: g * (1.0 if calls < 2 else 1.25) for n, g in backward(cache, delta).items()}

    with pytest.raises(Disagreement) as refusal:
        oracles.check(oracles.manual(forward, drifting), DENSE, DENSE_REFERENCES, order=2)
    assert refusal.value.verdict is Verdict.WRONG
    assert refusal.value.result.property_name == "check"


def test_what_xla_compiles_for_a_derivative_is_kept() -> None:
    rule = oracles.jax_vjp(lambda z: jnp.sin(z), through="xla")
    point = {"z": VECTOR["z"], "z_dot": VECTOR["z"]}
    for _ in range(2):
        second, tangent = rule.derivatives.second, rule.derivatives.tangent
        assert second is not None
        assert tangent is not None
        made = second(("z",), ("delta",)), tangent({"z": "z_dot"})
        for derived, arrays in zip(made, ({"z": VECTOR["z"], "delta": VECTOR["z"]}, point), strict=True):
            y, pullback = derived(**arrays)
            pullback(y)
        assert [derived.evaluate.compilations for derived in made] == [2, 2]
