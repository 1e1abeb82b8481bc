"""docs/verify_your_own/your_own_layer.md: its files are saved, its commands are run, and they print what it shows."""

import re
import shlex

import pytest
from projects import ROOT

from oracles import options, pytest_items

PAGE = (ROOT / "docs" / "verify_your_own" / "your_own_layer.md").read_text(encoding="utf-8")
FILES = re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"<!-- run -->\n```bash\n(.*?)\n```(?:\n\nprints[\w ]*\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)
STATUS = {"check": 1, "verify": 0, "pytest": 0}


def _shape_of(text):
    """The text with its numbers left out, and its spaces, which depend on them."""
    return re.sub(r" +", " ", re.sub(r"-?\d[\d.]*(e[+-]?\d+)?|[-−]inf", "#", text)).strip()


def test_there_are_files_and_commands():
    assert [name for name, _ in FILES] == ["silu.py", "my_layers.py"]
    assert len(COMMANDS) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("command", "printed"), COMMANDS, ids=lambda text: " ".join(text.split()[:2]))
def test_command_prints_what_is_shown(command, printed, project):
    for name, text in FILES:
        project.write(name, text)
    program, *arguments = shlex.split(command)
    process = {"oracles": project.oracles, "pytest": project.pytest}[program](*arguments)
    assert process.returncode == STATUS[arguments[0] if program == "oracles" else program], (
        process.stdout + process.stderr
    )
    assert _shape_of(printed) in _shape_of(process.stdout)
    assert "--script" not in arguments or (project.folder / arguments[arguments.index("--script") + 1]).exists()


def test_profiles_and_properties_are_those_of_the_code():
    assert ", ".join(f"{name} {points}" for name, points in options.PROFILES.items()) in PAGE
    named = set(re.findall(r"`oracles\.(\w+)`", PAGE.split("carries the properties")[1]))
    assert {*pytest_items.NAMES} - {"note"} == named
