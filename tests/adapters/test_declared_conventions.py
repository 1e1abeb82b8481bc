"""Declared conventions: the correct one agrees, a wrong one is refused, and the report names the one that fits."""

import dense_classes as classes
import ml_dtypes
import numpy as np
import pytest
import torch
from dense_classes import AT, TORCH
from pairs import PAIRS, slow_except, softmax_of

import oracles
from oracles import Disagreement, InvalidInput, Verdict, declared
from oracles.adapters.conventions import symmetrized
from oracles.adapters.gauges import Signs
from oracles.constants import NORMWISE_FACTOR
from oracles.diagnosis.diagnose import diagnosis_of

RNG = np.random.default_rng(13)
BFLOAT16 = ml_dtypes.bfloat16
DENSE = PAIRS["dense"]
POINT = DENSE.at(1)


def dense(scale=1.0, transposed=False):
    """A dense layer whose dW is multiplied by a number, or whose W is stored transposed."""

    def forward(z, W, b):
        return DENSE.forward(z, W.T if transposed else W, b)

    def backward(cache, d):
        gradients = DENSE.backward(cache, d)
        dW = gradients["W"] * (scale(len(d)) if callable(scale) else scale)
        return gradients | {"W": dW.T.copy() if transposed else dW}

    return oracles.manual(forward, backward)


def columns():
    """Samples in columns, biases as plain vectors."""

    def forward(z, W, b):
        return W @ z + b[:, None], (z, W)

    def backward(cache, d):
        z, W = cache
        return {"z": W.T @ d, "W": d @ z.T, "b": d.sum(1)}

    return oracles.manual(forward, backward)


COLUMNS = {"z": "nk->kn", "W": "km->mk", "b": "1m->m", "output": "nm->mn"}


@pytest.mark.parametrize("dtype", slow_except(("float64",), ("float64", "float32", "float16")))
@pytest.mark.parametrize(
    "subject",
    [
        declared(dense(0.5), scale={"W": 0.5}),
        declared(dense(lambda n: 1 / n), scale={"W": lambda z, **_: 1 / len(z)}),
        declared(dense(-1.0), scale={"W": -1}),
        declared(dense(transposed=True), layout={"W": "ij->ji"}),
        declared(dense(transposed=True), layout={"W": (np.transpose, np.transpose)}),
        declared(dense(2.0, transposed=True), layout={"W": "ij->ji"}, scale={"W": 2}),
        declared(columns(), layout=COLUMNS),
        declared(dense()),
    ],
    ids=["half", "mean", "minus", "transposed", "functions", "transposed and doubled", "columns", "nothing"],
)
def test_correct_declaration_agrees(subject, dtype):
    result = oracles.check(subject, DENSE.at(1, dtype), [DENSE.torch])
    assert result.verdict is Verdict.AGREES
    assert {f.quantity for f in result.findings} == {"output", "z", "W", "b"}


@pytest.mark.parametrize(
    ("subject", "would"),
    [
        (declared(dense(0.5), scale={"W": 0.25}), "scale={'W': 0.5} would"),
        (declared(dense(), scale={"W": 2.0}), "scale={'W': 1} would"),
        (declared(dense(lambda n: 1 / n), scale={"W": lambda z, **_: 1.0}), "scale={'W': 0.333333 times that} would"),
        (declared(dense(-1.0), scale={"W": 1.0}), "scale={'W': -1} would"),
        (declared(dense(0.5), scale={"b": 1.0}), "scale={'W': 0.5} would"),
    ],
)
def test_a_wrong_factor_is_refused_with_the_one_that_fits(subject, would):
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(subject, POINT, [DENSE.torch])
    assert excinfo.value.verdict is Verdict.WRONG
    assert excinfo.value.result.worst.quantity == "W"
    assert f"the declaration does not fit; {would}" in " ".join(str(excinfo.value).split())


def image_layer():
    """Channels last: y = x * w over the channels."""

    def backward(cache, d):
        x, w = cache
        return {"x": d * w, "w": (d * x).sum((0, 1, 2))}

    return oracles.manual(lambda x, w: (x * w, (x, w)), backward)


IMAGE = {"x": RNG.standard_normal((2, 3, 2, 2)), "w": RNG.standard_normal(3)}
CHANNELS = oracles.torch_autograd(lambda x, w: x * w[:, None, None])


