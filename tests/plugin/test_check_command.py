"""``oracles check``: one function of somebody's, judged where they say, and told in their words."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from projects import BUG, LAYER

from oracles import registry
from oracles.__main__ import main
from oracles.options import FRAMEWORK_NAMES
from oracles.registry import FRAMEWORKS

SILU = """
import numpy as np
import torch

import oracles


def forward(z):
    a = 1 / (1 + np.exp(-z))
    return z * a, (z, a)


def backward(cache, delta):
    z, a = cache
    return {"z": delta * (a + z * a * (1 - a))}


def forgets_a_term(cache, delta):
    z, a = cache
    return {"z": delta * a}


def raises(cache, delta):
    raise ZeroDivisionError("in backward")


def nothing(cache, delta):
    return {"z": None}


def reference(z):
    return torch.nn.functional.silu(z)


def of_two(y, x):
    return y


rule = oracles.manual(forward, backward, name="my silu")
not_callable = 3
"""
RIGHT, WRONG = "silu.py:forward,backward", "silu.py:forward,forgets_a_term"
AT = ("--shapes", "z=4,3")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "_ENTRIES", {entry.name: entry for entry in registry.entries()})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "silu.py").write_text(SILU)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "references", "oracles"),
    [
        (RIGHT, ["torch:reference"], {"torch"}),
        (RIGHT, ["torch:torch.nn.functional.silu", "jax:jax.nn.silu"], {"torch", "jax"}),
        (RIGHT, ["torch:silu.py:reference", "torch:lambda z: z * torch.sigmoid(z)"], {"torch", "torch 2"}),
        (RIGHT, [], {"finite difference"}),
        ("silu.py:rule", ["torch:reference"], {"torch"}),
        ("silu:(forward, backward)", ["torch:reference"], {"torch"}),
    ],
)
def test_what_is_right_agrees_with_whom_and_how_closely(target, references, oracles, capsys, folder):
    against = [part for text in references for part in ("--against", text)]
    assert main(["check", target, *against, *AT, "--json", "out.json"]) == 0
    said = capsys.readouterr().out
    assert ": agrees\n" in said
    assert "at: z float64[4, 3]" in said
    assert all(f" {oracle} " in said for oracle in oracles)
    (result,) = json.loads((folder / "out.json").read_text())["results"]
    assert result["verdict"] == "agrees"
    assert {f["oracle"] for f in result["findings"] if f["quantity"] == "z"} == oracles
    assert all(0 < f["resolves"] < 1e-6 for f in result["findings"] if f["quantity"] == "z")


def test_a_planted_bug_is_refused_with_report_script_and_json(capsys, folder):
    status = main(["check", WRONG, "--against", "torch:reference", *AT, "--script", "out.py", "--json", "out.json"])
    assert status == 1
    said = capsys.readouterr().out
    assert "forward,forgets_a_term: WRONG in the cotangent of z" in said
    assert "reproduce: python out.py" in said
    assert "script()" not in said
    document = json.loads((folder / "out.json").read_text())
    assert document["status"] == 1
    assert document["results"][0]["verdict"] == "wrong"
    assert document["target"] == WRONG
    assert {"torch", "jax", "numpy", "manual-bp"} <= document["versions"].keys()
    shown = subprocess.run([sys.executable, "out.py"], capture_output=True, text=True, cwd=folder)
    assert shown.returncode == 1, shown.stderr
    assert "entries differ by more than rounding allows" in shown.stdout
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
    said = capsys.readouterr().out
    assert ("Scale: agrees wherever its cases were drawn" in said) == (status == 0)
    assert ("g float64[1, 3]" in said) == (status == 0) or "Scale(n=3): WRONG in the cotangent of g" in said


def test_ours_need_no_file(capsys):
    loss = "manual_bp:SoftmaxCrossEntropy('sum')"
    torch = "torch:lambda y, target: torch.nn.functional.cross_entropy(y, target, reduction='sum')"
    assert main(["check", loss, "--against", torch, "--shapes", "y=4,3 target=4:int<3"]) == 0
    jax = "jax:lambda z, W, b: z @ W + b"
    assert main(["check", "manual_bp:Linear(3, 2)", "--against", jax, "--shapes", "z=4,3"]) == 0
    assert "b float64[1, 2]" in capsys.readouterr().out


def test_dtypes_examples_and_seed(capsys):
    assert main(["check", RIGHT, *AT, "--dtype", "float32,float64", "--examples", "3", "--seed", "5"]) == 0
    said = capsys.readouterr().out
    assert "6 points, the first z float32[4, 3]" in said
    assert main(["check", RIGHT, *AT, "--dtype", "float32,float64", "--examples", "3", "--seed", "5"]) == 0
    assert capsys.readouterr().out == said
    assert main(["check", RIGHT, *AT, "--seed", "6"]) == 0
    assert capsys.readouterr().out != said


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
    assert main(["check", "silu.py:forward,raises", *AT, "--script", "out.py"]) == 1
    said = capsys.readouterr().out
    assert "the pullback raised ZeroDivisionError: in backward" in said
    assert "reproduce: python out.py" in said
    assert "ZeroDivisionError" in Path("out.py").read_text()
    assert main(["check", "silu.py:lambda z: z @ z, backward", *AT]) == 1
    assert "forward raised at z float64[4, 3]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["silu.py", *AT], "TARGET: expected FILE.py:NAME or MODULE:NAME, got 'silu.py'. silu.py defines forward, "),
        (["silo.py:forward,backward", *AT], "no file silo.py; "),
        (["nowhere:forward", *AT], "no module named 'nowhere'"),
        (["failing.py:forward", *AT], "failing.py cannot be imported: ZeroDivisionError: "),
        (["silu.py:forward,bakward", *AT], "silu.py has no 'bakward'; did you mean backward?"),
        (["silu.py:forward,", "--shapes", "z=2"], "forward, is ("),
        (["silu.py:forward", *AT], "forward is the function forward(z) alone, which cannot be judged as it is."),
        (["silu.py:1 +", *AT], "expected a name, or an expression such as Dense(3, 2), got '1 +'"),
        (["manual_bp:Linear(3)", *AT], "Linear(3) in manual_bp: TypeError: "),
        (["manual_bp:Linear", *AT], "Fix:    give an instance, Linear(n_in=..., n_out=..., bias=...)"),
        ([RIGHT], 'Fix:    --shapes "z=4,3 W=3,2", or --primals FILE.npz, or primals = {"z": ...} in the file'),
        ([RIGHT, *AT, "--against", "reference"], "--against: expected torch:REF or jax:REF, got 'reference'"),
        ([RIGHT, *AT, "--against", "numpy:reference"], "Fix:    --against torch:reference"),
        (
            [RIGHT, *AT, "--against", "torch:refrence"],
            "--against torch:refrence: silu.py has no 'refrence'; did you mean",
        ),
        ([RIGHT, *AT, "--against", "torch:not_callable"], "expected a function f(**primals) -> y, got 3 (int)"),
        ([RIGHT, *AT, "--against", "torch:of_two"], "--against torch:of_two: raised at z float64[4, 3]"),
        ([RIGHT, "--shapes", "z:4,3"], "--shapes: cannot read 'z:4,3': expected \"name=extents\""),
        ([RIGHT, "--shapes", "z=4,3:int"], "--shapes: cannot read 'z=4,3:int'"),
        ([RIGHT, "--shapes", "z=4:complex"], "--shapes: cannot read 'z=4:complex'"),
        ([RIGHT, "--shapes", "z=4:int<0"], "there is no integer from 0 below 0"),
        ([RIGHT, "--shapes", "z=4 z=3"], "'z' is named twice"),
        ([RIGHT, "--shapes", " "], "--shapes: nothing in ' '"),
        ([RIGHT, "--primals", "none.npz"], "--primals: no file none.npz"),
        ([RIGHT, "--primals", "silu.py"], "--primals: silu.py is no file of arrays"),
        ([RIGHT, "--primals", "one.npy"], "holds one array without a name.\nFix:    np.savez("),
        ([RIGHT, *AT, "--delta", "one.npy"], "--delta: expected the shape of the output, (4, 3), got (7,)"),
        ([RIGHT, *AT, "--precision", "int8"], "precision: expected one of "),
        ([RIGHT, *AT, "--dtype", "int8"], "--dtype: expected some of float64, float32"),
        ([RIGHT, *AT, "--examples", "0"], "expected a whole number of at least 1, got '0'"),
        ([RIGHT, *AT, "--script", "no/where.py"], "--script: the folder of no/where.py does not exist"),
        ([RIGHT, *AT, "--json", "no/where.json"], "--json: the folder of no/where.json does not exist"),
        (["manual_bp:Tanh", "--delta", "one.npy"], "--delta: Tanh is judged where its cases are drawn"),
        (["bad.py:forward,backward"], "primals in bad.py: expected a dict of arrays by name"),
    ],
)
def test_wrong_usage_says_what_came_what_is_expected_and_the_fix(arguments, said, capsys, folder):
    (folder / "failing.py").write_text("1 / 0\n")
    (folder / "bad.py").write_text(f"{SILU}\nprimals = [1, 2]\n")
    np.save("one.npy", np.ones(7))
    with pytest.raises(SystemExit) as stopped:
        main(["check", *arguments])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_help_teaches_and_loads_nothing(folder):
    code = (
        "import sys\nfrom oracles.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(sorted({'numpy', 'hypothesis', 'rich'} & sys.modules.keys()))"
    )
    for command in ([], ["check"], ["verify"]):
        done = subprocess.run([sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True)
        assert done.returncode == 0
        assert done.stdout.endswith("[]\n")
        assert "exit status: 0" in done.stdout


def test_the_example_of_the_help_works(capsys, folder):
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    told = capsys.readouterr().out
    text = told.split("save this as silu.py\n")[1].split("and run  oracles ")
    (folder / "silu.py").write_text("\n".join(line[2:] for line in text[0].splitlines()))
    assert main(text[1].splitlines()[0].split()) == 0


def test_names_of_frameworks_are_those_of_the_registry():
    assert set(FRAMEWORK_NAMES) == set(FRAMEWORKS)
