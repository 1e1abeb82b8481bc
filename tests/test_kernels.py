"""Kernels: the planted bugs that the benchmark counts, and the examples in Triton, Pallas, numba, C and torch."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import oracles
from oracles.rule import as_tuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import kernels  # noqa: E402
from benchmarks.kernel_subjects import SUBJECTS  # noqa: E402

EXAMPLES = ROOT / "examples" / "kernels"
QUICK = ("scale: ", "dropout: ", "swiglu: ", "linear: last", "linear: split", "linear: one rounding", "embedding: sums")
FEW = [s for s in SUBJECTS if s.name.startswith(QUICK) and s.dtype == "bfloat16"]


def test_there_are_enough_right_and_wrong_kernels():
    assert len({s.name for s in SUBJECTS}) == len(SUBJECTS)
    for right in (True, False):
        assert len({(s.kernel, s.variant) for s in SUBJECTS if s.right is right and "torch" not in s.variant}) >= 30
        assert sum(s.right is right for s in SUBJECTS) >= 40
    assert {s.dtype for s in SUBJECTS} == {"bfloat16", "float16", "float32"}


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)
def test_kernel_returns_what_it_claims(subject):
    """Shapes and dtypes are those of the primals, nothing is written into them, and a second call gives the same."""
    primals = subject.primals()
    again = subject.primals()
    y, pullback = subject.rule(**primals)
    delta = kernels.cotangent(y, subject.dtype)
    first, second = pullback(delta), pullback(delta)
    assert all(part.dtype.name == subject.dtype for part in as_tuple(y))
    for name, a in primals.items():
        assert a.tobytes() == again[name].tobytes()
        if a.dtype.kind not in "ib":
            assert (first[name].shape, first[name].dtype) == (a.shape, a.dtype)
            assert first[name].tobytes() == second[name].tobytes()


RIGHT_CODE = {(s.kernel, s.variant): s for s in SUBJECTS if s.right and s.in_float64}


@pytest.mark.slow
@pytest.mark.parametrize("subject", RIGHT_CODE.values(), ids=lambda s: f"{s.kernel}, {s.variant}")
def test_right_code_is_right_in_float64(subject):
    result = oracles.check(subject.rule, subject.primals("float64"), [oracles.torch_autograd(subject.reference)])
    assert result.verdict is oracles.Verdict.AGREES


@pytest.mark.slow
@pytest.mark.parametrize("subject", FEW, ids=lambda s: s.name)
def test_judge_tells_right_from_wrong(subject):
    refused, verdict = kernels.judged(subject)
    assert refused is not subject.right, verdict


@pytest.mark.slow
def test_every_tool_is_counted(tmp_path, capsys):
    file = tmp_path / "kernels.json"
    kernels.main(["--only", "scale: ", "--json", str(file), "-v"])
    printed, result = capsys.readouterr().out, json.loads(file.read_text())
    assert [row["tool"] for row in result["totals"]] == [*kernels.TOOLS]
    chosen = [s for s in SUBJECTS if s.name.startswith("scale: ")]
    assert [row["name"] for row in result["rows"]] == [s.name for s in chosen]
    for row in result["totals"]:
        assert (row["bugs"], row["right"]) == (sum(not s.right for s in chosen), sum(s.right for s in chosen))
        refused = [r["refused"][row["tool"]] for r in result["rows"] if not r["right"]]
        assert row["caught"] == sum(refused)
    totals = {row["tool"]: row for row in result["totals"]}
    assert totals["oracles"]["recall"] == 1.0
    assert totals["cosine"]["caught"] == 0  # a factor, and a tile of two columns, turn no vector by much
    assert all(s.name in printed for s in chosen)


def test_unknown_subject_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        kernels.options(["--only", "no such kernel"])
    assert stopped.value.code == 2
    assert "no such kernel" in capsys.readouterr().err


# Which gradient each of the three wrong versions is refused in; "" where several are off.
REFUSED_IN = {
    "c_gelu": ("z", "z", "z"),
    "compiled_function": ("z", "gain", "z"),
    "numba_gru": ("", "", "h"),
    "pallas_layer_norm": ("x", "x", ""),
    "torch_custom_op": ("gate", "gate", ""),
    "triton_attention": ("", "", ""),
    "triton_cross_entropy": ("logits", "logits", "logits"),
    "triton_rms_norm": ("x", "gain", ""),
    "triton_rotary": ("x", "x", "x"),
    "triton_softmax": ("z", "z", "z"),
    "triton_swiglu": ("gate", "up", ""),
}
SHARED = {"verdicts", "triton_on_this_machine"}


def missing_for(example):
    """Return what an example needs and this machine lacks, in words; "" if nothing."""
    if example.startswith("triton") and not find_spec("triton"):
        return "Triton is not installed: pip install 'manual-bp[kernels]'"
    if example.startswith("numba") and not find_spec("numba"):
        return "numba is not installed: pip install 'manual-bp[kernels]'"
    if example.startswith("c_") and not (os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))):
        return "there is no C compiler"
    if example.startswith("compiled") and not (os.environ.get("CXX") or any(map(shutil.which, ("g++", "clang++")))):
        return "torch.compile needs a C++ compiler"
    return ""


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == REFUSED_IN.keys() | SHARED


@pytest.mark.parametrize("name", REFUSED_IN)
def test_page_shows_every_example(name):
    assert f"examples/kernels/{name}.py" in (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")


def verdicts_of(name, folder):
    """Run an example, check that its right version agrees and the wrong ones are refused, and return the lines."""
    process = subprocess.run(
        [sys.executable, "-W", "ignore", str(EXAMPLES / f"{name}.py")],
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )
    assert process.returncode == 0, process.stdout + process.stderr
    lines = [line for line in process.stdout.splitlines() if ": " in line]
    assert len(lines) == 4, process.stdout
    assert lines[0].endswith(", right: agrees"), process.stdout
    for line, gradient in zip(lines[1:], REFUSED_IN[name], strict=True):
        assert re.search(rf": (WRONG|UNSTABLE) in the cotangent of {gradient or '[a-z]+'}", line, re.I), process.stdout
    assert list(folder.iterdir()) == []
    return lines


@pytest.mark.deep
@pytest.mark.parametrize("name", REFUSED_IN)
def test_right_kernel_agrees_and_three_wrong_ones_are_refused(name, tmp_path):
    if missing := missing_for(name):
        pytest.skip(missing)
    verdicts_of(name, tmp_path)


@pytest.mark.slow
def test_numbers_are_rounded_to_bfloat16_as_torch_rounds_them(tmp_path):
    """Triton's interpreter cuts them off; the examples round them before they are stored."""
    if missing := missing_for("triton"):
        pytest.skip(missing)
    code = (
        "import torch\n"
        "from triton_on_this_machine import DEVICE, rounded, tl, triton\n"
        "@triton.jit\n"
        "def copy(x, y, n, BLOCK: tl.constexpr):\n"
        "    at = tl.arange(0, BLOCK)\n"
        "    tl.store(y + at, rounded(tl.load(x + at, mask=at < n, other=0.0), y), mask=at < n)\n"
        "x = torch.cat([torch.randn(57), torch.tensor([0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 3e38, 1e-40, 0.1])])\n"
        "x = torch.cat([x, torch.tensor([float('nan'), float('inf')])]).to(DEVICE)\n"
        "y = torch.empty(len(x), dtype=torch.bfloat16, device=DEVICE)\n"
        "copy[(1,)](x, y, len(x), BLOCK=128)\n"
        "assert bool(((y == x.bfloat16()) | (x != x) & (y != y)).all())\n"
    )
    script = tmp_path / "copied.py"  # a file: Triton reads the source of its kernels
    script.write_text(code, encoding="utf-8")
    process = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(EXAMPLES)))},
    )
    assert process.returncode == 0, process.stderr
