"""``oracles check``: the exit status, the report, the JSON and the script."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from projects import BUG, LAYER, SILU

from oracles.__main__ import main
from oracles.options import FRAMEWORK_NAMES
from oracles.registry import FRAMEWORKS

RIGHT, WRONG = "silu.py:forward,backward", "silu.py:forward,forgets_a_term"
AT = ("--shapes", "z=4,3")

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(
    ("target", "references", "oracles"),
    [
        (RIGHT, ["torch:reference"], {"torch"}),
        (RIGHT, ["torch:torch.nn.functional.silu", "jax:jax.nn.silu"], {"torch", "jax"}),
        (RIGHT, ["torch:silu.py:reference", "torch:lambda z: z * torch.sigmoid(z)"], {"torch", "torch 2"}),
        (RIGHT, [], {"finite difference", "exact"}),
        ("silu.py:rule", ["torch:reference"], {"torch"}),
        ("silu:(forward, backward)", ["torch:reference"], {"torch"}),
    ],
)
def test_what_is_right_agrees_with_whom_and_how_closely(target, references, oracles, capsys, folder):
    against = [part for text in references for part in ("--against", text)]
    assert main(["check", target, *against, *AT, "--json", "out.json"]) == 0
    message = capsys.readouterr().out
    assert ": agrees\n" in message
    assert "at: z float64[4, 3]" in message
    assert all(f" {oracle} " in message for oracle in oracles)
    (result,) = json.loads((folder / "out.json").read_text())["results"]
    assert result["verdict"] == "agrees"
    assert {f["oracle"] for f in result["findings"] if f["quantity"] == "z"} == oracles
    assert all(0 < f["detects_above"] < 1e-6 for f in result["findings"] if f["quantity"] == "z")


def test_a_planted_bug_is_refused_with_report_script_and_json(capsys, folder):
    status = main(["check", WRONG, "--against", "torch:reference", *AT, "--script", "out.py", "--json", "out.json"])
    assert status == 1
    message = capsys.readouterr().out
    assert "forward,forgets_a_term: WRONG in the cotangent of z" in message
    assert "reproduce: python out.py" in message
    assert "script()" not in message
    document = json.loads((folder / "out.json").read_text())
    assert document["status"] == 1
    assert document["results"][0]["verdict"] == "wrong"
    assert document["target"] == WRONG
    assert {"torch", "jax", "numpy", "manual-bp"} <= document["versions"].keys()
    with pytest.raises(SystemExit) as shown:
        runpy.run_path("out.py", run_name="__main__")
    assert shown.value.code == 1
    assert "entries differ by more than the tolerance" in capsys.readouterr().out
    assert {p.name for p in folder.iterdir()} >= {"out.py", "out.json", "silu.py"}
    assert not list(folder.glob(".*"))


def test_a_bug_is_refused_without_any_reference(capsys):
    assert main(["check", WRONG, *AT]) == 1
    assert "finite difference" in capsys.readouterr().out


@pytest.mark.parametrize(("layer", "status"), [(LAYER, 0), (LAYER.replace(*BUG), 1)], ids=["right", "wrong"])
def test_a_registered_class_is_drawn_and_an_instance_follows_the_contract(layer, status, capsys, folder):
    (folder / "scale.py").write_text(layer)
    assert main(["check", "scale.py:Scale", "--examples", "20"]) == status
    assert main(["check", "scale.py:Scale(3)", "--shapes", "z=4,3", "--against", "jax:reference"]) == status
    message = capsys.readouterr().out
    assert ("Scale: agrees wherever its cases were drawn" in message) == (status == 0)
    assert ("g float64[1, 3]" in message) == (status == 0) or "Scale(n=3): WRONG in the cotangent of g" in message


def test_too_many_inconclusive_points_of_drawn_cases_are_no_pass(capsys, folder, monkeypatch):
    monkeypatch.setattr("oracles.tally.exceeds_vacuous_limit", lambda vacuous, points: True)
    (folder / "scale.py").write_text(LAYER)
    assert main(["check", "scale.py:Scale", "--examples", "5", "--json", "out.json"]) == 1
    first, *_, last = capsys.readouterr().out.splitlines()[:-1]  # the very last says how to reproduce
    assert first == "Scale: inconclusive at too many points"
    assert "NOT PASSED: inconclusive by " in last
    assert "0 of 5 points; at most 4 may be" in last
    document = json.loads((folder / "out.json").read_text())
    assert document["status"] == 1
    assert {row["verdict"] for row in document["results"]} == {"vacuous"}


def test_quiet_prints_the_first_line(capsys):
    assert main(["check", RIGHT, *AT, "--quiet"]) == 0
    assert capsys.readouterr().out == "forward,backward: agrees\n"
    assert main(["check", WRONG, *AT, "-q"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "WRONG in the cotangent of z" in line


RAISING = {
    "invalid input": ("z, g = cache", 'raise oracles.InvalidInput("boom")'),
    "not implemented": ("z, g = cache", 'raise NotImplementedError("boom")'),
    "a reference failed": ("return z * g\n", 'raise RuntimeError("boom")\n'),
}


def verdict_of_drawn_cases(folder):
    status = main(["check", "scale.py:Scale", "--examples", "5", "--json", "out.json"])
    document = json.loads((folder / "out.json").read_text())
    assert document["status"] == status
    (row,) = document["results"]
    return status, row["verdict"], row.get("cause")


@pytest.mark.parametrize("cause", RAISING)
def test_what_tells_nothing_of_the_subject_is_no_verdict(cause, capsys, folder):
    (folder / "scale.py").write_text(LAYER.replace(*RAISING[cause]))
    assert verdict_of_drawn_cases(folder) == (2, "not judged", cause)
    message = capsys.readouterr().out
    assert f"Scale: not judged, {cause}: " in message
    assert "boom" in message


def test_a_fault_of_the_judge_is_no_verdict(capsys, folder, monkeypatch):
    def fault(*args, **options):
        raise OverflowError("boom")

    monkeypatch.setattr("oracles.decision.judge.all_agreements", fault)
    (folder / "scale.py").write_text(LAYER)
    assert verdict_of_drawn_cases(folder) == (2, "not judged", "the judge failed")
    assert main(["check", RIGHT, "--against", "torch:reference", *AT]) == 2
    assert "forward,backward: not judged, the judge failed: " in capsys.readouterr().out


def test_an_exception_of_the_subject_is_a_verdict(folder):
    (folder / "scale.py").write_text(LAYER.replace("z, g = cache", 'raise RuntimeError("boom")'))
    assert verdict_of_drawn_cases(folder)[:2] == (1, "wrong")


def test_a_cotangent_that_nothing_bounds_is_inconclusive(capsys, folder):
    (folder / "nan.py").write_text("def f(z): return z * float('nan'), z\ndef b(z, d): return {'z': 7 * d}\n")
    assert main(["check", "nan.py:f,b", "--against", "torch:lambda z: z * float('nan')", *AT]) == 1
    assert "nothing is known of the cotangent of z" in capsys.readouterr().out


def test_ours_need_no_file(capsys):
    loss = "manual_bp:SoftmaxCrossEntropy('sum')"
    torch = "torch:lambda y, target: torch.nn.functional.cross_entropy(y, target, reduction='sum')"
    assert main(["check", loss, "--against", torch, "--shapes", "y=4,3 target=4:int<3"]) == 0
    jax = "jax:lambda z, W, b: z @ W + b"
    assert main(["check", "manual_bp:Linear(3, 2)", "--against", jax, "--shapes", "z=4,3"]) == 0
    assert "b float64[1, 2]" in capsys.readouterr().out


KINDS = """
import jax
import numpy as np
import torch

