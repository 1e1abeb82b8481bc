"""README says what is: its snippets run, what it shows is printed, what it names exists."""

import os
import re
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest

import manual_bp

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Each Python block, with the output that README says it prints.
SNIPPETS = re.findall(r"```python\n(.*?)```(?:\n\nprints\n\n```text\n(.*?)```)?", README, re.DOTALL)


def _after(marker):
    """The block or table after a marker."""
    return README.split(f"<!-- {marker} -->\n", 1)[1].split("\n\n", 1)[0]


def _shape_of(text):
    """The text with its numbers left out: they depend on the processor, in the last digit."""
    return re.sub(r"-?\d[\d.]*(e[+-]?\d+)?", "#", text.strip())


@pytest.mark.slow
@pytest.mark.parametrize(("code", "printed"), SNIPPETS, ids=[f"snippet-{i}" for i in range(len(SNIPPETS))])
def test_snippet_runs(code, printed, tmp_path):
    script = tmp_path / ("test_snippet.py" if "def test_" in code else "snippet.py")
    script.write_text(code, encoding="utf-8")
    pytest_ = ["-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:xdist"] if "def test_" in code else []
    done = subprocess.run(
        [sys.executable, *pytest_, str(script)],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if printed:
        assert _shape_of(done.stdout) == _shape_of(printed)


def test_there_are_snippets():
    assert len(SNIPPETS) >= 4
    assert any(printed for _, printed in SNIPPETS)


def test_the_two_commands_are_marked():
    """.ci/run reads them from here."""
    assert re.fullmatch(r"```bash\n.*oracles verify\n```", _after("install"))
    assert re.fullmatch(r"```bash\n.*pytest.*\n```", _after("test"))


def test_map_names_what_exists():
    paths = [line.split()[0] for line in _after("map").splitlines() if not line.startswith("```")]
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_linked_files_exist():
    links = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_equation_has_its_function():
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in _after("equations").splitlines()[2:]]
    numbers = []
    for equation, _, implemented in rows:
        ends = [int(number) for number in re.findall(r"\((\d+)\)", equation)]
        numbers += range(ends[0], ends[-1] + 1) if ends else []
        names = [name for name in re.findall(r"`([^`]+)`", implemented) if "=" not in name]
        assert names
        for name in names:
            assert callable(attrgetter(name)(manual_bp))
    assert numbers == list(range(1, 26))
