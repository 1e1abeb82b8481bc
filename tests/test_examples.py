"""The examples do what they say, as whole processes."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples/digits.py"
CNN = ROOT / "examples/cnn_digits.py"
FLOW = ROOT / "examples/flow.py"
GATED = ROOT / "examples/gated_linear.py"


def run(*arguments, cwd, program=(str(DIGITS),)):
    return subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(DIGITS.parent))), "PYTHONIOENCODING": "utf-8"},
    )


@pytest.mark.slow
def test_digits_are_learnt_and_every_gradient_is_judged(tmp_path):
    process = run("--epochs", "3", "--judge-rows", "2", "--plot", "training.png", cwd=tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
    header, *epochs = process.stdout.splitlines()[:4]
    assert header.split() == ["epoch", "loss", "held-out", "torch", "jax", "finite", "difference"]
    for number, line in enumerate(epochs, start=1):
        epoch, loss, accuracy, *ratios = line.split()
        assert int(epoch) == number
        assert 0 < float(loss) < 3
        assert 0 < float(accuracy.removesuffix("%")) <= 100
        assert len(ratios) == 3
        assert all(0 < float(ratio) <= 1 for ratio in ratios)
    message = re.search(r"agreed at each of 3 epochs; held-out accuracy (.*)%", process.stdout)
    assert message
    assert float(message[1]) >= 95
    assert [path.name for path in tmp_path.iterdir()] == ["training.png"]
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.deep
def test_digits_not_learnt_is_a_failure(tmp_path):
    """One epoch of steps over half the images each is too little."""
    process = run("--epochs", "1", "--judge-rows", "1", "--batch", "700", cwd=tmp_path)
    assert process.returncode == 1, process.stdout + process.stderr
    assert "FAILED: held-out accuracy" in process.stdout
    assert (tmp_path / "digits.png").exists()


@pytest.mark.deep
@pytest.mark.parametrize(
    ("bug", "message_part"),
    [
        ("right = Linear.backward\n"
         "def wrong(self, cache, delta):\n"
         "    dz, grads = right(self, cache, delta)\n"
         "    return dz, grads | {'b': grads['b'] / len(delta)}\n"
         "Linear.backward = wrong", "64-32-10, δ by (15): WRONG in the cotangent of"),
        ("right = Tanh.jacobian\n"
         "Tanh.jacobian = lambda self, params, z: right(self, params, z) * (1 + 1e-9)",
         "64-32-10, δ by (16): WRONG in the cotangent of z."),
    ],
    ids=["mean-for-sum", "slope-in-closed-form"],
)  # fmt: skip
def test_planted_bug_is_refused(bug, message_part, tmp_path):
    planted = (
        f"from manual_bp import Linear, Tanh\n{bug}\nimport runpy\nrunpy.run_path({str(DIGITS)!r}, run_name='__main__')"
    )
    process = run("--judge-rows", "2", cwd=tmp_path, program=("-c", planted))
    assert process.returncode == 1, process.stdout + process.stderr
    assert message_part in process.stdout
    assert "FAILED: an oracle refuses a gradient" in process.stdout


@pytest.mark.slow
def test_convolutional_network_learns_and_every_gradient_is_judged(tmp_path):
    process = run("--epochs", "5", "--judge-rows", "3", "--plot", "cnn.png", cwd=tmp_path, program=(str(CNN),))
    assert process.returncode == 0, process.stdout + process.stderr
    header, *epochs = process.stdout.splitlines()[:6]
    assert header.split() == ["epoch", "loss", "held-out", "torch", "jax"]
    for number, line in enumerate(epochs, start=1):
        epoch, loss, _, *ratios = line.split()
        assert int(epoch) == number
        assert 0 < float(loss) < 3
        assert all(0 < float(ratio) <= 1 for ratio in ratios)
    message = re.search(r"every gradient agreed at each of 5 epochs; held-out accuracy (.*)%", process.stdout)
    assert message
    assert float(message[1]) >= 97
    assert (tmp_path / "cnn.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.slow
def test_the_flow_of_delta_is_drawn_and_judged(tmp_path):
    process = run("--epochs", "2", "--judge-rows", "2", cwd=tmp_path, program=(str(FLOW),))
    assert process.returncode == 0, process.stdout + process.stderr
    assert re.search(r"every gradient and every δ\^l agreed at each of 2 epochs", process.stdout)
    assert (tmp_path / "flow.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_delta_gets_smaller_on_its_way_back_through_sigmoids(monkeypatch):
    monkeypatch.syspath_prepend(FLOW.parent)
    flow = import_module("flow")
    rng = np.random.default_rng(0)
    of_delta, of_weights = flow.sizes(flow.NETWORK.init(rng), rng.random((8, 64)), rng.integers(0, 10, 8))
    assert len(of_delta) == len(of_weights) == 4
    assert of_delta == sorted(of_delta)


@pytest.mark.deep
@pytest.mark.parametrize(
    ("bug", "message_part"),
    [
        ("from manual_bp.normalization import BatchNorm\n"
         "right = BatchNorm._in_training\n"
         "BatchNorm._in_training = lambda s, g, by, moved: right(s, g, by, [0 * x for x in moved])",
         "convolutional network: WRONG in the cotangent of"),
        ("from manual_bp import Dropout\n"
         "Dropout.backward = lambda self, cache, delta: ((delta.copy(), None), {})",
         "convolutional network: WRONG in the cotangent of"),
    ],
    ids=["running-state-has-no-pullback", "dropout-forgotten-going-back"],
)  # fmt: skip
def test_bug_in_convolutional_network_is_refused(bug, message_part, tmp_path):
    planted = f"{bug}\nimport runpy\nrunpy.run_path({str(CNN)!r}, run_name='__main__')"
    process = run("--epochs", "1", "--judge-rows", "2", cwd=tmp_path, program=("-c", planted))
    assert process.returncode == 1, process.stdout + process.stderr
    assert message_part in process.stdout
    assert "FAILED: an oracle refuses a gradient" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--epochs", "0"), "--epochs: expected a whole number of at least 1, got 0"),
        (("--batch", "x"), "--batch: invalid whole number value: 'x'"),
        (("--seed", "-1"), "--seed: expected a whole number of at least 0, got -1"),
        (("--plot", "nowhere/digits.png"), "--plot: the folder of nowhere/digits.png does not exist"),
    ],
)
@pytest.mark.parametrize("program", [DIGITS, CNN, FLOW], ids=lambda path: path.stem)
def test_wrong_usage_is_refused_before_any_work(program, arguments, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(program.parent)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        import_module(program.stem).main(arguments)
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err.replace(os.sep, "/")
    assert list(tmp_path.iterdir()) == []


PROGRAMS = {
    "script": ["gated_linear.py"],
    "check": ["-m", "oracles", "check", "gated_linear.py:GatedLinear", "--examples", "20"],
    "verify": ["-m", "oracles", "verify", "--cases", "gated_linear.py", "--max-examples", "20", "--against", "torch"],
    "pytest": [
        "-m", "pytest", "-p", "no:randomly", "-k", "cotangents_agree",
        "--oracles-cases=gated_linear.py", "--oracles-profile=quick", "--oracles-against=torch",
    ],
}  # fmt: skip


@pytest.mark.deep
@pytest.mark.parametrize("bug", [None, ("* (1 + g * rest)", "* (1 + g * gate)")], ids=["right", "wrong"])
@pytest.mark.parametrize("program_name", PROGRAMS)
def test_custom_layer_is_judged_by_every_program(program_name, bug, tmp_path):
    text = GATED.read_text(encoding="utf-8")
    assert bug is None or bug[0] in text
    (tmp_path / GATED.name).write_text(text.replace(*bug) if bug else text, encoding="utf-8")
    process = run(cwd=tmp_path, program=PROGRAMS[program_name])
    assert process.returncode == int(bug is not None), process.stdout + process.stderr
    message_part = re.search(
        r"GatedLinear\(n_in=\d, n_out=\d\): WRONG in the cotangent of ", process.stdout + process.stderr
    )
    assert bool(message_part) == (bug is not None)


ADAPTERS = {
    "bring_a_pair": [
        "forward: agrees", "without a reference: agrees", "no gradient claimed, nothing judged: b",
        "a mean for a sum: WRONG in the cotangent of b", "sigmoid: agrees", "squares: agrees",
    ],
    "bring_a_class": [
        "Dense: agrees", "Learning: agrees", "FirstInput: WRONG in the cotangent of W",
        "forward twice, then backward gives another answer",
    ],
    "bring_an_engine": ["layer: agrees", "= for +=: WRONG in the cotangent of z"],
    "bring_a_torch_function": [
        "torch.float64 agrees", "torch.bfloat16 agrees", "Module: agrees", "Unsummed: WRONG in the cotangent of b",
        "db = db.sum(axis=0, keepdims=True)", "Module: WRONG in the call",
    ],
    "bring_a_custom_vjp": ["log_sum_exp: agrees", "delta of ones: WRONG", "delta taken as all ones"],
    "bring_a_compiled_function": ["libm's tanh: agrees", "libm's tanhf: UNSTABLE", "right up to float32"],
    "bring_a_convention": ["columns: agrees", "columns: WRONG in the cotangent of W", "scale={'W': 0.25} would"],
    "bring_a_functional": [
        "training step: agrees", "adjoint: agrees", 'wrong in params[1]["W"][300]', "forgotten: WRONG in ⟨gradient, v1⟩"
    ],
    "bring_a_tree": ["network: agrees", "WRONG in the cotangent of layers[1].b", 'output["top"] by torch', "mixed up"],
    "bring_a_solver": [
        "implicit: agrees", "one step: WRONG in the cotangent of W", "undeclared: UNSTABLE", "not converged",
    ],
    "bring_a_second_order": [
        "Swish: agrees", "Detached, first order: agrees", "Detached: WRONG in the cotangent of z", "takes something in",
        "LostTangent: WRONG in J v",
    ],
    "run_isolated": [
        "out_of_bounds: WRONG in the call", "right: agrees", "did not return within 2 s", "exit status 3",
        "right: agrees",
    ],
}  # fmt: skip


def test_the_notebook_runs_from_top_to_bottom_and_prints_what_is_stored():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    notebook = json.loads((DIGITS.parent / "find_a_mistake.ipynb").read_text(encoding="utf-8"))
    names = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive", UserWarning)
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
        stored = [text for out in cell["outputs"] for text in out.get("text", ())]
        assert printed.getvalue() == "".join(stored), cell["id"]
        assert pyplot.get_fignums() == [1] * any("data" in out for out in cell["outputs"])
        pyplot.close("all")


def test_every_example_of_an_adapter_is_tested():
    assert {path.stem for pattern in ("bring_*.py", "run_*.py") for path in DIGITS.parent.glob(pattern)} == {*ADAPTERS}


@pytest.mark.deep
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_agrees_and_its_planted_bug_is_refused(name, tmp_path):
    process = run(cwd=tmp_path, program=(str(DIGITS.parent / f"{name}.py"),))
    assert process.returncode == 0, process.stdout + process.stderr
    rest = process.stdout
    for message in ADAPTERS[name]:
        assert message in rest, f"{message!r} is not in, or not after what comes before it in\n{process.stdout}"
        rest = rest.split(message, 1)[1]
    assert list(tmp_path.iterdir()) == []