def test_images():
    right = {"x": "NCHW->NHWC", "output": "NCHW->NHWC"}
    assert oracles.check(declared(image_layer(), layout=right), IMAGE, [CHANNELS]).verdict is Verdict.AGREES
    wrong = {"x": "NCHW->NHWC", "output": "NCHW->NWHC"}
    with pytest.raises(Disagreement, match=r"does not fit; layout=\{'(x|output)': 'NCHW->\w+'\} would"):  # either would
        oracles.check(declared(image_layer(), layout=wrong), IMAGE, [CHANNELS])


@pytest.mark.slow
def test_a_wrong_permutation_is_refused_with_the_one_that_fits():
    square = POINT | {"W": RNG.standard_normal((4, 4)), "b": RNG.standard_normal((1, 4))}
    with pytest.raises(Disagreement, match=r"the declaration does not fit; layout=\{'W': 'ij->ij'\} would"):
        oracles.check(declared(dense(), layout={"W": "ij->ji"}), square, [DENSE.torch])


def probabilities(fused=True):
    """A cross-entropy of probabilities, whose gradient is that of the logits behind them, or its own."""

    def forward(a, target):
        return -np.log(a[np.arange(len(a)), target]).mean(), (a, target)

    def backward(cache, d):
        a, target = cache
        hot = np.eye(a.shape[1])[target]
        return {"a": d * ((a - hot) if fused else -hot / a) / len(a)}

    return oracles.manual(forward, backward)


LOGITS = {"a": RNG.standard_normal((3, 4)), "target": np.array([0, 3, 1])}
CROSS = oracles.torch_autograd(lambda a, target: torch.nn.functional.cross_entropy(a, target))


def test_fused():
    subject = declared(probabilities(), fused={"a": softmax_of})
    assert oracles.check(subject, LOGITS, [CROSS]).verdict is Verdict.AGREES
    with pytest.raises(Disagreement, match="fused"):
        oracles.check(declared(probabilities(fused=False), fused={"a": softmax_of}), LOGITS, [CROSS])
    with pytest.raises(Disagreement):  # undeclared, it is refused
        oracles.check(probabilities(), {**LOGITS, "a": softmax_of(LOGITS["a"])})


def relu(slope):
    return oracles.manual(lambda z: (np.maximum(z, 0), z), lambda z, d: {"z": d * np.where(z == 0, slope, z > 0)})


def test_kinks():
    at, against = {"z": np.array([0.0, 1.0, -2.0, 0.0])}, [oracles.torch_autograd(torch.relu)]
    for slope in (0.0, 0.5, 1.0):
        right = declared(relu(slope), kinks={"z": {0.0: slope}})
        assert not oracles.check(right, at, against, kinks="declared").refuses
        assert not oracles.check(right, at, against).refuses
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(declared(relu(0.5), kinks={"z": {0.0: 1.0}}), at, against)
    message = " ".join(str(excinfo.value).split())
    assert "at z[0] = 0 the declared derivative is 1, the subject's is 0.5" in message
    assert "kinks={'z': {0.0: 0.5}} would" in message


def test_other_bug_with_a_correct_declaration_is_refused():
    wrong = oracles.manual(DENSE.forward, lambda c, d: DENSE.backward(c, d) | {"W": 0.5 * c[0].T @ np.abs(d)})
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(declared(wrong, scale={"W": 0.5}), POINT, [DENSE.torch])
    assert excinfo.value.result.worst.quantity == "W"
    assert "declaration" not in str(excinfo.value)


