"""A subject in a process of its own: a crash, an exit or an endless loop is a finding, and the run continues."""

import ctypes
import os
import sys

import numpy as np
import pytest
from pairs import PAIRS

import oracles
from oracles import Crashed, Disagreement, InvalidInput, ReferenceFailed, Verdict

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a subject defined in a test can only be forked")

DENSE = PAIRS["dense"]
AT = DENSE.at(6)


def segfault():
    ctypes.string_at(0)


def endless():
    while True:
        pass


def raises():
    raise ZeroDivisionError("of the subject")


ENDINGS = [
    (segfault, "ended the process: killed by SIGSEGV"),
    (lambda: sys.exit(3), "ended the process: exit status 3"),
    (lambda: sys.exit(), "ended the process: exit status 0"),
    (lambda: os._exit(7), "ended the process: exit status 7"),
    (os.abort, "ended the process: killed by SIGABRT"),
    (endless, "did not return within 0.5 s"),
    (raises, "raised ZeroDivisionError: of the subject"),
]


def ending_in(where, ending):
    def forward(z, W, b):
        if where == "the forward":
            ending()
        return DENSE.forward(z, W, b)

    def backward(cache, d):
        ending()
        return DENSE.backward(cache, d)

    return oracles.manual(forward, backward)


@pytest.mark.parametrize("where", ["the forward", "the pullback"])
@pytest.mark.parametrize(
    ("ending", "message"),
    [
        pytest.param(f, message, id=message.split(": ")[-1], marks=[pytest.mark.slow] if f is endless else [])
        for f, message in ENDINGS
    ],
)
def test_the_end_of_the_process_is_a_finding(where, ending, message, capfd):
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(ending_in(where, ending), AT, against=[DENSE.torch], isolate=True, seconds=0.5)
    assert excinfo.value.verdict is Verdict.WRONG
    assert excinfo.value.result.worst.quantity == "the call"
    assert f"{where} {message}" in " ".join(str(excinfo.value).split()).replace(
        f"{where} raised Crashed: {where}", where
    )


def test_the_run_continues_after_a_crash():
    subjects = [ending_in("the pullback", segfault), oracles.manual(DENSE.forward, DENSE.backward)]
    verdicts = []
    for subject in [*subjects, *subjects]:
        try:
            verdicts.append(oracles.check(subject, AT, against=[DENSE.torch], isolate=True).verdict)
        except Disagreement as excinfo:
            verdicts.append(excinfo.verdict)
    assert verdicts == ["wrong", "agrees", "wrong", "agrees"]


def test_isolated_by_itself_raises_crashed():
    rule = oracles.isolated(ending_in("the forward", segfault))
    with pytest.raises(Crashed, match=r"forward.* SIGSEGV"):
        rule(**AT)
    y, pullback = oracles.isolated(ending_in("the pullback", segfault))(**AT)
    assert y.shape == (3, 2)
    with pytest.raises(Crashed, match="the pullback ended the process"):
        pullback(y)
    with pytest.raises(Crashed, match="the pullback: the process has ended"):
        pullback(y)


def test_endless_loop_is_stopped_at_the_time_limit():
    with pytest.raises(Disagreement, match="did not return within 0.2 s"):  # noqa: RUF043
        oracles.check(ending_in("the forward", endless), AT, against=[DENSE.torch], isolate=True, seconds=0.2)


def test_the_subjects_exception_is_raised_as_it_is():
    class Mine(Exception):
        """Of a class that no other process can import."""

    def forward(z):
        raise Mine("local")

    with pytest.raises(RuntimeError, match="Mine: local"):
        oracles.isolated(oracles.manual(forward, lambda c, d: d))(z=AT["z"])
    with pytest.raises(ZeroDivisionError, match="of the subject"):
        oracles.isolated(ending_in("the forward", raises))(**AT)


@pytest.mark.parametrize("name", ["dense", "softmax", "embedding", "two outputs"])
def test_right_subjects_agree(name):
    pair = PAIRS[name]
    subject = oracles.manual(pair.forward, pair.backward)
    assert oracles.check(subject, pair.at(2), [pair.torch], isolate=True).verdict is Verdict.AGREES


