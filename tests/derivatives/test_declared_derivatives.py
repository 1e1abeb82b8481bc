"""Declared subjects in the second order and in forward mode: what they derive is judged in the same convention."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import oracles
from oracles import Disagreement, InvalidInput, Verdict, declared
from oracles.backends.devices import on_device
from oracles.evaluations import Memory, on_copies, remembered
from oracles.outputs import selected
from oracles.properties import second_order_agrees, tangents_agree
from oracles.strategies import Point

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
jnp = jax.numpy

RNG = np.random.default_rng(11)
POINT = {"z": RNG.standard_normal((4, 3)), "W": RNG.standard_normal((3, 2)), "b": RNG.standard_normal((1, 2))}
REFERENCE = [oracles.torch_autograd(lambda z, W, b: torch.tanh(z @ W + b))]


def dense(*, factor: Any = 1.0, turned: bool = False, wrong: float = 1.0, wrong_jvp: float = 1.0) -> Any:
    """A dense layer: dW times a factor, W and the output transposed; ``wrong``: a factor of the second derivative."""

    def given(W: Any, y: Any) -> Any:
        return (W.T, y.T) if turned else (W, y)

    def times(z: Any) -> float:
        return float(factor(z) if callable(factor) else factor)

    def forward(z: Any, W: Any, b: Any) -> Any:
        W = given(W, W)[0]
        a = np.tanh(z @ W + b)
        return given(W, a)[1].copy(), (z, W, a)

    def backward(cache: Any, delta: Any) -> Any:
        z, W, a = cache
        e = given(W, delta)[1] * (1 - a * a)
        dW = z.T @ e * times(z)
        return {"z": e @ W.T, "W": given(dW, e)[0].copy(), "b": e.sum(axis=0, keepdims=True)}

    def second(cache: Any, delta: Any, w: Any) -> Any:
        z, W, a = cache
        delta, wW = given(W, delta)[1], given(w["W"], a)[0] * times(z)
        slope = 1 - a * a
        pushed = w["z"] @ W + z @ wW + w["b"]
        e, de = delta * slope, -2 * a * slope * delta * pushed
        of_W, of_delta = given(z.T @ de + w["z"].T @ e, slope * pushed)
        return {
            "z": de @ W.T + e @ wW.T,
            "W": wrong * of_W.copy(),
            "b": de.sum(axis=0, keepdims=True),
            "delta": of_delta.copy(),
        }

    def jvp(p: Any, t: Any) -> Any:
        (W, _), (W_dot, _) = given(p["W"], p["z"]), given(t["W"], p["z"])
        a = np.tanh(p["z"] @ W + p["b"])
        v = (1 - a * a) * (t["z"] @ W + p["z"] @ W_dot + wrong_jvp * t["b"])
        return given(W, a)[1].copy(), given(W, v)[1].copy()

    return oracles.manual(forward, backward, second=second, jvp=jvp)


TURNED = {"W": "kn->nk", "output": "mn->nm"}
DECLARATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "accuracy": ({}, {"accuracy": "normwise"}),
    "solver": ({}, {"solved_to": 1e-13}),
    "scale": ({"factor": 0.25}, {"scale": {"W": 0.25}}),
    "scale of the shapes": ({"factor": lambda z: 1 / len(z)}, {"scale": {"W": lambda z, **_: 1 / len(z)}}),
    "layout": ({"turned": True}, {"layout": TURNED}),
    "both": ({"turned": True, "factor": -2.0}, {"layout": TURNED, "scale": {"W": -2.0}}),
    "writes": ({}, {"writes": ("z", "delta")}),
}


@pytest.mark.parametrize("against", [REFERENCE, []], ids=["torch", "differences"])
@pytest.mark.parametrize("name", DECLARATIONS)
def test_second_rule_of_a_declared_subject_is_judged(name: str, against: Any) -> None:
    functions, declaration = DECLARATIONS[name]
    right = declared(dense(**functions), **declaration)
    result = oracles.check(right, POINT, against, order=2)
    assert result.verdict is Verdict.AGREES
    assert result.judged["order 2: W"] == (6, 6)
    assert result.judged["order 2: delta"] == (8, 8)
    with pytest.raises(Disagreement) as refusal:
        oracles.check(declared(dense(**functions, wrong=2.0), **declaration), POINT, against, order=2)
    assert {f.quantity for f in refusal.value.result.findings if f.refuses} == {"W"}


@pytest.mark.parametrize("mode", ["jvp", "both"])
@pytest.mark.parametrize("name", DECLARATIONS)
def test_forward_mode_of_a_declared_subject_is_judged(name: str, mode: Any) -> None:
    functions, declaration = DECLARATIONS[name]
    for against in (REFERENCE, []):
        right = declared(dense(**functions), **declaration)
        assert oracles.check(right, POINT, against, mode=mode).verdict is Verdict.AGREES
    with pytest.raises(Disagreement, match="J v"):
        oracles.check(declared(dense(**functions, wrong_jvp=2.0), **declaration), POINT, REFERENCE, mode=mode)


def test_declared_twice_is_carried_twice() -> None:
    def both(**wrong: Any) -> Any:
        subject = declared(dense(turned=True, factor=0.5, **wrong), layout=TURNED)
        return declared(subject, scale={"W": 0.5}, accuracy="normwise")

    assert oracles.check(both(), POINT, REFERENCE, order=2, mode="both").verdict is Verdict.AGREES
    with pytest.raises(Disagreement):
        oracles.check(both(wrong=2.0), POINT, REFERENCE, order=2)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Any) -> Any:
        ctx.save_for_backward(z)
        return z**3

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        return delta * 3 * ctx.saved_tensors[0] ** 2


class DetachedCube(Cube):
    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        return delta * 3 * ctx.saved_tensors[0].detach() ** 2


def cube_of_jax(*, cut: bool) -> Any:
    @jax.custom_vjp
    def cube(z: Any) -> Any:
        return z**3

    def backward(z: Any, delta: Any) -> Any:
        return (delta * 3 * (jax.lax.stop_gradient(z) if cut else z) ** 2,)

    cube.defvjp(lambda z: (z**3, z), backward)
    return cube


@pytest.mark.parametrize("against", [[oracles.torch_autograd(lambda z: z**3)], []], ids=["torch", "differences"])
def test_cut_graph_of_a_declared_subject_is_refused(against: Any) -> None:
    point = {"z": np.array([1.0, 2.0, -1.0])}
    pairs = [
        (oracles.torch_function(Cube), oracles.torch_function(DetachedCube)),
        (oracles.jax_function(cube_of_jax(cut=False)), oracles.jax_function(cube_of_jax(cut=True))),
    ]
    for right, wrong in pairs:
        assert oracles.check(declared(right, accuracy="normwise"), point, against, order=2).verdict is Verdict.AGREES
        with pytest.raises(Disagreement, match=r"its own\s+derivative"):
            oracles.check(declared(wrong, accuracy="normwise"), point, against, order=2)


# ---- symmetric matrices

HALF = RNG.standard_normal((3, 3))
SYMMETRIC = {"A": (HALF @ HALF.T + np.eye(3) + (HALF @ HALF.T).T + np.eye(3)) / 2}
RIGHT_SIDE = {**SYMMETRIC, "b": RNG.standard_normal((3, 2))}


def one_triangle(G: Any) -> Any:
    """The gradient of a symmetric matrix, whose entries of one triangle count for both."""
    return np.tril(G) + np.tril(G.T, -1)


def solved(*, wrong: float = 1.0, wrong_jvp: float = 1.0, triangle: bool = False) -> Any:
    """A solve A x = b with a symmetric A, whose gradient may hold the entries of one triangle for both."""
    gradient = one_triangle if triangle else (lambda G: G)

    def forward(A: Any, b: Any) -> Any:
        x = np.linalg.solve(A, b)
        return x, (A, x)

    def backward(cache: Any, delta: Any) -> Any:
        A, x = cache
        g = np.linalg.solve(A, delta)
        G = -g @ x.T
        return {"A": gradient((G + G.T) / 2), "b": g}

    def second(cache: Any, delta: Any, w: Any) -> Any:
        A, x = cache
        g = np.linalg.solve(A, delta)
        wA = (w["A"] + w["A"].T) / 2
        # ⟨w, G⟩ = −gᵀ wA x + ⟨wb, g⟩, of x = A⁻¹ b and g = A⁻¹ delta.
        of_x, of_g = np.linalg.solve(A, -wA @ g), np.linalg.solve(A, -wA @ x + w["b"])
        H = -of_x @ x.T - of_g @ g.T
        return {"A": wrong * (H + H.T) / 2, "b": of_x, "delta": of_g}

    def jvp(p: Any, t: Any) -> Any:
        x = np.linalg.solve(p["A"], p["b"])
        half = np.tril(t["A"])
        A_dot = half + np.tril(half, -1).T
        return x, np.linalg.solve(p["A"], t["b"] - wrong_jvp * A_dot @ x)

    return oracles.manual(forward, backward, second=second, jvp=jvp)


SOLVE = [oracles.torch_autograd(torch.linalg.solve), oracles.jax_vjp(lambda A, b: jnp.linalg.solve(A, b))]
LOGDET = oracles.manual(lambda A: (np.linalg.slogdet(A)[1], A), lambda A, d: {"A": d * np.linalg.inv(A).T})


class Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, A: Any, b: Any) -> Any:
        ctx.save_for_backward(A, b)
        return torch.linalg.solve(A, b)

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        A, b = ctx.saved_tensors
        g = torch.linalg.solve(A.mT, delta)
        return -g @ torch.linalg.solve(A, b).mT, g


@pytest.mark.parametrize("against", [SOLVE[:1], SOLVE[1:], []], ids=["torch", "jax", "differences"])
def test_symmetric_primals_in_the_second_order(against: Any) -> None:
    for right in (solved(), oracles.torch_function(Solve)):
        assert oracles.check(declared(right, symmetric="A"), RIGHT_SIDE, against, order=2).verdict is Verdict.AGREES
    with pytest.raises(Disagreement):
        oracles.check(declared(solved(wrong=2.0), symmetric="A"), RIGHT_SIDE, against, order=2)


def test_symmetric_primal_without_a_second_rule() -> None:
    for against in ([oracles.torch_autograd(torch.logdet)], []):
        assert oracles.check(declared(LOGDET, symmetric="A"), SYMMETRIC, against, order=2).verdict is Verdict.AGREES
    kept = np.linalg.inv(SYMMETRIC["A"])
    wrong = oracles.manual(lambda A: (np.linalg.slogdet(A)[1], A), lambda A, d: {"A": d * kept})
    with pytest.raises(Disagreement):
        oracles.check(declared(wrong, symmetric="A"), SYMMETRIC, [oracles.torch_autograd(torch.logdet)], order=2)


@pytest.mark.parametrize("against", [SOLVE[:1], []], ids=["torch", "differences"])
def test_symmetric_primals_move_along_symmetric_tangents(against: Any) -> None:
    for mode in ("jvp", "both"):
        right = declared(solved(triangle=True), symmetric="A")
        assert oracles.check(right, RIGHT_SIDE, against, mode=mode).verdict is Verdict.AGREES
        with pytest.raises(Disagreement):
            oracles.check(declared(solved(wrong_jvp=2.0), symmetric="A"), RIGHT_SIDE, against, mode=mode)


# ---- the dtype of outputs, signs of vectors, steps


def squares_in_float32(*, wrong: float = 1.0) -> Any:
    """A loss in float32 of bfloat16 arrays, whose delta is float32 too."""

    def forward(z: Any) -> Any:
        return (z.astype(np.float32) ** 2).sum(axis=-1), z

    def backward(z: Any, delta: Any) -> Any:
        assert delta.dtype == np.float32
        return {"z": (2 * z.astype(np.float32) * delta[:, None]).astype(z.dtype)}

    def second(z: Any, delta: Any, w: Any) -> Any:
        wide, of_z = w["z"].astype(np.float32), z.astype(np.float32)
        return {"z": (wrong * 2 * delta[:, None] * wide).astype(z.dtype), "delta": (2 * of_z * wide).sum(axis=-1)}

    def jvp(p: Any, t: Any) -> Any:
        z, v = (a["z"].astype(np.float32) for a in (p, t))
        return (z**2).sum(axis=-1), (2 * wrong * z * v).sum(axis=-1)

    rule = oracles.manual(forward, backward, second=second, jvp=jvp)
    return declared(rule, output_dtype="float32")


def test_dtype_of_outputs_is_that_of_their_cotangents_in_further_derivatives() -> None:
    point = {"z": RNG.standard_normal((3, 4)).astype(ml_dtypes.bfloat16)}
    reference = [oracles.torch_autograd(lambda z: (z**2).sum(-1))]
    for options in ({"order": 2}, {"mode": "jvp"}):
        assert oracles.check(squares_in_float32(), point, reference, **options).verdict is Verdict.AGREES
        with pytest.raises(Disagreement):
            oracles.check(squares_in_float32(wrong=2.0), point, reference, **options)


class Eigenvectors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, A: Any) -> Any:
        values, vectors = torch.linalg.eigh(A)
        vectors = -vectors  # as good a choice as that of LAPACK
        ctx.save_for_backward(values, vectors)
        return values, vectors

    @staticmethod
    def inner(ctx: Any, d_values: Any, d_vectors: Any, factor: Any) -> Any:
        values, vectors = ctx.saved_tensors
        gaps = values[None, :] - values[:, None] + torch.diag(torch.full_like(values, torch.inf))
        return vectors @ (torch.diag(d_values) + factor(vectors).mT @ d_vectors / gaps) @ vectors.mT

    @staticmethod
    def backward(ctx: Any, d_values: Any, d_vectors: Any) -> Any:
        return Eigenvectors.inner(ctx, d_values, d_vectors, lambda V: V)


class DetachedEigenvectors(Eigenvectors):
    @staticmethod
    def backward(ctx: Any, d_values: Any, d_vectors: Any) -> Any:
        return Eigenvectors.inner(ctx, d_values, d_vectors, lambda V: V.detach())


def test_vectors_of_either_sign_in_the_second_order() -> None:
    against = [oracles.torch_autograd(torch.linalg.eigh)]
    options: dict[str, Any] = {"gauge": {"output[1]": "sign"}, "symmetric": "A", "accuracy": "normwise"}
    right = declared(oracles.torch_function(Eigenvectors), **options)
    assert oracles.check(right, SYMMETRIC, against, order=2).verdict is Verdict.AGREES
    wrong = declared(oracles.torch_function(DetachedEigenvectors), **options)
    assert oracles.check(wrong, SYMMETRIC, against).verdict is Verdict.AGREES
    with pytest.raises(Disagreement):
        oracles.check(wrong, SYMMETRIC, against, order=2)


def rounded_cube(*, wrong: float = 1.0) -> Any:
    """The cube of a rounded number, with a straight-through gradient."""
    return declared(
        oracles.manual(
            lambda z: (np.round(z) ** 3, z),
            lambda z, d: {"z": 3 * d * np.round(z) ** 2},
            jvp=lambda p, t: (np.round(p["z"]) ** 3, 3 * wrong * np.round(p["z"]) ** 2 * t["z"]),
            second=lambda z, d, w: {"z": 6 * wrong * w["z"] * d * np.round(z), "delta": 3 * w["z"] * np.round(z) ** 2},
        ),
        gradient="straight_through",
    )


def test_straight_through_gradients_in_the_second_order() -> None:
    point = {"z": np.array([1.3, -2.2, 2.8])}
    for against in (
        [oracles.torch_autograd(lambda z: torch.round(z) ** 3)],
        [oracles.jax_vjp(lambda z: jnp.round(z) ** 3)],
    ):
        assert oracles.check(rounded_cube(), point, against, order=2, mode="both").verdict is Verdict.AGREES
        for options in ({"order": 2}, {"mode": "jvp"}):
            with pytest.raises(Disagreement):
                oracles.check(rounded_cube(wrong=2.0), point, against, **options)


# ---- trees, processes, searches


def of_tree(*, wrong: float = 1.0) -> Any:
    def second(cache: Any, delta: Any, w: Any) -> Any:
        a, b = cache["p"]["a"], cache["p"]["b"]
        of_a, of_b = w["p"]["a"], 2 * w["p"]["b"]
        return {"p": {"a": delta * of_b, "b": wrong * delta * of_a}, "delta": of_a * b + of_b * a}

    rule = oracles.manual(
        lambda p: (p["a"] * p["b"], {"p": p}),
        lambda cache, delta: {"p": {"a": delta * cache["p"]["b"], "b": 2 * delta * cache["p"]["a"]}},
        second=second,
    )
    return declared(rule, scale={'p["b"]': 2.0})


def test_trees_of_a_declared_subject() -> None:
    point = {"p": {"a": np.array([1.0, 2.0]), "b": np.array([0.5, -3.0])}}
    against = [oracles.torch_autograd(lambda p: p["a"] * p["b"])]
    assert oracles.check(of_tree(), point, against, order=2).verdict is Verdict.AGREES
    with pytest.raises(Disagreement):
        oracles.check(of_tree(wrong=3.0), point, against, order=2)


def test_declared_subject_in_a_process_of_its_own() -> None:
    point = {"z": np.array([1.0, 2.0, -1.0])}
    against = [oracles.torch_autograd(lambda z: z**3)]

    def cube(factor: float) -> Any:
        return declared(
            oracles.manual(
                lambda z: (z**3, z),
                lambda z, d: {"z": d * z * z},
                second=lambda z, d, w: {"z": 2 * factor * w["z"] * d * z, "delta": w["z"] * z * z},
            ),
            scale={"z": 1 / 3},
        )

    assert oracles.check(cube(1.0), point, against, order=2, isolate=True).verdict is Verdict.AGREES
    with pytest.raises(Disagreement):
        oracles.check(cube(2.0), point, against, order=2, isolate=True)


def test_search_judges_the_second_rule_of_a_declared_subject() -> None:
    delta = np.ones((4, 2))
    for wrong, verdict in ((1.0, Verdict.AGREES), (2.0, Verdict.WRONG)):
        subject = declared(dense(wrong=wrong, wrong_jvp=wrong, turned=True), layout=TURNED)
        case = oracles.Case(subject, {}, lambda z, W, b: torch.tanh(z @ W + b))
        for judged in (second_order_agrees, tangents_agree):
            result = judged(case, Point(POINT, delta, "float64"), REFERENCE)
            assert result is not None
            assert result.verdict is verdict


# ---- what cannot be carried over


def test_what_says_nothing_of_further_derivatives_is_invalid_input() -> None:
    subject = dense()
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"fused": {"z": np.abs}}, {"mode": "jvp"}, "fused"),
        ({"gauge": "sign"}, {"mode": "jvp"}, "gauge"),
        ({"conjugate": True}, {"order": 2}, "conjugate"),
    ]
    for declaration, options, name in cases:
        with pytest.raises(InvalidInput, match=rf"declared\({name}="):
            oracles.check(declared(subject, **declaration), POINT, REFERENCE, **options)
    values = {"scale": {"W": lambda z, **_: float(np.abs(z).sum())}}
    of_values = declared(dense(factor=lambda z: np.abs(z).sum()), **values)
    assert oracles.check(of_values, POINT, REFERENCE).verdict is Verdict.AGREES
    with pytest.raises(InvalidInput, match="a factor of the shapes"):
        oracles.check(of_values, POINT, REFERENCE, order=2)


# ---- every wrapper says what becomes of the derivatives


def test_who_replaces_an_evaluation_says_what_becomes_of_the_derivatives() -> None:
    root = Path(oracles.__file__).parent
    silent = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "replace":
                keywords = {k.arg for k in node.keywords}
                if "evaluate" in keywords and "derived" not in keywords:
                    silent.append(f"{path.relative_to(root)}:{node.lineno}")
    assert not silent, f"they drop second and jvp in silence: {silent}"


def test_wrapped_subjects_keep_their_derivatives() -> None:
    rule = declared(dense(), accuracy="normwise")
    y = rule(**POINT)[0]
    for wrapped in (on_copies(rule), remembered(rule, Memory()), on_device(rule, "cpu"), selected(rule, [0], y)):
        assert wrapped.derivatives.second is not None
        assert wrapped.derivatives.tangent is not None
