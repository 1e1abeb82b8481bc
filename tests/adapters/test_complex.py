"""Complex primals, outputs and cotangents: judged as pairs of real numbers, in torch's convention or JAX's."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import oracles
from oracles.properties import PROPERTIES
from oracles.search import run_search
from oracles.strategies import complex_numbers, rows, widths
from oracles.verdict import Verdict

N = 6
RNG = np.random.default_rng(0)


def draw(*shape, dtype=np.complex128):
    return (RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)).astype(dtype)


Z, W, X = draw(3, N), draw(N, 2), RNG.standard_normal((3, N))


@dataclass(frozen=True)
class Rule:
    """A primal in NumPy, torch and JAX, with a right pullback and wrong ones.

    ``pull(cache, d)`` returns the cotangents in torch's convention, in the order of the primals.
    """

    primals: dict[str, Any]
    forward: Any
    torch: Any
    jax: Any
    pull: Any
    wrong: dict[str, Any]


def unit(z):
    return z / np.abs(z)


RULES = {
    "fft": Rule(
        {"z": Z}, np.fft.fft, torch.fft.fft, jnp.fft.fft,
        lambda c, d: N * np.fft.ifft(d),
        {"conjugated": lambda c, d: np.fft.fft(d), "not scaled": lambda c, d: np.fft.ifft(d),
         "its imaginary part dropped": lambda c, d: (N * np.fft.ifft(d)).real},
    ),
    "rfft": Rule(
        {"x": X}, np.fft.rfft, torch.fft.rfft, jnp.fft.rfft,
        lambda c, d: np.fft.fft(np.concatenate([d.conj(), 0 * d[:, : N - d.shape[1]]], 1)).real,
        {"the inverse": lambda c, d: N * np.fft.irfft(d, N)},
    ),
    "irfft": Rule(
        {"z": Z[:, : N // 2 + 1]}, lambda z: np.fft.irfft(z, N), lambda z: torch.fft.irfft(z, N),
        lambda z: jnp.fft.irfft(z, N),
        lambda c, d: np.fft.rfft(d) * np.array([1, 2, 2, 1]) / N * np.array([[1, 1, 1, 1]]),
        {"not doubled": lambda c, d: np.fft.rfft(d) / N},
    ),
    "matmul": Rule(
        {"z": Z, "W": W}, np.matmul, lambda z, W: z @ W, lambda z, W: z @ W,
        lambda c, d: (d @ c[1].conj().T, c[0].conj().T @ d),
        {"no conjugate": lambda c, d: (d @ c[1].T, c[0].conj().T @ d),
         "delta conjugated": lambda c, d: (d.conj() @ c[1].conj().T, c[0].conj().T @ d)},
    ),
    "square": Rule(
        {"z": Z}, np.square, torch.square, jnp.square,
        lambda c, d: 2 * c.conj() * d,
        {"no conjugate": lambda c, d: 2 * c * d, "half": lambda c, d: c.conj() * d},
    ),
    "abs": Rule(
        {"z": Z}, np.abs, torch.abs, jnp.abs,
        lambda c, d: d * unit(c),
        {"conjugated": lambda c, d: d * unit(c).conj(), "half": lambda c, d: d * unit(c) / 2},
    ),
    "angle": Rule(
        {"z": Z}, np.angle, torch.angle, jnp.angle,
        lambda c, d: 1j * d * c / np.abs(c) ** 2,
        {"sign": lambda c, d: -1j * d * c / np.abs(c) ** 2},
    ),
    "polar": Rule(
        {"r": np.abs(X) + 1, "t": X}, lambda r, t: r * np.exp(1j * t), torch.polar, lambda r, t: r * jnp.exp(1j * t),
        lambda c, d: ((d * np.exp(-1j * c[1])).real, (d * np.conj(1j * c[0] * np.exp(1j * c[1]))).real),
        {"the imaginary part for the real one": lambda c, d: ((d * np.exp(-1j * c[1])).real, 0 * c[1])},
    ),
    "conj": Rule({"z": Z}, np.conj, torch.conj, jnp.conj, lambda c, d: d.conj(), {"itself": lambda c, d: d}),
}  # fmt: skip
WRONG = [(name, defect) for name, rule in RULES.items() for defect in rule.wrong]


def named(rule, returned):
    returned = returned if isinstance(returned, tuple) else (returned,)
    return dict(zip(rule.primals, returned, strict=True))


def by_manual(rule, pull):
    def forward(**primals):
        arrays = tuple(primals.values())
        return rule.forward(*arrays), arrays if len(arrays) > 1 else arrays[0]

    return oracles.manual(forward, lambda cache, d: named(rule, pull(cache, d)))


def by_function(rule, pull):
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *arrays):
            ctx.save_for_backward(*arrays)
            return rule.torch(*arrays).clone()

        @staticmethod
        def backward(ctx, d):
            cache = tuple(a.detach().resolve_conj().numpy() for a in ctx.saved_tensors)
            returned = pull(cache if len(cache) > 1 else cache[0], d.detach().resolve_conj().numpy())
            parts = returned if isinstance(returned, tuple) else (returned,)
            return tuple(torch.from_numpy(np.ascontiguousarray(g)) for g in parts)

    names = ", ".join(rule.primals)
    scope: dict[str, Any] = {"Own": Own}
    # apply takes its arguments by position, and the adapter reads their names.
    exec(f"def forward(ctx, {names}): return Own_forward(ctx, {names})", {"Own_forward": Own.forward}, scope)
    return oracles.torch_function(type("Own", (Own,), {"forward": staticmethod(scope["forward"])}))


def by_custom_vjp(rule, pull):
    """JAX takes and returns the conjugates of torch's cotangents."""
    like = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in rule.primals.values()]

    def own(*arrays):
        return rule.jax(*arrays)

    def backward(cache, d):
        def call(d, *arrays):
            returned = pull(tuple(arrays) if len(arrays) > 1 else arrays[0], np.conj(d))
            parts = returned if isinstance(returned, tuple) else (returned,)
            return tuple(np.asarray(np.conj(g), s.dtype) for g, s in zip(parts, like, strict=True))

        return jax.pure_callback(call, tuple(like), d, *cache)

    f = jax.custom_vjp(own)
    f.defvjp(lambda *arrays: (own(*arrays), arrays), backward)
    return oracles.jax_function(f)


