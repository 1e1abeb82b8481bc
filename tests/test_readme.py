"""README and docs say what is: their snippets run, what they show is printed, what they name exists."""

import os
import re
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import pytest

import manual_bp
from oracles import constants
from oracles.decision.decisions import DECISIONS
from oracles.diagnosis.diagnose import PATTERNS
from oracles.verdict import Verdict

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
METHOD = {page.stem: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "how_it_works").glob("*.md"))}
ARCHITECTURE, VERDICTS = METHOD["architecture"], METHOD["verdicts"]
LEARN = {page.stem: page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "learn").glob("*.md"))}
DERIVATION = (ROOT / "docs" / "derivation.md").read_text(encoding="utf-8")
DOCS = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "node_modules" not in page.parts]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
# The Python blocks of each page, with the output that it says they print.
SNIPPETS = {  # the gallery is compared as a whole
    page.relative_to(ROOT).with_suffix("").as_posix(): re.findall(
        r"```python\n(.*?)```(?:\n\nprints\n\n```text\n(.*?)```)?", page.read_text(encoding="utf-8"), re.DOTALL
    )
    for page in PAGES
    if page.parent.name != "gallery"
}
# A page's scripts run in one process, which loads torch and JAX once, each in a namespace of its own.
EACH = """
import runpy, sys
for script in sys.argv[1:]:
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as status:
        assert not status.code, (script, status.code)
    print("end of", script, flush=True)
"""


def _after(marker, page=README):
    """The block or table after a marker, a block to its end."""
    text = page.split(f"<!-- {marker} -->\n", 1)[1]
    return re.match(r"```.*?\n```|.*?(?=\n\n|\n\Z)", text, re.DOTALL)[0]


