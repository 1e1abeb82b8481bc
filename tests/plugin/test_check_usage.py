"""Wrong usage of ``oracles check`` names the option, what was given and the fix; the help has a working example."""

import subprocess
import sys

import numpy as np
import pytest
from projects import SILU

from oracles.__main__ import main

RIGHT, AT = "silu.py:forward,backward", ("--shapes", "z=4,3")

pytestmark = pytest.mark.usefixtures("folder")


# The parts that an error message must contain: the option, what was given, what exists instead.
WRONG_USAGE = [
    (["silu.py", *AT], ["TARGET", "'silu.py'", "defines forward, backward"]),
    (["silo.py:forward,backward", *AT], ["silo.py", "silu.py"]),
    (["nowhere:forward", *AT], ["'nowhere'"]),
    (["failing.py:forward", *AT], ["failing.py", "ZeroDivisionError"]),
    (["silu.py:forward,bakward", *AT], ["silu.py", "'bakward'", "did you mean backward?"]),
    (["silu.py:forward,", "--shapes", "z=2"], ["forward, is ("]),
    (["silu.py:forward", *AT], ["forward(z)"]),
    (["silu.py:1 +", *AT], ["'1 +'"]),
    (["silu.py:[f for f in (forward, backward)]", *AT], ["[f for f in (forward, backward)]", "Fix:", "silu.py"]),
    (["manual_bp:Linear(3)", *AT], ["Linear(3) in manual_bp: TypeError: "]),
    (["manual_bp:Linear", *AT], ["Linear(n_in=..., n_out=..., bias=...)"]),
    ([RIGHT], ["--shapes", "--primals", "primals = {"]),
    ([RIGHT, *AT, "--against", "reference"], ["--against", "torch:REF", "jax:REF", "'reference'"]),
    ([RIGHT, *AT, "--against", "numpy:reference"], ["--against torch:reference"]),
    ([RIGHT, *AT, "--against", "torch:refrence"], ["--against torch:refrence", "did you mean reference?"]),
    ([RIGHT, *AT, "--against", "torch:not_callable"], ["f(**primals) -> y", "3 (int)"]),
    ([RIGHT, *AT, "--against", "torch:of_two"], ["of_two", "(y, x)", "Fix: "]),
    ([RIGHT, *AT, "--against", "torch:not_mine"], ["RuntimeError: not mine"]),
    ([RIGHT, "--shapes", "z:4,3"], ["--shapes", "'z:4,3'", "name=extents"]),
    ([RIGHT, "--shapes", "z=4,3:int"], ["--shapes", "'z=4,3:int'"]),
    ([RIGHT, "--shapes", "z=4:complex"], ["--shapes", "'z=4:complex'"]),
    ([RIGHT, "--shapes", "z=4:int<0"], ["--shapes", "'z=4:int<0'"]),
    ([RIGHT, "--shapes", "z=4 z=3"], ["--shapes", "'z'"]),
    ([RIGHT, "--shapes", " "], ["--shapes", "' '"]),
    ([RIGHT, "--primals", "none.npz"], ["--primals", "none.npz"]),
    ([RIGHT, "--primals", "silu.py"], ["--primals", "silu.py"]),
    ([RIGHT, "--primals", "one.npy"], ["--primals", "np.savez("]),
    ([RIGHT, *AT, "--delta", "one.npy"], ["delta", "(4, 3)", "(7,)"]),
    ([RIGHT, *AT, "--precision", "int8"], ["precision", "int8"]),
    ([RIGHT, *AT, "--dtype", "int8"], ["--dtype", "float64, float32"]),
    ([RIGHT, *AT, "--examples", "0"], ["--examples", "at least 1", "'0'"]),
    ([RIGHT, *AT, "--script", "no/where.py"], ["--script", "no/where.py"]),
    ([RIGHT, *AT, "--json", "no/where.json"], ["--json", "no/where.json"]),
    (["manual_bp:Tanh", "--delta", "one.npy"], ["--delta", "Tanh"]),
    (["bad.py:forward,backward"], ["primals in bad.py", "[1, 2]", "(list)"]),
]


@pytest.mark.parametrize(("arguments", "parts"), WRONG_USAGE, ids=[" ".join(arguments) for arguments, _ in WRONG_USAGE])
def test_wrong_usage_exits_with_2_and_names_option_and_value(arguments, parts, capsys, folder):
    (folder / "failing.py").write_text("1 / 0\n")
    (folder / "bad.py").write_text(f"{SILU}\nprimals = [1, 2]\n")
    np.save("one.npy", np.ones(7))
    with pytest.raises(SystemExit) as stopped:
        main(["check", *arguments])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert [part for part in parts if part not in message] == []


def test_help_teaches_and_loads_nothing(folder):
    code = (
        "import sys\nfrom oracles.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(sorted({'numpy', 'hypothesis', 'rich'} & sys.modules.keys()))"
    )
    for command in ([], ["check"], ["verify"]):
        process = subprocess.run([sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True)
        assert process.returncode == 0
        assert process.stdout.endswith("[]\n")
        assert "exit status: 0" in process.stdout


def test_the_example_of_the_help_works(capsys, folder):
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    text = capsys.readouterr().out.split("save this as silu.py\n")[1].split("and run  oracles ")
    (folder / "silu.py").write_text("\n".join(line[2:] for line in text[0].splitlines()))
    assert main(text[1].splitlines()[0].split()) == 0


def test_control_c_ends_with_130(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["oracles.__main__"], "_run", interrupted)
    assert main(["check", RIGHT, *AT]) == 130
    assert capsys.readouterr().err == "interrupted\n"