def test_other_adapters_declare_too():
    class Halved(classes.Attributes):
        def pulled(self, delta):
            dz, dW, db = super().pulled(delta)
            return dz, dW / len(delta), db / len(delta)

    mean = {n: lambda z, **_: 1 / len(z) for n in ("W", "b")}
    subject = declared(oracles.stateful(Halved, params=["W", "b"]), scale=mean)
    assert oracles.check(subject, AT, [TORCH]).verdict is Verdict.AGREES
    isolated = oracles.check(
        declared(dense(transposed=True), layout={"W": "ij->ji"}), POINT, [DENSE.torch], isolate=True
    )
    assert isolated.verdict is Verdict.AGREES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": {"V": 2.0}}, "declared: scale: expected names of the primals z, W, b, got V"),
        ({"layout": {"outputs": "ij->ji"}}, "declared: layout: expected names of the primals z, W, b, got outputs"),
        ({"scale": {"W": 0.0}}, "scale of W: expected a finite number other than 0, got 0.0"),
        ({"layout": {"W": "ij->jk"}}, "expected each letter once on either side, as 'NCHW->NHWC', got 'ij->jk'"),
        (
            {"layout": {"W": "ji"}},
            "layout of W: expected two orders of the same axes, as 'ij->ji', or two functions, got 'ji'",
        ),
        ({"layout": {"W": "ijk->kji"}}, "expected axes ijk, got an array of shape (4, 2)"),
    ],
)
def test_invalid_declarations(options, message):
    with pytest.raises((InvalidInput, ValueError, Disagreement)) as excinfo:
        oracles.check(declared(dense(), **options), POINT, [DENSE.torch])
    assert message in " ".join(str(excinfo.value).split())


def test_integers_have_no_scale():
    pair = PAIRS["embedding"]
    subject = declared(oracles.manual(pair.forward, pair.backward), scale={"i": 2.0})
    with pytest.raises(InvalidInput, match=r"declared: .* got i"):
        oracles.check(subject, pair.at(), [pair.torch])


def cholesky(error=1.0, **declarations):
    def backward(factor, delta):
        inner = np.tril(factor.T @ np.tril(delta))
        inner[np.diag_indices_from(inner)] /= 2
        inverse = np.linalg.inv(factor)
        return {"A": error * inverse.T @ inner @ inverse}

    rule = oracles.manual(lambda A: (np.linalg.cholesky(A),) * 2, backward, name="cholesky")
    return oracles.declared(rule, **declarations) if declarations else rule


CHOLESKY = oracles.torch_autograd(torch.linalg.cholesky)
SPD = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, -0.25], [0.5, -0.25, 2.0]])


def test_a_symmetric_primal_is_compared_along_symmetric_directions():
    assert oracles.check(cholesky(symmetric="A"), {"A": SPD}, [CHOLESKY]).verdict == "agrees"
    assert oracles.check(cholesky(symmetric=("A",)), {"A": SPD}, []).verdict == "agrees"
    with pytest.raises(oracles.Disagreement):
        oracles.check(cholesky(), {"A": SPD}, [CHOLESKY])
    again = oracles.declared(cholesky(symmetric="A"), accuracy="normwise")
    assert again.convention.symmetric == ("A",)
    assert oracles.check(again, {"A": SPD}, [CHOLESKY]).verdict == "agrees"


def test_points_that_break_a_declaration_are_invalid_input():
    with pytest.raises(InvalidInput, match=r"A\[0, 1\] = A\[1, 0\], got 2.0 and 1.0(.|\n)*Fix: "):
        oracles.check(cholesky(symmetric="A"), {"A": SPD + np.eye(3, k=1)}, [CHOLESKY])
    doubled = oracles.declared(oracles.manual(lambda z: (2 * z, None), lambda _, d: {"z": 2 * d}), symmetric="z")
    with pytest.raises(InvalidInput, match=r"square matrices, got z of shape \(2, 3\)"):
        oracles.check(doubled, {"z": np.ones((2, 3))}, [])
    with pytest.raises(InvalidInput, match="symmetric: expected names of the primals A, got B"):
        oracles.check(cholesky(symmetric="B"), {"A": SPD}, [CHOLESKY])
    with pytest.raises(InvalidInput, match=r"gauge: expected names of the outputs output, got output\[1\]"):
        oracles.check(cholesky(gauge={"output[1]": "sign"}), {"A": SPD}, [CHOLESKY])
    with pytest.raises(InvalidInput, match=r"gauge of output: expected one of sign, .*, got 'phase'"):
        cholesky(gauge="phase")
    with pytest.raises(InvalidInput, match="accuracy: expected 'entrywise' or 'normwise', got 'good'"):
        cholesky(accuracy="good")


