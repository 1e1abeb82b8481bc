"""Straight-through estimators: judged against references whose steps are differentiated as the identity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import oracles
from oracles.search import run_search
from oracles.strategies import real, rows
from oracles.verdict import Verdict

RNG = np.random.default_rng(0)
Z = {"z": 2 * RNG.standard_normal((3, 4))}
CODES = {"z": Z["z"], "s": np.array([0.3])}
F = torch.nn.functional


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def one_hot(z):
    return np.eye(z.shape[-1])[z.argmax(-1)].astype(z.dtype)


def of_softmax(z, d):
    p = softmax(z)
    return p * (d - (p * d).sum(-1, keepdims=True))


def quantised(z, s):
    return s * np.round(np.clip(z / s, -4, 3))


def of_quantised(z, s, d):
    """Learned step size (Esser et al., 2019): round is the identity, and clip is differentiated."""
    inside = (z / s > -4) & (z / s < 3)
    return {"z": d * inside, "s": (d * (quantised(z, s) - inside * z) / s).sum().reshape(1)}


# Of each: the primals, the forward, its straight-through backward, the true one, and the references.
RULES = {
    "round": (
        Z, lambda z: np.round(4 * z) / 4, lambda z, d: {"z": d}, lambda z, d: {"z": 0 * d},
        lambda z: (4 * z).round() / 4, lambda z: jnp.round(4 * z) / 4,
    ),
    "sign inside [-1, 1]": (
        Z, lambda z: np.sign(np.clip(z, -1, 1)), lambda z, d: {"z": d * (np.abs(z) < 1)}, lambda z, d: {"z": 0 * d},
        lambda z: z.clamp(-1, 1).sign(), lambda z: jnp.sign(jnp.clip(z, -1, 1)),
    ),
    "learned step size": (
        CODES, quantised, of_quantised,
        lambda z, s, d: {"z": 0 * d, "s": (d * quantised(z, s) / s).sum().reshape(1)},
        lambda z, s: s * (z / s).clamp(-4, 3).round(), lambda z, s: s * jnp.round(jnp.clip(z / s, -4, 3)),
    ),
    "one-hot argmax of softmax": (
        Z, one_hot, lambda z, d: {"z": of_softmax(z, d)}, lambda z, d: {"z": 0 * d},
        lambda z: F.one_hot(z.softmax(-1).argmax(-1), 4).to(z.dtype),
        lambda z: jax.nn.one_hot(jax.nn.softmax(z).argmax(-1), 4),
    ),
    "threshold": (
        Z, lambda z: 3.0 * (z > 0), lambda z, d: {"z": 3 * d}, lambda z, d: {"z": 0 * d},
        lambda z: 3.0 * (z > 0), lambda z: 3.0 * (z > 0),
    ),
    "integers": (
        Z, lambda z: np.trunc(4 * z) / 4, lambda z, d: {"z": d}, lambda z, d: {"z": 0 * d},
        lambda z: (4 * z).int().to(z.dtype) / 4, lambda z: (4 * z).astype(int).astype(z.dtype) / 4,
    ),
    "where": (
        Z, lambda z: np.where(z > 0, 1.0, -1.0), lambda z, d: {"z": d}, lambda z, d: {"z": 0 * d},
        lambda z: torch.where(z > 0, 1.0, -1.0), lambda z: jnp.where(z > 0, 1.0, -1.0),
    ),
}  # fmt: skip


def manual(name, backward):
    forward = RULES[name][1]
    return oracles.manual(lambda **p: (forward(**p), p), lambda p, d: backward(**p, d=d))


def torch_function(name, backward):
    primals, _, _, _, reference, _ = RULES[name]

    def pulled(ctx, d):
        arrays = {n: a.detach().numpy() for n, a in zip(primals, ctx.saved_tensors, strict=True)}
        return tuple(torch.from_numpy(np.asarray(g)) for g in backward(**arrays, d=d.numpy()).values())

    def keep(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    methods = {
        "forward": staticmethod((lambda z: reference(z)) if len(primals) == 1 else (lambda z, s: reference(z, s))),
        "setup_context": staticmethod(keep),
        "backward": staticmethod(pulled),
    }
    return oracles.torch_function(type("Step", (torch.autograd.Function,), methods))


def jax_function(name, backward):
    primals, _, _, _, _, reference = RULES[name]
    f = jax.custom_vjp((lambda z: reference(z)) if len(primals) == 1 else (lambda z, s: reference(z, s)))

    def pulled(saved, d):
        def call(d, *arrays):
            given = {n: np.asarray(a) for n, a in zip(primals, arrays, strict=True)}
            return tuple(np.asarray(g) for g in backward(**given, d=np.asarray(d)).values())

        return jax.pure_callback(call, tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in saved), d, *saved)

    f.defvjp(lambda *a: (f.fun(*a), a), pulled)
    return oracles.jax_function(f)


ADAPTERS = {"manual": manual, "torch_function": torch_function, "jax_function": jax_function}
# torch has no derivative of what leaves the floats, not even zero.
DISCRETE = {"one-hot argmax of softmax", "threshold", "integers", "where"}
IN_EVERY_ADAPTER = ("round", "learned step size", "one-hot argmax of softmax")
JUDGED = [
    *((name, "manual", framework) for name in RULES for framework in ("torch", "jax")),
    *((name, f"{framework}_function", framework) for name in IN_EVERY_ADAPTER for framework in ("torch", "jax")),
]


def against(name, framework):
    torch_reference, jax_reference = RULES[name][4:]
    return [oracles.torch_autograd(torch_reference) if framework == "torch" else oracles.jax_vjp(jax_reference)]


def declared(rule, **options):
    return oracles.declared(rule, gradient="straight_through", **options)


def refusal(subject, primals, references):
    with pytest.raises(oracles.Disagreement) as caught:
        oracles.check(subject, primals, references)
    return caught.value


@pytest.mark.parametrize(("name", "adapter", "framework"), JUDGED)
class TestDeclared:
    def test_right_subjects_agree(self, name, adapter, framework):
        subject = declared(ADAPTERS[adapter](name, RULES[name][2]))
        result = oracles.check(subject, RULES[name][0], against(name, framework))
        assert result.verdict is Verdict.AGREES
        assert {*result.judged} == {"output", *RULES[name][0]}

    def test_the_true_gradient_is_refused_with_what_would_fit(self, name, adapter, framework):
        subject = declared(ADAPTERS[adapter](name, RULES[name][3]))
        found = refusal(subject, RULES[name][0], against(name, framework))
        assert found.verdict is Verdict.WRONG
        if framework == "jax" or name not in DISCRETE:
            assert found.diagnosis == "the declaration does not fit: the subject agrees without it"

    def test_a_wrong_straight_through_gradient_is_refused(self, name, adapter, framework):
        def wrong(**arrays):
            gradients = RULES[name][2](**arrays)
            gradients["z"] = gradients["z"] * (1 + 1e-7 * (np.arange(gradients["z"].size).reshape(3, 4) % 2))
            return gradients

        found = refusal(declared(ADAPTERS[adapter](name, wrong)), RULES[name][0], against(name, framework))
        assert found.result.worst.quantity == "z"

    def test_undeclared_it_is_refused_and_the_line_is_named(self, name, adapter, framework):
        if framework == "torch" and name in DISCRETE:
            with pytest.raises(oracles.ReferenceFailed, match="straight_through"):
                oracles.check(ADAPTERS[adapter](name, RULES[name][2]), RULES[name][0], against(name, framework))
            return
        found = refusal(ADAPTERS[adapter](name, RULES[name][2]), RULES[name][0], against(name, framework))
        assert 'oracles.declared(subject, gradient="straight_through") agrees' in found.diagnosis
        subject = ADAPTERS[adapter](name, RULES[name][3])
        assert oracles.check(subject, RULES[name][0], against(name, framework)).verdict is Verdict.AGREES


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_coarser_dtypes(dtype):
    subject, references = declared(manual("round", RULES["round"][2])), against("round", "torch")
    assert oracles.check(subject, {"z": Z["z"].astype(dtype)}, references).verdict is Verdict.AGREES
    wrong = declared(manual("round", lambda z, d: {"z": d * 1.1}))
    refusal(wrong, {"z": Z["z"].astype(dtype)}, references)


@pytest.mark.parametrize("shape", [(2,), (40, 30)])
def test_few_and_many_inputs(shape):
    """Ball arithmetic knows the derivative of the value alone; of many inputs a part is judged."""
    point = {"z": 2 * np.random.default_rng(1).standard_normal(shape)}
    references = against("round", "torch")
    assert oracles.check(declared(manual("round", RULES["round"][2])), point, references).verdict is Verdict.AGREES
    for backward in (lambda z, d: {"z": 0 * d}, lambda z, d: {"z": d * np.sign(d)}):
        refusal(declared(manual("round", backward)), point, references)


def test_a_reference_that_states_it_itself():
    """z + (round(z) − z).detach() is differentiated as the identity without a declaration, and with one."""
    backward = RULES["round"][2]
    references = [
        oracles.torch_autograd(lambda z: z + ((4 * z).round() / 4 - z).detach()),
        oracles.jax_vjp(lambda z: z + jax.lax.stop_gradient(jnp.round(4 * z) / 4 - z)),
    ]
    for reference in references:
        for subject in (manual("round", backward), declared(manual("round", backward))):
            assert oracles.check(subject, Z, [reference]).verdict is Verdict.AGREES
        refusal(manual("round", RULES["round"][3]), Z, [reference])


def clamped(z, d):
    return {"z": d}


class TestSteps:
    def test_named_steps_take_the_place_of_the_others(self):
        forward = RULES["sign inside [-1, 1]"]
        primals, references = forward[0], against("sign inside [-1, 1]", "torch")
        through_all = manual("sign inside [-1, 1]", clamped)
        assert oracles.check(declared(through_all, steps=("sign", "clamp")), primals, references).verdict == "agrees"
        refusal(declared(through_all), primals, references)
        refusal(declared(manual("sign inside [-1, 1]", forward[2]), steps=("sign", "clamp")), primals, references)

    def test_functions_under_jit_are_named(self):
        @jax.jit
        def cube(z):
            return z**3

        subject = oracles.manual(lambda z: (2 * z**3, z), lambda z, d: {"z": 2 * d})
        reference = [oracles.jax_vjp(lambda z: 2 * cube(z))]
        assert oracles.check(declared(subject, steps="cube"), Z, reference).verdict is Verdict.AGREES
        refusal(subject, Z, reference)

    def test_names_of_no_operation_are_invalid(self):
        with pytest.raises(oracles.InvalidInput, match="rond"):
            oracles.check(declared(manual("round", RULES["round"][2]), steps="rond"), Z, against("round", "torch"))

    def test_a_mask_is_left_alone_if_another_step_is_named(self):
        def backward(z, d):
            return d * (z > 0)

        subject = oracles.manual(lambda z: (np.round(z) * (z > 0), z), lambda z, d: {"z": backward(z, d)})
        for reference in (
            oracles.torch_autograd(lambda z: z.round() * (z > 0)),
            oracles.jax_vjp(lambda z: jnp.round(z) * (z > 0)),
        ):
            assert oracles.check(declared(subject, steps="round"), Z, [reference]).verdict is Verdict.AGREES
            refusal(declared(subject), Z, [reference])


def test_what_has_no_step_is_noted():
    subject = declared(oracles.manual(lambda z: (2 * z, z), lambda z, d: {"z": 2 * d}))
    result = oracles.check(subject, Z, [oracles.torch_autograd(lambda z: 2 * z)])
    assert result.verdict is Verdict.AGREES
    assert any("no step" in note for note in result.notes)


def test_a_reference_is_needed():
    with pytest.raises(oracles.InvalidInput, match="reference"):
        oracles.check(declared(manual("round", RULES["round"][2])), Z)
    with pytest.raises(oracles.InvalidInput, match="straight"):
        oracles.declared(manual("round", RULES["round"][2]), gradient="straight")


def test_kinks_of_a_clamp_are_none_of_the_steps():
    """ReLU, clamp and abs keep their own derivatives."""
    subject = declared(oracles.manual(lambda z: (np.maximum(z, 0), z), lambda z, d: {"z": d * (z > 0)}))
    for reference in (oracles.torch_autograd(torch.relu), oracles.jax_vjp(jax.nn.relu)):
        assert oracles.check(subject, Z, [reference]).verdict is Verdict.AGREES


def test_trees_and_other_declarations():
    """Leaves of trees pass, and a scale is declared too."""

    def forward(p):
        return np.round(p["a"]) * p["b"], p

    def backward(p, d):
        return {"p": {"a": 2 * d * p["b"], "b": d * np.round(p["a"])}}

    primals = {"p": {"a": Z["z"], "b": RNG.standard_normal((3, 4))}}
    subject = oracles.declared(oracles.manual(forward, backward), gradient="straight_through", scale={'p["a"]': 2.0})
    reference = oracles.torch_autograd(lambda p: p["a"].round() * p["b"])
    assert oracles.check(subject, primals, [reference]).verdict is Verdict.AGREES
    other = oracles.declared(oracles.manual(forward, backward), gradient="straight_through")
    refusal(other, primals, [reference])


@st.composite
def cases(draw, backward):
    subject = declared(manual("round", backward))
    return oracles.Case(subject, {"z": real(draw(rows()), 3)}, torch=RULES["round"][4], jax=RULES["round"][5])


def test_a_search():
    run_search(cases(RULES["round"][2]), "cotangents_agree", "float64", max_examples=12, seed=0)
    with pytest.raises(oracles.Disagreement):
        run_search(cases(RULES["round"][3]), "cotangents_agree", "float64", max_examples=12, seed=0)