ADAPTERS = {"manual": by_manual, "torch_function": by_function, "jax_function": by_custom_vjp}
AGAINST = {
    "torch": lambda rule: [oracles.torch_autograd(rule.torch)],
    "jax": lambda rule: [oracles.jax_vjp(rule.jax)],
    "alone": lambda rule: [],
}


# Each adapter with the reference of its own framework, and functions with every oracle.
JUDGED = [
    ("manual", "torch"),
    ("manual", "jax"),
    ("manual", "alone"),
    ("torch_function", "torch"),
    ("jax_function", "jax"),
]


@pytest.mark.parametrize(("adapter", "against"), JUDGED)
@pytest.mark.parametrize("name", RULES)
def test_right_rules_agree(name, adapter, against):
    rule = RULES[name]
    result = oracles.check(ADAPTERS[adapter](rule, rule.pull), rule.primals, AGAINST[against](rule))
    assert result.verdict is Verdict.AGREES
    parts = {f"{n}.{p}" for n, a in rule.primals.items() if np.iscomplexobj(a) for p in ("real", "imag")}
    assert parts <= set(result.judged)
    assert all(k == n for k, n in result.judged.values())


@pytest.mark.parametrize(("adapter", "against"), JUDGED)
@pytest.mark.parametrize(("name", "defect"), WRONG)
def test_wrong_rules_are_refused(name, defect, adapter, against):
    rule = RULES[name]
    if adapter == "jax_function" and defect == "its imaginary part dropped":
        pytest.skip("JAX casts what a bwd returns to the dtype of the primal")
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(ADAPTERS[adapter](rule, rule.wrong[defect]), rule.primals, AGAINST[against](rule))
    assert excinfo.value.verdict is Verdict.WRONG
    assert excinfo.value.result.worst.is_cotangent
    compile(excinfo.value.script(), "script.py", "exec")


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_the_precision_is_that_of_the_parts(dtype):
    rule = RULES["square"]
    result = oracles.check(by_manual(rule, rule.pull), {"z": draw(4, dtype=dtype)}, AGAINST["torch"](rule))
    assert result.setting.precision == {"complex64": "float32", "complex128": "float64"}[np.dtype(dtype).name]
    assert result.verdict is Verdict.AGREES


def conjugated(pull):
    def of_jax(cache, d):
        returned = pull(cache, np.conj(d))
        return tuple(map(np.conj, returned)) if isinstance(returned, tuple) else np.conj(returned)

    return of_jax