def test_symmetrized_keeps_dtypes_and_batches():
    for dtype in ("float16", "float32", "float64", "longdouble", "bfloat16"):
        array = np.arange(8.0).reshape(2, 2, 2).astype(dtype)
        result = symmetrized(array)
        assert result.dtype == array.dtype
        assert np.array_equal(result.astype(float), [[[0, 1.5], [1.5, 3]], [[4, 5.5], [5.5, 7]]])


def leading(sign=1.0, error=1.0):
    """The leading eigenvector of a symmetric matrix: one vector, with either sign."""

    def forward(A):
        values, vectors = np.linalg.eigh(A)
        return sign * vectors[:, -1], (values, vectors)

    def backward(saved, delta):
        values, V = saved
        gaps = values[-1] - values[:-1]
        inner = sign * error * (V[:, :-1] / gaps) @ (V[:, :-1].T @ delta)
        return {"A": np.outer(inner, V[:, -1])}

    return oracles.declared(oracles.manual(forward, backward), symmetric="A", gauge="sign")


LEADING = oracles.torch_autograd(lambda A: torch.linalg.eigh(A)[1][:, -1])


@pytest.mark.parametrize("against", [[LEADING], []], ids=["torch", "no reference"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_vector_may_have_either_sign(sign, against):
    assert oracles.check(leading(sign), {"A": SPD}, against).verdict == "agrees"
    with pytest.raises(oracles.Disagreement):
        oracles.check(leading(sign, 1.001), {"A": SPD}, against)


def test_signs_of_a_full_decomposition():
    """U has more columns than Vᵀ has rows; those beyond have signs of their own."""
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((4, 4)), rng.standard_normal((3, 3))
    signs = Signs({"output[0]": U, "output[1]": V}, {"output[0]": "sign", "output[1]": "sign of rows"})
    turned = np.array([1.0, -1.0, -1.0, -1.0])
    aligned = signs.of((U * turned, V * turned[:3, None]))
    assert np.array_equal(aligned["output[0]"], turned[None])
    assert np.array_equal(aligned["output[1]"], turned[:3, None])


def test_an_accuracy_by_norm_has_one_tolerance_for_an_array():
    tolerances = {"z": np.array([1.0, 3.0, np.inf])}
    by_norm = cholesky(accuracy="normwise").convention.tolerances(tolerances, {})["z"]
    assert np.array_equal(by_norm, [3 * NORMWISE_FACTOR, 3 * NORMWISE_FACTOR, np.inf])
    assert cholesky(accuracy="entrywise").convention.tolerances(tolerances, {}) == tolerances


def eigh(turned=True, error=1.0):
    """Eigenvalues and eigenvectors of signs of their own, and the gradient of one triangle.

    ``turned`` turns one vector away from the reference's; ``error`` is a factor of the part that the vectors cause.
    """

    def forward(A):
        values, V = np.linalg.eigh(A)
        V = V * np.sign(V[0]) * np.array([1.0, -1.0 if turned else 1.0, 1.0])
        return (values, V), (values, V)

    def backward(saved, delta):
        values, V = saved
        gaps = values - values[:, None]
        F = np.divide(error, gaps, out=np.zeros_like(gaps), where=gaps != 0)
        G = V @ (np.diag(delta[0]) + F * (V.T @ delta[1])) @ V.T
        return {"A": np.tril(G + G.T) - np.diag(np.diag(G))}

    return oracles.manual(forward, backward)


def torch_eigh(A):
    values, V = torch.linalg.eigh(A)
    return values, V * torch.sign(V[0])


EIGH = oracles.torch_autograd(torch_eigh)
SIGNED = {"output[1]": "sign"}


def diagnosis_at(subject, against, primals=None):
    with pytest.raises(Disagreement) as refused:
        oracles.check(subject, primals or {"A": SPD}, against)
    return diagnosis_of(refused.value.result)


@pytest.mark.parametrize(
    ("right", "wrong", "against", "pattern", "line"),
    [
        (eigh(False), eigh(False, 2.0), [EIGH], "symmetrized", 'declared(subject, symmetric="A")'),
        (eigh(), eigh(error=2.0), [EIGH], "gauge", 'declared(subject, symmetric="A", gauge={"output[1]": "sign"})'),
        (cholesky(), cholesky(error=2.0), [], "symmetrized", 'declared(subject, symmetric="A")'),
    ],
    ids=["symmetric", "gauge", "no reference"],
)
def test_a_refusal_suggests_what_the_problem_leaves_open(right, wrong, against, pattern, line):
    diagnosis = diagnosis_at(right, against)
    assert diagnosis.pattern == pattern
    assert f"if A is always symmetric, oracles.{line} agrees" in str(diagnosis)
    assert "declared(" not in str(diagnosis_at(wrong, against))


def test_a_declaration_that_lacks_a_freedom_is_completed():
    symmetric, signed = declared(eigh(), symmetric="A"), declared(eigh(), gauge=SIGNED)
    assert 'gauge={"output[1]": "sign"} would' in str(diagnosis_at(symmetric, [EIGH]))
    assert 'symmetric="A" would' in str(diagnosis_at(signed, [EIGH]))
    assert diagnosis_at(declared(eigh(error=2.0), gauge=SIGNED), [EIGH]).pattern != "declaration"


def test_a_symmetric_primal_is_suggested_though_another_array_is_wrong():
    def product(error):
        return oracles.manual(
            lambda A, x: (A @ x, (A, x)),
            lambda c, d: {"A": (np.outer(d, c[1]) + np.outer(c[1], d)) / 2, "x": error * c[0].T @ d},
        )

    point, against = {"A": SPD, "x": np.array([1.0, 2.0, -3.0])}, [oracles.torch_autograd(lambda A, x: A @ x)]
    for error in (1.0, 2.0):
        assert 'declared(subject, symmetric="A") agrees' in str(diagnosis_at(product(error), against, point))
    # The identity is symmetric by chance, and neither is this.
    for A in (np.eye(3), SPD + np.eye(3, k=1)):
        assert "declared(" not in str(diagnosis_at(product(1.0), against, {**point, "A": A}))


def test_a_constant_sign_is_no_gauge():
    negated = oracles.manual(lambda z: (-z, None), lambda _, d: {"z": -d})
    diagnosis = diagnosis_at(
        negated, [oracles.torch_autograd(lambda z: z * 1)], {"z": np.arange(1.0, 7.0).reshape(2, 3)}
    )
    assert diagnosis.pattern == "constant_factor"
    assert "declared(" not in str(diagnosis)


def gate(written, *, forgets=False):
    """SwiGLU whose backward writes the gradients into its inputs, or into delta."""

    def forward(a, b):
        return a / (1 + np.exp(-a)) * b, (a, b)

    def backward(cache, delta):
        a, b = cache
        s = 1 / (1 + np.exp(-a))
        da, db = delta * b * (s + (0 if forgets else 1) * a * s * (1 - s)), delta * a * s
        if "a" in written:
            a[...] = da
        if "delta" in written:
            delta[...] = db
        return {"a": a if "a" in written else da, "b": delta if "delta" in written else db}

    return oracles.manual(forward, backward)


GATE = [oracles.torch_autograd(lambda a, b: torch.nn.functional.silu(a) * b)]
GATED = {"a": RNG.standard_normal((4, 3)), "b": RNG.standard_normal((4, 3))}


@pytest.mark.parametrize("written", [("a",), ("delta",), ("a", "delta")])
def test_a_declared_write_is_noted_and_an_undeclared_one_refused(written):
    with pytest.raises(Disagreement):
        oracles.check(gate(written), GATED, GATE)
    result = oracles.check(oracles.declared(gate(written), writes=written), GATED, GATE)
    assert result.verdict is Verdict.AGREES
    assert all(any(f"writes into {n}" in note for note in result.notes) for n in written)
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.declared(gate(written, forgets=True), writes=written), GATED, GATE)
    assert (excinfo.value.verdict, excinfo.value.result.worst.quantity) == (Verdict.WRONG, "a")


def test_a_write_into_another_argument_than_the_declared_one_is_refused():
    with pytest.raises(Disagreement):
        oracles.check(oracles.declared(gate(("a", "delta")), writes="delta"), GATED, GATE)
    with pytest.raises(oracles.InvalidInput, match="writes"):
        oracles.check(oracles.declared(gate(("a",)), writes="c"), GATED, GATE)
    quiet = oracles.check(oracles.declared(gate(()), writes=("a", "delta")), GATED, GATE)
    assert not any("writes into" in note for note in quiet.notes)


def test_a_forward_that_works_in_place_is_judged_on_copies():
    def double(x):
        return 2 * x

    in_place = oracles.manual(lambda x: (np.multiply(x, 2, out=x), None), lambda cache, d: 2 * d)
    subject = oracles.declared(in_place, writes="x")
    x = {"x": RNG.standard_normal(5)}
    assert oracles.check(subject, x, [oracles.torch_autograd(double)]).verdict is Verdict.AGREES


def loss(dtype, factor=1.0):
    """Half the squared norm of each row, summed and returned in a dtype of its own."""

    def forward(z):
        wide = z.astype(np.float32)
        return (wide * wide).sum(-1).astype(dtype) / 2, wide

    def backward(wide, delta):
        assert delta.dtype == dtype or delta.dtype == np.float64
        return {"z": (factor * wide * delta[:, None]).astype(BFLOAT16)}

    return oracles.manual(forward, backward)


def half_squares(z):
    return (z * z).sum(-1) / 2


def test_a_loss_in_float32_of_bfloat16_is_declared():
    z, against = {"z": RNG.standard_normal((4, 8)).astype(BFLOAT16)}, [oracles.torch_autograd(half_squares)]
    with pytest.raises(Disagreement):
        oracles.check(loss(np.float32), z, against)
    assert oracles.check(oracles.declared(loss(np.float32), output_dtype="float32"), z, against).verdict == "agrees"
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.declared(loss(np.float32, 1.2), output_dtype="float32"), z, against)
    assert excinfo.value.result.worst.quantity == "z"
    with pytest.raises(Disagreement, match="float32 are declared"):
        oracles.check(oracles.declared(loss(BFLOAT16), output_dtype="float32"), z, against)