def _run(*command, **options):
    """The output of a Python command."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    process = subprocess.run([sys.executable, *command], capture_output=True, encoding="utf-8", env=env, **options)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def _shape_of(text):
    """The text with its numbers left out: they depend on the processor, in the last digit."""
    return re.sub(r"-?\d[\d.]*(e[+-]?\d+)?", "#", text.strip())


def _require_printed(result, printed):
    if printed:
        assert _shape_of(result) == _shape_of(printed)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, snippets in SNIPPETS.items() if snippets])
def test_snippets_run(page, tmp_path):
    scripts = {}
    for i, (code, printed) in enumerate(SNIPPETS[page]):
        script = tmp_path / f"{'test_' if 'def test_' in code else ''}snippet_{i}.py"
        script.write_text(code, encoding="utf-8")
        if "def test_" in code:
            _require_printed(
                _run("-m", "pytest", "-q", *("-p", "no:randomly", "-p", "no:xdist"), str(script), cwd=tmp_path), printed
            )
        else:
            scripts[str(script)] = printed
    rest = _run("-c", EACH, *scripts, cwd=tmp_path)
    for script, printed in scripts.items():
        result, rest = rest.split(f"end of {script}\n", 1)
        _require_printed(result, printed)


def test_page_has_snippets():
    actual = [printed for snippets in SNIPPETS.values() for _, printed in snippets]
    assert len(actual) >= 6
    assert any(actual)


def _rows_of(table):
    """Header, (layer, oracles, dtypes) of each row, legend and outcome: what does not depend on the search."""
    rows, legend, last = table.split("\n\n")
    labels = re.findall(r"^(.*?float\d\d) ", rows, re.MULTILINE)
    header = [line.split() for line in rows.splitlines()[:2]]
    return header, [line.split() for line in labels], legend.split(), last.split(": ")[1]


@pytest.mark.slow
def test_table_is_what_verify_prints(tmp_path):
    shown = _after("verify-output").removeprefix("```text\n").removesuffix("\n```")
    command = re.search(r"`\.venv/bin/oracles (verify [\w -]+)` prints", README)[1].split()
    result = _run("-m", "oracles", *command, cwd=tmp_path).strip()
    assert _rows_of(result) == _rows_of(shown)
    assert all(_rows_of(shown))


@pytest.mark.slow
def test_conventions_are_what_the_command_prints(tmp_path):
    shown = _after("conventions", VERDICTS).removeprefix("```text\n").removesuffix("\n```")
    assert _run("-m", "oracles", "conventions", cwd=tmp_path).strip() == shown


def test_every_pattern_is_explained():
    cells = [row.split("|")[1] for row in _after("patterns", METHOD["diagnosis"]).splitlines()[2:]]
    ids = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert len(ids) == len(set(ids))
    assert set(ids) == {name for name, _ in PATTERNS}


def test_every_verdict_is_explained():
    named = [row.split("`")[1] for row in _after("verdicts", VERDICTS).splitlines()[2:]]
    assert named == [str(verdict) for verdict in Verdict]


def test_every_decision_is_explained_in_its_order():
    names = [row.split("`")[1] for row in _after("decisions", VERDICTS).splitlines()[2:]]
    assert names == ["type_errors", *(decision.__name__ for decision in DECISIONS)]


def test_constants_are_those_of_the_code():
    code = {name: value for name, value in vars(constants).items() if name.isupper()}
    table = {}
    for marker in ("constants", "search-constants", "diagnosis-constants"):
        for row in _after(marker, METHOD["constants"]).splitlines()[2:]:
            names, values = row.split("|")[1:3]
            numbers = [eval(value.replace("^", "**"), {}) for value in values.split(";")]
            constant_names = re.findall(r"`(\w+)`", names)
            assert not table.keys() & {*constant_names}
            table |= zip(constant_names, numbers, strict=True)
    assert table == code
    in_text = re.findall(r"`([A-Z_]+)` = ([\d.]+)(?=\D)", "\n".join(METHOD.values()))
    assert len(in_text) >= 6
    assert {name: float(value) for name, value in in_text} == {name: code[name] for name, _ in in_text}


def test_the_two_commands_are_marked():
    """.ci/run reads them from here."""
    assert re.fullmatch(r"```bash\n.*oracles verify\n```", _after("install"))
    assert re.fullmatch(r"```bash\n.*pytest.*\n```", _after("test"))


def test_map_names_what_exists():
    paths, folder = [], ""
    for line in _after("map", ARCHITECTURE).splitlines():
        if not line.startswith("```"):
            folder = folder if line.startswith("  ") else line.split()[0]
            paths.append(folder + line.split()[0] if line.startswith("  ") else folder)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_linked_files_exist():
    for page in PAGES:
        # "../../actions/" are pages that GitHub has of the repository itself.
        links = re.findall(r"\]\((?!http|\.\./\.\./actions/)([^)]+)\)", page.read_text(encoding="utf-8"))
        files = [link.partition("#")[0] for link in links]
        assert [file for file in files if file and not (page.parent / file).exists()] == []


def _numbers(cell):
    """The equation numbers of "(7)–(8)": 7 and 8."""
    ends = [int(number) for number in re.findall(r"\((\d+)\)", cell)]
    return range(ends[0], ends[-1] + 1) if ends else range(0)


def test_every_equation_has_its_function():
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in _after("equations", DERIVATION).splitlines()[2:]]
    for _, _, implemented in rows:
        names = [name for name in re.findall(r"`([^`]+)`", implemented) if "=" not in name]
        assert names
        for name in names:
            assert callable(attrgetter(name)(manual_bp))
    numbers = [number for equation, _, _ in rows for number in _numbers(equation)]
    assert numbers == list(range(1, 103))


@pytest.mark.parametrize("chapter", ["backpropagation", "backpropagation.zh"])
def test_every_equation_is_derived(chapter):
    """Each number stands in one formula of the chapter, or at the end of a line in one formula block, once."""
    text = DERIVATION.split("<!-- equations -->")[0]
    blocks = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    numbers = [int(number) for block in blocks for number in re.findall(r"  \((\d+)\)$", block, re.MULTILINE)]
    numbers += [int(number) for number in re.findall(r"\\tag\{(\d+)\}", LEARN[chapter])]
    assert sorted(numbers) == list(range(1, 103))
