"""``oracles check`` used wrongly says what came, what was expected, and the fix; its help teaches."""

import subprocess
import sys

import numpy as np
import pytest
from projects import SILU

from oracles.__main__ import main

RIGHT, AT = "silu.py:forward,backward", ("--shapes", "z=4,3")

pytestmark = pytest.mark.usefixtures("folder")


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
        (["silu.py:[f for f in (forward, backward)]", *AT], "Fix:    define it in silu.py, and give its name"),
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
        ([RIGHT, *AT, "--against", "torch:of_two"], "of_two takes (y, x), but the primals are z.\nFix: "),
        ([RIGHT, *AT, "--against", "torch:not_mine"], "the reference raised RuntimeError: not mine\n"),
        ([RIGHT, "--shapes", "z:4,3"], "--shapes: cannot read 'z:4,3': expected \"name=extents\""),
        ([RIGHT, "--shapes", "z=4,3:int"], "--shapes: cannot read 'z=4,3:int'"),
        ([RIGHT, "--shapes", "z=4:complex"], "--shapes: cannot read 'z=4:complex'"),
        ([RIGHT, "--shapes", "z=4:int<0"], "there is no integer from 0 below 0"),
        ([RIGHT, "--shapes", "z=4 z=3"], "'z' is named twice"),
        ([RIGHT, "--shapes", " "], "--shapes: nothing in ' '"),
        ([RIGHT, "--primals", "none.npz"], "--primals: no file none.npz"),
        ([RIGHT, "--primals", "silu.py"], "--primals: silu.py is no file of arrays"),
        ([RIGHT, "--primals", "one.npy"], "holds one array without a name.\nFix:    np.savez("),
        ([RIGHT, *AT, "--delta", "one.npy"], "delta: expected shape (4, 3) like the output, got (7,)"),
        ([RIGHT, *AT, "--precision", "int8"], "precision: expected one of "),
        ([RIGHT, *AT, "--dtype", "int8"], "--dtype: expected some of float64, float32"),
        ([RIGHT, *AT, "--examples", "0"], "expected a whole number of at least 1, got '0'"),
        ([RIGHT, *AT, "--script", "no/where.py"], "--script: the folder of no/where.py does not exist"),
        ([RIGHT, *AT, "--json", "no/where.json"], "--json: the folder of no/where.json does not exist"),
        (["manual_bp:Tanh", "--delta", "one.npy"], "--delta: the points of Tanh are drawn from its cases"),
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


def test_control_c_is_told_and_ends_with_130(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["oracles.__main__"], "_run", interrupted)
    assert main(["check", RIGHT, *AT]) == 130
    assert capsys.readouterr().err == "interrupted\n"