def cosine_fixed_point(steps, factor=1.0):
    """y = cos(z y), by a fixed number of steps of Newton's method from 1; its implicit derivative."""

    def forward(z):
        y = np.ones_like(z)
        for _ in range(steps):
            y = y - (y - np.cos(z * y)) / (1 + z * np.sin(z * y))
        return y, (z, y)

    def backward(cache, delta):
        z, y = cache
        s = np.sin(z * y)
        return {"z": -factor * delta * y * s / (1 + z * s)}

    return oracles.manual(forward, backward)


def test_the_tolerance_of_a_solver_is_declared():
    def exact(z):
        y = torch.ones_like(z)
        for _ in range(60):
            y = y - (y - torch.cos(z * y)) / (1 + z * torch.sin(z * y))
        return y

    z, against = {"z": np.linspace(0.2, 0.9, 7)}, [oracles.torch_autograd(exact)]
    with pytest.raises(Disagreement):
        oracles.check(cosine_fixed_point(2), z, against)
    assert oracles.check(cosine_fixed_point(8), z, against).verdict is Verdict.AGREES
    declared = oracles.declared(cosine_fixed_point(2), solved_to=1e-3)
    assert not oracles.check(declared, z, against).refuses
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.declared(cosine_fixed_point(2, 1.1), solved_to=1e-3), z, against)
    assert excinfo.value.verdict is Verdict.WRONG
    with pytest.raises(oracles.InvalidInput, match="solved_to"):
        oracles.declared(cosine_fixed_point(2), solved_to=2)


def test_copies_of_what_is_written_keep_their_layout():
    """A backward that reads delta as contiguous memory is refused under a declared write, too."""

    def backward(cache, delta):
        plain = np.lib.stride_tricks.as_strided(delta, delta.shape, (delta.shape[1] * 8, 8))
        gradient = 2 * plain
        delta[...] = 0
        return {"z": gradient}

    subject = oracles.declared(oracles.manual(lambda z: (2 * z, None), backward), writes="delta")
    with pytest.raises(Disagreement):
        oracles.check(subject, {"z": RNG.standard_normal((4, 3))}, [oracles.torch_autograd(lambda z: 2 * z)])


def test_no_note_is_made_of_an_undeclared_write():
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.declared(gate(("a", "delta")), writes="a"), GATED, GATE)
    assert any("writes into a" in note for note in excinfo.value.result.notes)
    assert not any("writes into delta" in note for note in excinfo.value.result.notes)