def test_writes_are_reported_from_another_process():
    def forward(z, W, b):
        y = DENSE.forward(z, W, b)
        z *= 2
        return y

    def backward(cache, d):
        gradients = DENSE.backward(cache, d.copy())
        d += 1
        return gradients

    for pair, message in (
        ((forward, DENSE.backward), "z was written into"),
        ((DENSE.forward, backward), "delta[0] was"),
    ):
        with pytest.raises(Disagreement) as excinfo:
            oracles.check(oracles.manual(*pair), AT, against=[DENSE.torch], isolate=True)
        assert message in str(excinfo.value)


@pytest.mark.parametrize(
    "lay",
    [np.asfortranarray, lambda a: a[::-1], lambda a: a[:, ::2], lambda a: np.broadcast_to(a[:1], a.shape), lambda a: a],
    ids=["Fortran", "reversed", "sliced", "broadcast", "plain"],
)
def test_strides_and_flags_are_kept(lay):
    z = lay(AT["z"].copy())
    z.flags.writeable = False

    def forward(z):
        return np.array([*z.strides, *z.shape, z.flags.writeable], np.float64), None

    y, _ = oracles.isolated(oracles.manual(forward, lambda c, d: {}))(z=z)
    assert y.tolist() == [*z.strides, *z.shape, False]


@pytest.mark.slow
def test_stateful_and_torch_subjects_are_isolated_too():
    from forms import as_class, as_function

    for subject in (
        oracles.stateful(as_class(DENSE), params=DENSE.params),
        oracles.torch_function(as_function(DENSE)),
    ):
        assert oracles.check(subject, AT, against=[DENSE.torch], isolate=True).verdict is Verdict.AGREES


def test_a_reference_that_fails_is_not_the_subjects_fault():
    def reference(z, W, b):
        raise ArithmeticError("of the reference")

    for isolate in (False, True):
        with pytest.raises(ReferenceFailed, match="ArithmeticError") as failed:
            oracles.check(
                oracles.manual(DENSE.forward, DENSE.backward),
                AT,
                against=[oracles.torch_autograd(reference)],
                isolate=isolate,
            )
        assert not isinstance(failed.value, AssertionError)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_limit_of_zero_is_invalid(seconds):
    with pytest.raises(InvalidInput, match="seconds"):
        oracles.check(oracles.manual(DENSE.forward, DENSE.backward), AT, isolate=True, seconds=seconds)


def test_a_subject_that_cannot_be_pickled():
    import threading

    lock = threading.Lock()
    subject = oracles.manual(lambda z: (lock and z * 2, None), lambda c, d: {"z": 2 * d})
    with pytest.raises(InvalidInput, match="process") as excinfo:
        oracles.isolated(subject, start="spawn")(z=AT["z"])
    assert "oracles.isolated(subject, start='fork')" in str(excinfo.value)
    with pytest.raises(InvalidInput, match=r"start: expected .* got 'thread'"):
        oracles.isolated(subject, start="thread")


@pytest.mark.slow
def test_jax_is_spawned():
    """A process that computes with JAX cannot be forked, so a custom_vjp is sent to a new one."""
    import jax
    import jax.numpy as jnp

    @jax.custom_vjp
    def tanh(z):
        return jnp.tanh(z)

    tanh.defvjp(lambda z: (tanh(z), jnp.tanh(z)), lambda y, d: (d * (1 - y * y),))
    z = AT["z"]
    y, pullback = oracles.isolated(oracles.jax_function(tanh))(z=z)
    assert y.dtype == np.float64
    assert np.array_equal(pullback(z)["z"], oracles.jax_function(tanh)(z=z)[1](z)["z"])
    tanh.defvjp(lambda z: (jnp.tanh(z), None), lambda y, d: os._exit(9))
    _, pullback = oracles.isolated(oracles.jax_function(tanh))(z=z)
    with pytest.raises(Crashed, match=r"pullback.* 9"):
        pullback(z)


@pytest.mark.slow
def test_a_spawned_process_that_ends_is_a_finding():
    def forward(z):
        os._exit(9)

    subject = oracles.isolated(oracles.manual(forward, lambda c, d: {}), start="spawn")
    with pytest.raises(Disagreement, match=r"forward.* 9"):
        oracles.check(subject, {"z": AT["z"]})
