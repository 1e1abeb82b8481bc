"""A subject neither ends the process, nor changes what the judge computes with, nor leaves traces."""

import ast
import decimal
import inspect
import os
import random
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import oracles
from oracles.process_state import COMPUTED_WITH, ProcessEnded, call_foreign, judging
from oracles.search import run_search
from oracles.strategies import real

ROOT = Path(__file__).parents[2]
POINT = {"z": np.random.default_rng(0).standard_normal(5)}
REFERENCE = [oracles.torch_autograd(lambda z: z * z)]


def square(trick, where, factor=2.0):
    """The square with a trick in its forward or its backward; a wrong one with another factor."""

    def forward(z):
        if where == "forward":
            trick()
        return z * z, z

    def backward(z, delta):
        if where == "backward":
            trick()
        return {"z": factor * z * delta}

    return oracles.manual(forward, backward)


def raises(error):
    def trick():
        raise error

    return trick


class Stop(BaseException):
    pass


ENDINGS = {
    "os._exit(0)": lambda: os._exit(0),
    "os.abort()": lambda: os.abort(),
    "os.kill": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "signal.raise_signal": lambda: signal.raise_signal(signal.SIGTERM),
    "os.execv": lambda: os.execv(sys.executable, [sys.executable, "-c", "pass"]),
    "SystemExit: 0": lambda: sys.exit(0),
    "SystemExit": lambda: quit(),
    "GeneratorExit": raises(GeneratorExit()),
    "Stop": raises(Stop()),
}
EACH_WAY = [(name, where) for name in ENDINGS for where in ("forward", "backward")]


@pytest.mark.parametrize(("how", "where"), EACH_WAY)
def test_a_subject_that_ends_the_process_is_refused(how, where):
    with pytest.raises(oracles.Disagreement) as refusal:
        oracles.check(square(ENDINGS[how], where), POINT, REFERENCE)
    call = "the forward" if where == "forward" else "the pullback"
    assert refusal.value.evidence.reason.startswith((f"{call} raised {how}", f"{call} called {how}"))
    assert type(os._exit).__name__ == "builtin_function_or_method"


def test_a_subject_that_ends_the_process_fails_its_search():
    cases = st.just(oracles.Case(square(ENDINGS["os._exit(0)"], "backward"), {"z": real(3)}, torch=lambda z: z * z))
    with pytest.raises(oracles.Disagreement):
        run_search(cases, "cotangents_agree", "float64", max_examples=4, seed=0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, pytest.fail.Exception, pytest.skip.Exception])
def test_what_steers_a_run_passes(error):
    with pytest.raises(error):
        oracles.check(square(raises(error("stop")), "forward"), POINT, REFERENCE)


def test_a_child_of_the_subject_may_end():
    def fork():
        pid = os.fork()
        if pid == 0:
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of JAX's threads
        assert oracles.check(square(fork, "backward"), POINT, REFERENCE).verdict == "agrees"


def test_a_signal_that_the_subject_handles_is_its_own():
    def handled():
        previous = signal.signal(signal.SIGUSR1, lambda number, frame: None)
        os.kill(os.getpid(), signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, previous)

    assert oracles.check(square(handled, "backward"), POINT, REFERENCE).verdict == "agrees"


def replace_abs():
    np.abs = lambda x, *args, **options: np.zeros_like(np.asarray(x, float))


def replace_grad():
    torch.autograd.grad = lambda *args, **options: (torch.zeros(5, dtype=torch.float64),)


REPLACED = {"numpy.abs": (np, "abs", replace_abs), "torch.autograd.grad": (torch.autograd, "grad", replace_grad)}


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("name", REPLACED)
def test_a_replaced_function_is_put_back_and_refused(name, where):
    module, attribute, trick = REPLACED[name]
    original = getattr(module, attribute)
    for factor in (0.0, 2.0):
        with pytest.raises(oracles.Disagreement) as refusal:
            oracles.check(square(trick, where, factor), POINT, REFERENCE)
        assert f"replaced {name}" in refusal.value.evidence.reason
        assert getattr(module, attribute) is original


def test_a_function_that_was_replaced_before_judges_nothing(monkeypatch):
    fake = lambda x, *args, **options: np.zeros_like(np.asarray(x, float))  # noqa: E731
    monkeypatch.setattr(np, "abs", fake)
    with pytest.raises(oracles.Disagreement) as refusal:
        oracles.check(square(bool, "forward", 0.0), POINT, REFERENCE)
    assert refusal.value.evidence.reason == ""
    assert oracles.check(square(bool, "forward"), POINT, REFERENCE).verdict == "agrees"
    assert np.abs is fake


