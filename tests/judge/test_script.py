"""`script()` writes names, texts and values as data: whatever they are, the file compiles and has the same arrays."""

import contextlib
import io

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import oracles
from oracles.numerics import Numerics
from oracles.report.reproduction import script
from oracles.verdict import Evidence, Finding, Result, Setting, Verdict

HOSTILE = [
    'z": print("executed"), "w',
    "z\nraise SystemExit(7)\n",
    '"""\nraise SystemExit(7)\n"""',
    "z\\",
    "{z} {0} %s",
    "' + str(exit(7)) + '",
    "z\u2028\0\r\ud800",
]
DTYPES = ["float64", "float32", "float16", "bfloat16", "longdouble", "int64", "uint64", "int8", "bool"]


def square(**primals):
    def pullback(delta):
        return {n: a * 2 for n, a in primals.items()}

    return next(iter(primals.values())) * 1, pullback


def script_of(primals, name="subject", report="report", quantity=None, oracle="oracle", delta=None):
    """The text of the script for a subject of any name that returns 2a for every primal a."""
    rule = oracles.Rule(square, name)
    other = oracles.Rule(lambda **p: (square(**p)[0], lambda d: {n: a * 3 for n, a in p.items()}), oracle)
    evidence = Evidence(reason=report)
    finding = Finding(quantity or next(iter(primals)), oracle, Verdict.WRONG, True, np.inf, evidence=evidence)
    delta = np.ones(np.shape(next(iter(primals.values())))) if delta is None else delta
    return script(
        Result(name, "check", (finding,), setting=Setting(rule, (other,), primals, delta, Numerics.of("float64"))),
        report,
    )


def run(text):
    """The names that the script defines, what it prints, and its exit status."""
    text.encode("utf-8")
    names, printed = {"__name__": "__main__"}, io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
        exec(compile(text, "script.py", "exec"), names)
    return names, printed.getvalue(), end.value.code


def assert_same(actual, expected):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    nan = actual != actual
    assert np.array_equal(nan, expected != expected)
    assert np.array_equal(actual[~nan], expected[~nan])
    if actual.dtype.kind not in "iub":
        assert np.array_equal(np.signbit(actual[~nan]), np.signbit(expected[~nan]))


@st.composite
def arrays(draw):
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    name = draw(st.sampled_from(DTYPES))
    if name in ("bfloat16", "longdouble"):
        dtype = ml_dtypes.bfloat16 if name == "bfloat16" else np.longdouble
        array = draw(npst.arrays(np.float64, shape))
        with np.errstate(all="ignore"):
            return array.astype(dtype) / dtype(3)
    return draw(npst.arrays(np.dtype(name), shape))


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(max_size=12) | st.sampled_from(HOSTILE), arrays(), min_size=1, max_size=3),
    st.text(max_size=20) | st.sampled_from(HOSTILE),
    st.text(max_size=20) | st.sampled_from(HOSTILE),
)
@example({HOSTILE[0]: np.array([-0.0, np.nan, np.inf, -np.inf, 5e-324])}, HOSTILE[2], HOSTILE[1])
def test_names_and_values_are_data(primals, name, report):
    names, _, status = run(script_of(primals, name, report, oracle=name))
    assert list(names["primals"]) == list(primals)
    for n, a in primals.items():
        assert_same(names["primals"][n], a)
    assert status in (0, 1)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_executes_nothing(text):
    primals = {text: np.array([1.0, 2.0])}
    names, printed, status = run(script_of(primals, text, text, text, text))
    assert status == 1
    assert list(names["primals"]) == [text]
    assert "executed\n" not in printed
    assert "2 of 2 entries differ" in printed
    assert text in names["__doc__"]


def test_a_large_array_is_short_and_exact():
    z = np.tile(np.random.default_rng(0).standard_normal(1000), 30)[::-1]
    text = script_of({"z": z})
    assert len(text) < 0.2 * 25 * z.size * 3
    assert_same(run(text)[0]["primals"]["z"], z)


FACTOR = 3


def double(a, /):
    return 3 * a


def with_a_default(z, scale=FACTOR):
    return z * scale


@pytest.mark.parametrize("reference", [double, with_a_default])
@pytest.mark.parametrize("make", [oracles.torch_autograd, oracles.jax_vjp])
def test_a_reference_is_called_as_the_judge_calls_it(reference, make):
    subject = oracles.manual(lambda z: (3 * z, None), lambda c, d: {"z": 2 * d})
    with pytest.raises(oracles.Disagreement) as refusal:
        oracles.check(subject, {"z": np.array([1.0, 2.0])}, [make(reference)])
    _, printed, status = run(refusal.value.script())
    assert status == 1
    assert "2 of 2 entries differ" in printed