FACTOR = 1.0


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z**3

    @staticmethod
    def backward(ctx, delta):
        (z,) = ctx.saved_tensors
        return FACTOR * 3 * delta * z**2


class Module(torch.nn.Module):
    def forward(self, z):
        return Cube.apply(z)


@jax.custom_vjp
def cube(z):
    return z**3


cube.defvjp(lambda z: (z**3, z), lambda z, delta: (FACTOR * 3 * delta * z**2,))


class Net:
    def __init__(self):
        self.g = np.ones(3)

    def forward(self, z):
        self.z = z
        return z**3 * self.g

    def backward(self, delta):
        self.dg = FACTOR * (self.z**3 * delta).sum(0)
        return 3 * delta * self.z**2 * self.g


def loss(z):
    return (z**3).sum(), FACTOR * 3 * z**2
"""


@pytest.mark.parametrize(("factor", "status"), [("1.0", 0), ("1.001", 1)], ids=["right", "wrong"])
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("Cube", "torch:lambda z: z**3"),
        ("Module", "jax:lambda z: z**3"),
        ("Module()", "jax:lambda z: z**3"),
        ("cube", "torch:lambda z: z**3"),
        ("oracles.stateful(Net, params=['g'])", "torch:lambda z, g: z**3 * g"),
        ("oracles.value_and_grad(loss)", "jax:lambda z: (z**3).sum()"),
    ],
)
def test_whatever_can_be_adapted(name, reference, factor, status, capsys, folder):
    (folder / "kinds_of.py").write_text(KINDS.replace("FACTOR = 1.0", f"FACTOR = {factor}"))
    shapes = "z=4,3 g=3" if "stateful" in name else "z=4,3"
    assert main(["check", f"kinds_of.py:{name}", "--against", reference, "--shapes", shapes]) == status
    assert ("WRONG in the cotangent of" in capsys.readouterr().out) == bool(status)


def test_a_crash_of_the_whole_process_is_a_finding(capsys, folder):
    (folder / "crashes.py").write_text(f"{SILU}\nimport os\ndef dies(cache, delta): os._exit(3)\n")
    assert main(["check", "crashes.py:forward,dies", *AT, "--isolate"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_dtypes_examples_and_seed(capsys):
    assert main(["check", RIGHT, *AT, "--dtype", "float32,float64", "--examples", "3", "--seed", "5"]) == 0
    message = capsys.readouterr().out
    assert "6 points, the first z float32[4, 3]" in message
    assert main(["check", RIGHT, *AT, "--dtype", "float32,float64", "--examples", "3", "--seed", "5"]) == 0
    assert capsys.readouterr().out == message
    assert main(["check", RIGHT, *AT, "--seed", "6"]) == 0
    assert capsys.readouterr().out != message


def test_primals_and_delta_from_files(capsys, folder):
    np.savez("at.npz", z=np.ones((2, 5), np.float32))
    np.save("delta.npy", np.full((2, 5), -2.0))
    assert main(["check", RIGHT, "--primals", "at.npz", "--delta", "delta.npy", "--json", "out.json"]) == 0
    assert "z float32[2, 5]" in capsys.readouterr().out
    (result,) = json.loads((folder / "out.json").read_text())["results"]
    assert result["delta"][0]["values"] == [(-2.0).hex()] * 10


@pytest.mark.parametrize(
    "text", ["primals = {'z': [[0.5, -1.0]]}", "def primals(rng): return {'z': rng.standard_normal((1, 2))}",
             "def primals(): return {'z': np.ones((1, 2))}"],
)  # fmt: skip
def test_primals_from_the_file_itself(text, capsys, folder):
    (folder / "itself.py").write_text(f"{SILU}\n{text}\n")
    assert main(["check", "itself.py:forward,backward"]) == 0
    assert "z float64[1, 2]" in capsys.readouterr().out


def test_shapes_of_every_kind(capsys, folder):
    (folder / "kinds.py").write_text(
        "import numpy as np\n"
        "def forward(p, q, i, m, s):\n    return np.log(p[i]) * m * s + q.sum(), (p, q, i, m, s)\n"
        "def backward(cache, d):\n"
        "    p, q, i, m, s = cache\n    dp = np.zeros_like(p)\n    np.add.at(dp, i, d * m * s / p[i])\n"
        "    return {'p': dp, 'q': np.full_like(q, d.sum()), 's': np.asarray((d * m * np.log(p[i])).sum())}\n"
    )
    shapes = "p=4:positive q=2,3:probabilities i=5:int<4 m=5:bool s="
    assert main(["check", "kinds.py:forward,backward", "--shapes", shapes, "--examples", "5"]) == 0
    assert "i int64[5], m bool[5], s float64[]" in capsys.readouterr().out


def test_precision_and_kinks_are_handed_on(capsys, folder):
    (folder / "relu.py").write_text(
        "import numpy as np\nprimals = {'z': [0.0, 1.0]}\n"
        "def forward(z): return np.maximum(z, 0), z\n"
        "def backward(z, d): return {'z': d * np.where(z == 0, 0.5, z > 0)}\n"
        "def single(z, d): return {'z': (d * np.float32(1/3) * 3 * (z > 0)).astype(z.dtype)}\n"
    )
    relu = ["check", "relu.py:forward,backward", "--against", "torch:torch.relu"]
    assert main(relu) == 0
    assert main([*relu, "--kinks", "declared"]) == 1
    assert "another subgradient than the declared one" in capsys.readouterr().out
    single = ["check", "relu.py:forward,single", "--against", "torch:torch.relu"]
    assert main(single) == 1
    assert main([*single, "--precision", "float32"]) == 0


def test_nothing_judged_is_no_pass(capsys):
    assert main(["check", "silu.py:forward,nothing", *AT]) == 1
    assert "NOT PASSED: the backward returned no gradient at all" in capsys.readouterr().out


def test_what_raises_is_no_pass_and_its_line_is_named(capsys):
    assert main(["check", "silu.py:forward,raises", *AT, "--script", "raised.py"]) == 1
    message = capsys.readouterr().out
    assert "the pullback raised ZeroDivisionError: in backward" in message
    assert "reproduce: python raised.py" in message
    assert "ZeroDivisionError" in Path("raised.py").read_text()
    assert main(["check", "silu.py:lambda z: z @ z, backward", *AT, "--script", "out.py"]) == 1
    message = capsys.readouterr().out
    assert "the forward raised ValueError: matmul" in message


def test_framework_names_match_the_registry():
    assert set(FRAMEWORK_NAMES) == set(FRAMEWORKS)


SPLIT = """
import numpy as np
import oracles
from oracles.strategies import real, rows, widths