def seeds():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


TRICKS = {
    "error state": lambda: np.seterr(all="raise"),
    "folder": lambda: os.chdir("/"),
    "seeds": seeds,
    "draws": lambda: (random.random(), np.random.rand(), torch.rand(1)),  # noqa: NPY002
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "grad mode": lambda: torch.set_grad_enabled(False),
    "environment": lambda: os.environ.update(ORACLES_TEST="set"),
    "filters": lambda: warnings.simplefilter("ignore"),
    "digits": lambda: setattr(decimal.getcontext(), "prec", 3),
    "print options": lambda: np.set_printoptions(precision=1),
    "64 bits": lambda: jax.config.update("jax_enable_x64", True),
}


def state():
    return (
        np.geterr(), os.getcwd(), random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),  # noqa: NPY002
        torch.get_default_dtype(), torch.is_grad_enabled(), dict(os.environ), list(warnings.filters),
        decimal.getcontext().prec, np.get_printoptions(), jax.config.jax_enable_x64,
    )  # fmt: skip


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("name", TRICKS)
def test_what_a_subject_changes_is_put_back_and_changes_no_verdict(name, where):
    before = state()
    assert oracles.check(square(TRICKS[name], where), POINT, REFERENCE).verdict == "agrees"
    assert state() == before
    with pytest.raises(oracles.Disagreement) as refusal:
        oracles.check(square(TRICKS[name], where, 2.5), POINT, REFERENCE)
    assert refusal.value.evidence.index != ()
    assert state() == before


def test_the_judge_computes_under_any_error_state():
    with np.errstate(all="raise"):
        small = {"z": np.array([1e-200, 1e100, 1.0])}
        assert oracles.check(square(bool, "forward"), small, REFERENCE).verdict == "agrees"
        assert np.geterr()["under"] == "raise"


def test_the_functions_are_those_that_the_judge_uses():
    used = set()
    for path in (ROOT / "oracles").rglob("*.py"):
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)]
        used |= {n.attr for n in nodes if isinstance(n.value, ast.Name) and n.value.id == "np"}
    functions = {n for n in used if callable(getattr(np, n)) and not inspect.isclass(getattr(np, n))}
    assert functions - {"errstate"} <= {*COMPUTED_WITH["numpy"]}


def test_judging_inside_judging_adds_nothing():
    with judging():
        inner = os._exit
        with judging():
            assert os._exit is inner
        assert os._exit is inner
        with pytest.raises(ProcessEnded):
            call_foreign(lambda: os._exit(0))


PYTEST = """
    import os, sys
    from os import _exit
    import numpy as np
    import oracles

    def forward(z):
        return z * z, z

    def test_{name}():
        def backward(z, delta):
            {line}

        oracles.check(oracles.manual(forward, backward), {{"z": np.ones(3)}})
"""


@pytest.mark.parametrize("line", ["os._exit(0)", "_exit(0)", "sys.exit(0)", "os.abort()"])
def test_pytest_does_not_pass(line, tmp_path):
    (tmp_path / "test_it.py").write_text(textwrap.dedent(PYTEST.format(name="it", line=line)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "test_it.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 1, process.stdout + process.stderr
    assert "1 failed" in process.stdout


COMMANDS = {
    "os._exit(0)": 1,
    "sys.exit(0)": 1,
    "os.abort()": 1,
    "ctypes.CDLL(None).exit(0)": 1,
    "ctypes.CDLL(None)._exit(0)": 1,
    "ctypes.string_at(0)": 1,
    "pass": 0,
}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="C's exit is seen by the supervising process alone")
@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.parametrize("place", ["backward", "module"])
def test_the_command_line_does_not_pass(line, place, tmp_path):
    inside, outside = (line, "pass") if place == "backward" else ("pass", line)
    (tmp_path / "square.py").write_text(
        "import ctypes, os, sys\n"
        f"{outside}\n"
        "def forward(z): return z * z, z\n"
        f"def backward(z, delta):\n    {inside}\n    return {{'z': 2 * z * delta}}\n"
    )
    command = [sys.executable, "-m", "oracles", "check", "square.py:forward,backward", "--shapes", "z=3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    expected = COMMANDS[line]
    assert process.returncode in ((expected,) if place == "backward" or not expected else (1, 2)), process.stderr
    assert (": agrees" in process.stdout) == (expected == 0)
    assert "Traceback" not in process.stderr
