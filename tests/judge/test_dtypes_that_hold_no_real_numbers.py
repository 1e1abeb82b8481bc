"""Complex numbers, objects and texts where real numbers belong: refused for their dtype, in every mode."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import oracles
from oracles import Disagreement, Verdict
from oracles.evaluations import same_values
from oracles.properties import PROPERTIES
from oracles.search import run_search
from oracles.strategies import real, rows, widths

torch = pytest.importorskip("torch")
st = pytest.importorskip("hypothesis.strategies")

X = np.random.default_rng(0).standard_normal((3, 2))
REFERENCES = {"reference": [oracles.torch_autograd(lambda x: x**2)], "none": []}
CASTS = {
    "complex": lambda a: a.astype(complex),
    "imaginary": lambda a: a + 1j * a,
    "objects": lambda a: a.astype(object),
    "dicts": lambda a: np.array([{} for _ in a.ravel()], object).reshape(a.shape),
    "texts": lambda a: a.astype(str),
    "times": lambda a: a.astype("datetime64[s]"),
}
FIXES = {"complex": ".real ", "imaginary": ".real ", "objects": "np.asarray("}


def same(a: Any) -> Any:
    return a


def square(*, cotangent: Any = same, by_x: Any = same, by_delta: Any = same, tangent: Any = same) -> Any:
    """Return x² with one of its derivatives cast to another dtype."""
    return oracles.manual(
        lambda x: (x**2, x),
        lambda x, d: {"x": cotangent(2 * x * d)},
        second=lambda x, d, w: {"x": by_x(2 * d * w["x"]), "delta": by_delta(2 * x * w["x"])},
        jvp=lambda p, t: (p["x"] ** 2, tangent(2 * p["x"] * t["x"])),
        name="square",
    )


# What is cast, how it is judged, and the quantity that is refused.
DERIVATIVES = {
    "cotangent": ({}, "x"),
    "by_x": ({"order": 2}, "x"),
    "by_delta": ({"order": 2}, "delta"),
    "tangent": ({"mode": "jvp"}, "J v"),
}


@pytest.mark.parametrize("references", REFERENCES)
def test_real_numbers_agree_in_every_mode(references: str) -> None:
    result = oracles.check(square(), {"x": X}, REFERENCES[references], order=2, mode="both")
    assert result.verdict is Verdict.AGREES


@pytest.mark.parametrize("references", REFERENCES)
@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("cast", CASTS)
def test_what_is_not_real_is_refused_for_its_dtype(cast: str, derivative: str, references: str) -> None:
    options, quantity = DERIVATIVES[derivative]
    subject = square(**{derivative: CASTS[cast]})
    with pytest.raises(Disagreement) as refusal:
        oracles.check(subject, {"x": X}, REFERENCES[references], **options)
    refused = refusal.value
    assert (refused.verdict, refused.result.worst.quantity) == (Verdict.WRONG, quantity)
    assert refused.evidence.reason.startswith(f"dtype {CASTS[cast](X).dtype}")
    assert FIXES.get(cast, "np.asarray(") in refused.evidence.fix
    # No value was compared, so nothing is claimed of its cause.
    assert not refused.diagnosis or "no pattern" in str(refused.diagnosis)
    assert {f.quantity for f in refused.result.findings if f.refuses} == {quantity}
    json.loads(refused.to_json())
    compile(refused.script(), "square.py", "exec")


@pytest.mark.parametrize("cast", ["objects", "dicts", "texts", "times"])
@pytest.mark.parametrize("references", REFERENCES)
def test_output_that_is_not_real_is_refused_for_its_dtype(references: str, cast: str) -> None:
    subject = oracles.manual(lambda x: (CASTS[cast](x**2), x), lambda x, d: {"x": 2 * x * d})
    with pytest.raises(Disagreement) as refusal:
        oracles.check(subject, {"x": X}, REFERENCES[references])
    assert (refusal.value.verdict, refusal.value.result.worst.quantity) == (Verdict.WRONG, "output")
    assert "expected float64" in refusal.value.evidence.reason


def test_complex_cotangent_of_a_real_factor() -> None:
    """The sum over the imaginary part: a real factor of complex numbers has a real gradient."""
    rng = np.random.default_rng(1)
    primals = {"z": rng.standard_normal(3) + 1j * rng.standard_normal(3), "a": rng.standard_normal(3)}

    def subject(project: Any) -> Any:
        return oracles.manual(
            lambda z, a: (a * z, (z, a)), lambda c, d: {"z": d * c[1], "a": project(d * np.conj(c[0]))}
        )

    for against in ([oracles.torch_autograd(lambda z, a: a * z)], []):
        assert oracles.check(subject(np.real), primals, against).verdict is Verdict.AGREES
        with pytest.raises(Disagreement) as refusal:
            oracles.check(subject(same), primals, against)
        assert (refusal.value.verdict, refusal.value.result.worst.quantity) == (Verdict.WRONG, "a")
        assert refusal.value.evidence.fix.startswith("da = da.real")


@pytest.mark.parametrize("cast", ["complex", "objects", "texts"])
def test_search_refuses_the_dtype(cast: str) -> None:
    """Every property runs on such a subject; those that ask for its dtypes refuse it."""

    @st.composite
    def cases(draw: Any) -> oracles.Case:
        primals = {"x": real(draw(rows()), draw(widths()))}
        return oracles.Case(square(cotangent=CASTS[cast]), primals, torch=torch.square, batched=("x",))

    refused = set()
    for name in PROPERTIES:
        try:
            run_search(cases(), name, "float64", max_examples=5, seed=0)
        except Disagreement:
            refused.add(name)
    assert refused == {"cotangents_agree", "shapes_and_dtypes_exact"}


@pytest.mark.parametrize("cast", CASTS)
def test_equal_arrays_have_equal_values_in_every_dtype(cast: str) -> None:
    first, again, other = (CASTS[cast](a) for a in (X, X.copy(), X * 1e5 + 7))
    assert same_values(first, again)
    assert not same_values(first, other) or cast == "dicts"


def test_nan_equals_nan_in_objects_and_complex_numbers() -> None:
    for dtype in (object, complex):
        assert same_values(np.array([np.nan, 1.0], dtype), np.array([np.nan, 1.0], dtype))
        assert not same_values(np.array([np.nan, 1.0], dtype), np.array([1.0, np.nan], dtype))
    assert not same_values(np.array([0j]), np.array([complex(0.0, -0.0)]))