class Split:
    def init(self, rng, dtype=np.float64):
        return {}

    def forward(self, params, z):
        if len(z) == 1:  # another order of the sum
            return z[:, ::-1].cumsum(1)[:, -1:], z
        return z.cumsum(1)[:, -1:], z

    def backward(self, z, delta):
        return delta * np.ones_like(z), {}


def reference(z):
    return z.sum(1, keepdims=True)


@oracles.oracle_for(Split)
def split(draw):
    primals = {"z": real(draw(rows()), draw(widths()))}
    return oracles.Case(oracles.manual_layer(Split()), primals, jax=reference, batched=("z",))
"""
ASKED = ("--properties", "batch_invariant")


def test_a_property_on_request_is_judged_besides(capsys, folder):
    (folder / "split.py").write_text(SPLIT)
    at = ("check", "split.py:Split()", "--against", "jax:reference", "--shapes", "z=6,50")
    assert main([*at]) == 0
    assert main([*at, *ASKED, "--batched", "z", "--json", "out.json"]) == 1
    assert "NOT_INVARIANT in output" in capsys.readouterr().out
    (result,) = json.loads((folder / "out.json").read_text())["results"]
    assert {(f["quantity"], f["verdict"]) for f in result["findings"] if f["refuses"]} == {("output", "not_invariant")}
    assert main([*at, "--properties", "deterministic"]) == 0
    with pytest.raises(SystemExit) as stopped:
        main([*at, *ASKED])
    assert stopped.value.code == 2
    assert "Fix:    --batched z" in capsys.readouterr().err


def test_drawn_cases_are_judged_by_properties_on_request(capsys, folder):
    (folder / "split.py").write_text(SPLIT)
    for command in (("check", "split.py:Split", "--examples"), ("verify", "--cases", "split.py", "--max-examples")):
        assert main([*command, "20"]) == 0
        assert main([*command, "20", *ASKED, "--html", "page.html"]) == 1
        assert "NOT_INVARIANT in output" in capsys.readouterr().out
        assert "not_invariant" in (folder / "page.html").read_text()
