"""Ball arithmetic on somebody's code runs in a copy of the process: a crash or an endless loop there is survived."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import manual_bp
import oracles
from oracles.exact import isolation
from oracles.exact.ball_arithmetic import ball_arithmetic, certified_enclosures, in_exact_arithmetic
from oracles.rule import NotPerturbable

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="ball arithmetic on foreign code needs a fork")
ROOT = Path(__file__).parents[2]
POINT = {"x": np.random.default_rng(0).standard_normal((3, 3))}


def padded_sum(rows):
    """2x, whose backward sums a view of the padded delta: right of one row, past the end of the buffer of 40.

    Of numbers, sevens lie there, since zeros would do no harm. Of objects, whatever lies there: it is no object.
    """

    def backward(x, delta):
        padded = np.pad(delta, ((0, 1), (0, 1)))
        if padded.dtype != object:
            memory = np.full((rows, *padded.shape), 7.0, padded.dtype)
            memory[0] = padded
            padded = memory[0]
        view = as_strided(padded, (rows, *x.shape), (padded.nbytes, *padded.strides))
        return {"x": 2 * np.tensordot(np.ones(rows), view, 1)}

    return oracles.manual(lambda x: (2 * x, x), backward)


def strided_forward(rows):
    """The same in the forward, so that every point is affected; the rows past the end count zero times."""

    def forward(x):
        plain = np.asarray(x)
        view = as_strided(plain, (rows, *x.shape), (plain.nbytes, *plain.strides))
        return view[0] * 2 + (0 if plain.dtype != object or rows == 1 else view[rows - 1] * 0), x

    return oracles.manual(forward, lambda x, delta: {"x": 2 * delta})


def test_a_view_past_the_buffer_is_refused_and_its_control_agrees():
    reference = [oracles.torch_autograd(lambda x: 2 * x)]
    with pytest.raises(oracles.Disagreement) as refusal:
        oracles.check(padded_sum(40), POINT, reference)
    assert refusal.value.verdict == "wrong"
    assert oracles.check(padded_sum(1), POINT, reference).verdict == "agrees"


def test_a_crash_on_balls_is_a_note_and_no_verdict():
    point = {"x": POINT["x"][:2, :2]}
    reference = [oracles.torch_autograd(lambda x: 2 * x)]
    result = oracles.check(strided_forward(10**6), point, reference)
    assert result.verdict == "agrees"
    assert any("SIGSEGV" in note or "SIGBUS" in note for note in result.notes)
    result = oracles.check(strided_forward(1), point, reference)
    assert {f.oracle for f in result.findings if f.quantity == "x"} == {"torch", "exact"}
    assert result.notes == ()


def test_a_subject_that_ends_the_copy_is_not_asked_again():
    rule = oracles.Rule(lambda z: os._exit(3))
    for _ in range(2):
        with pytest.raises(NotPerturbable, match="exit status 3"):
            ball_arithmetic(rule)(z=np.ones(2))
    assert sum(server.rule() is rule for server in isolation._SERVERS) == 1


def test_an_endless_loop_ends_at_the_time_limit(monkeypatch):
    def forever(z):
        while True:
            pass

    monkeypatch.setattr(isolation, "BALL_SECONDS", 0.2)
    with pytest.raises(NotPerturbable, match=r"0\.2 s"):
        certified_enclosures(oracles.manual(forever, forever), {"z": np.ones(2)}, np.ones(2), "float64")


def test_one_copy_serves_all_points_and_sees_the_subject_as_it_is():
    pids = []
    scale = 3.0
    rule = oracles.manual(lambda z: (scale * z, z), lambda z, delta: {"z": scale * delta})
    for k in range(1, 4):
        z = np.full(2, float(k))
        assert in_exact_arithmetic(rule, {"z": z}, np.ones(2))["output"].tolist() == [3.0 * k] * 2
        assert certified_enclosures(rule, {"z": z}, np.ones(2), "float64")["z"].mid.tolist() == [3.0, 3.0]
        pids.append(isolation._SERVERS[0].process.pid)
    assert len({*pids}) == 1 != os.getpid()
    os.kill(pids[0], 9)  # as after the idle time
    os.waitpid(pids[0], 0)
    assert certified_enclosures(rule, {"z": np.ones(2)}, np.ones(2), "float64")["z"].mid.tolist() == [3.0, 3.0]


class Mine(manual_bp.Linear):
    pass


@pytest.mark.parametrize(
    ("layer", "own"),
    [
        (manual_bp.Linear(2, 3), True),
        (manual_bp.Sequential(manual_bp.Linear(2, 3), manual_bp.Tanh()), True),
        (Mine(2, 3), False),
        (manual_bp.Sequential(Mine(2, 3), manual_bp.Tanh()), False),
    ],
)
def test_only_layers_of_manual_bp_run_in_this_process(layer, own):
    assert isolation.is_own_layer(oracles.manual_layer(layer)) is own
    assert not isolation.is_own_layer(oracles.manual(lambda z: (z, z), lambda z, d: {"z": d}))


def test_copies_end_with_the_process():
    code = (
        "import numpy as np, oracles\n"
        "from oracles.exact import ball_arithmetic, isolation\n"
        "rule = oracles.manual(lambda z: (z * z, z), lambda z, d: {'z': d})\n"
        "ball_arithmetic.certified_enclosures(rule, {'z': np.ones(2)}, np.ones(2), 'float64')\n"
        "print(isolation._SERVERS[0].process.pid)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # The copy has the pipe of stdout too: if it lived on, this would wait for it.
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=50)
    assert printed.stdout.strip().isdigit(), printed.stderr