@pytest.mark.parametrize("name", ["fft", "matmul", "abs", "irfft"])
def test_jax_convention_is_declared(name):
    rule = RULES[name]
    subject = by_manual(rule, conjugated(rule.pull))
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(subject, rule.primals, AGAINST["torch"](rule))
    assert excinfo.value.verdict is Verdict.WRONG
    assert "conjugate=True" in excinfo.value.diagnosis
    declared = oracles.declared(subject, conjugate=True)
    assert oracles.check(declared, rule.primals, AGAINST["torch"](rule)).verdict is Verdict.AGREES
    right = oracles.declared(by_manual(rule, rule.pull), conjugate=True)
    with pytest.raises(oracles.Disagreement):
        oracles.check(right, rule.primals, AGAINST["torch"](rule))


class Mixing:
    """A class with a complex weight: y = |z W|²."""

    def __init__(self):
        self.W = np.zeros((N, 2), np.complex128)

    def forward(self, z):
        self.z, self.y = z, z @ self.W
        return np.abs(self.y) ** 2

    def backward(self, delta):
        d = 2 * self.y * delta
        self.dW = self.z.conj().T @ d
        return d @ self.W.conj().T


class Unconjugated(Mixing):
    def backward(self, delta):
        super().backward(delta)
        self.dW = self.z.T @ (2 * self.y * delta)
        return (2 * self.y * delta) @ self.W.conj().T


def modulus(z, W):
    return (z @ W).abs() ** 2


def test_a_class_with_a_complex_weight():
    primals, against = {"z": Z, "W": W}, [oracles.torch_autograd(modulus)]
    subject = oracles.stateful(Mixing, params=["W"], grads={"W": "dW"})
    assert oracles.check(subject, primals, against).verdict is Verdict.AGREES
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(oracles.stateful(Unconjugated, params=["W"], grads={"W": "dW"}), primals, against)
    assert excinfo.value.result.worst.quantity in ("W.real", "W.imag")


def test_a_loss_of_complex_parameters():
    def right(z, W):
        y = z @ W
        return float((np.abs(y) ** 2).sum()), {"z": 2 * y @ W.conj().T, "W": 2 * z.conj().T @ y}

    def wrong(z, W):
        value, gradients = right(z, W)
        return value, {**gradients, "W": gradients["W"].conj()}

    against = [oracles.torch_autograd(lambda z, W: modulus(z, W).sum())]
    assert oracles.check(oracles.value_and_grad(right), {"z": Z, "W": W}, against).verdict is Verdict.AGREES
    with pytest.raises(oracles.Disagreement):
        oracles.check(oracles.value_and_grad(wrong), {"z": Z, "W": W}, against)


def test_a_complex_gradient_of_a_real_primal_is_refused():
    rule = RULES["rfft"]
    subject = by_manual(rule, lambda c, d: rule.pull(c, d) + 1j)
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(subject, rule.primals, AGAINST["torch"](rule))
    assert (excinfo.value.verdict, excinfo.value.result.worst.quantity) == (Verdict.WRONG, "x")


def squares(pull):
    @st.composite
    def cases(draw):
        primals = {"z": complex_numbers(draw(rows()), draw(widths()))}
        return oracles.Case(by_manual(RULES["square"], pull), primals, torch=torch.square, batched=("z",))

    return cases()


def test_a_search_draws_complex_numbers():
    def search(pull, name):
        run_search(squares(pull), name, "float64", max_examples=20, seed=0)

    for name in PROPERTIES:
        search(RULES["square"].pull, name)
    with pytest.raises(oracles.Disagreement):
        search(RULES["square"].wrong["no conjugate"], "cotangents_agree")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1.0, 1.01])
def test_a_complex_product_has_a_tolerance_of_rounding(seed, scale):
    """torch's backward of a product conjugates lazily: nothing moves in memory."""
    rng = np.random.default_rng(seed)
    z, W = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for shape in ((3, 4), (4, 2)))
    subject = oracles.manual(
        lambda z, W: (z @ W, (z, W)),
        lambda c, d: {"z": scale * d @ c[1].conj().T, "W": c[0].conj().T @ d},
    )
    reference = oracles.torch_autograd(lambda z, W: z @ W)
    if scale == 1.0:
        result = oracles.check(subject, {"z": z, "W": W}, [reference])
        assert result.verdict is Verdict.AGREES
        assert all(f.judged[0] == f.judged[1] for f in result.findings)
        return
    with pytest.raises(oracles.Disagreement) as refusal:
        oracles.check(subject, {"z": z, "W": W}, [reference])
    assert refusal.value.verdict is Verdict.WRONG
