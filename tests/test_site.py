"""The documentation site: what its pages quote stands in the code, and what its scripts draw is what they show."""

import inspect
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import textwrap
from operator import attrgetter
from pathlib import Path

import pytest

import manual_bp
import oracles

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LEARN = {page.stem: page.read_text(encoding="utf-8") for page in sorted((DOCS / "learn").glob("*.md"))}
QUOTES = {
    page: re.findall(r"`manual_bp\.(\S+)`[^\n`]*\n\n```py\n(.*?)```", text, re.DOTALL) for page, text in LEARN.items()
}
FIGURES = sorted(path.stem for path in (DOCS / "figures").glob("*.py") if path.stem != "drawing")


def _stands_in(lines, source):
    """Whether the lines stand in the source in this order, one after the other if they are indented alike."""
    position = 0
    for line in lines:
        found = source.find(line.strip(), position)
        if found < 0:
            return False
        position = found + len(line.strip())
    return True


@pytest.mark.parametrize("page", QUOTES)
def test_quoted_lines_are_those_of_the_code(page):
    assert len(QUOTES[page]) >= 8
    assert LEARN[page].count("```py\n") == len(QUOTES[page])
    for name, quoted in QUOTES[page]:
        source = inspect.getsource(attrgetter(name)(manual_bp))
        assert _stands_in(textwrap.dedent(quoted).splitlines(), source), (name, quoted)


def test_both_languages_have_the_same_formulas_and_code():
    chapters = "backpropagation", "backpropagation.zh"
    english, chinese = (re.findall(r"```(math|py)\n(.*?)```", LEARN[chapter], re.DOTALL) for chapter in chapters)
    assert english == chinese


def _numbers(text):
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_what_its_script_draws(name, monkeypatch):
    """Up to a pixel: the numbers depend on the processor, in the last digit."""
    monkeypatch.syspath_prepend(str(DOCS / "figures"))
    drawn = runpy.run_path(str(DOCS / "figures" / f"{name}.py"))["figure"]()
    shown = (DOCS / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    assert re.sub(r"-?\d[\d.]*", "#", drawn) == re.sub(r"-?\d[\d.]*", "#", shown)
    assert max(abs(a - b) for a, b in zip(_numbers(drawn), _numbers(shown), strict=True)) <= 1
    assert any(f"`python docs/figures/{name}.py`" in text for text in LEARN.values())


@pytest.mark.parametrize("package", [manual_bp, oracles])
def test_reference_has_every_public_name(package):
    page = (DOCS / "reference" / f"{package.__name__}.md").read_text(encoding="utf-8")
    named = re.findall(rf"\.\. auto\w+:: {package.__name__}\.(\w+)", page)
    public = {*oracles._MODULES} if package is oracles else {name for name in vars(package) if name[0].isalpha()}
    public = {name for name in public if not inspect.ismodule(getattr(package, name))} - {"Array", "Cache", "Params"}
    assert len(named) == len(set(named))
    assert set(named) == public


def _documented(marker):
    page = (DOCS / "reference" / "json.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)` \|", page.split(f"<!-- {marker} -->\n")[1].split("\n\n")[0], re.MULTILINE)


@pytest.mark.slow
def test_json_has_the_keys_that_are_documented(tmp_path):
    code = "def forward(z):\n    return 2 * z, None\n\n\ndef backward(cache, delta):\n    return {'z': delta}\n"
    (tmp_path / "twice.py").write_text(code, encoding="utf-8")
    commands = {
        "check": ["check", "twice.py:forward,backward", "--shapes", "z=2", "--json", "check.json"],
        "verify": ["verify", "Identity", "--dtype", "float64", "--max-examples", "2", "--json", "verify.json"],
        "list": ["list", "--json"],
    }
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = {
        name: subprocess.run(
            [sys.executable, "-m", "oracles", *command], cwd=tmp_path, capture_output=True, encoding="utf-8", env=env
        )
        for name, command in commands.items()
    }
    check, verify = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("check", "verify"))
    test = "import numpy as np\n\n\ndef test_it():\n    assert np.allclo" + "se(np.ones(2), np.ones(2))\n"
    (tmp_path / "test_it.py").write_text(test, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--oracles-audit-json", "audit.json", "test_it.py"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, env=env, check=True)
    audit = json.loads((tmp_path / "audit.json").read_text())
    documents = {
        "check": check,
        "refusal": check["results"][0],
        "entries": check["results"][0]["entries"],
        "finding": check["results"][0]["findings"][0],
        "verify": verify,
        "result": verify["results"][0],
        "coverage": verify["coverage"]["Identity"],
        "list": json.loads(run["list"].stdout)[0],
        "audit": audit,
        "audit-line": audit["lines"][0],
    }
    assert {marker: list(document) for marker, document in documents.items()} == {
        marker: _documented(marker) for marker in documents
    }


def _without_numbers(text):
    """The text without its numbers, and without the line breaks that depend on their length."""
    return " ".join(re.sub(r"-?\d[\d.]*(e[+-]?\d+)?", "#", text).split())


@pytest.mark.slow
def test_gallery_is_what_its_script_writes():
    program = "import json, make; print(json.dumps(make.files()))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(DOCS / "gallery"), str(ROOT)])}
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", env=env)
    assert process.returncode == 0, process.stderr
    written = json.loads(process.stdout)
    gallery = DOCS / "gallery"
    shown = {*gallery.glob("*.md"), *gallery.glob("pictures/*.svg")}
    assert {gallery / name for name in written} == shown
    assert len([name for name in written if name.endswith(".svg")]) >= 20
    for name, text in written.items():
        assert _without_numbers((gallery / name).read_text(encoding="utf-8")) == _without_numbers(text), name


@pytest.mark.deep
def test_tables_of_wrong_and_right_gradients_are_what_the_command_prints():
    page = (DOCS / "compare" / "index.md").read_text(encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "benchmarks/wrong_gradients.py"], capture_output=True, encoding="utf-8", cwd=ROOT
    )
    assert process.returncode == 0, process.stderr
    wrong, right = process.stdout.strip().split("\n\n")
    assert page.split("<!-- wrong-gradients -->\n")[1].split("\n\n")[0] == wrong
    assert page.split("<!-- right-gradients -->\n")[1].split("\n\n")[0] == right


@pytest.mark.slow
def test_a_new_layer_is_added_by_the_steps_that_are_described(tmp_path):
    page = (DOCS / "contribute" / "new_layer.md").read_text(encoding="utf-8")
    for folder in ("manual_bp", "oracles", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path)
    for kind, name, text in re.findall(r"<!-- (file|append): (\S+) -->\n```py\n(.*?)```", page, re.DOTALL):
        path = tmp_path / name
        assert path.exists() == (kind == "append")
        path.write_text((path.read_text(encoding="utf-8") if kind == "append" else "") + text, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    verify = ["-m", "oracles", "verify", "Softsign", "--max-examples", "5"]
    plant = ["-m", "pytest", "-q", "-p", "no:xdist", "tests/test_planted_bugs.py", "-k", "softsign"]
    assert "oracles verify Softsign\n" in page
    assert "pytest tests/test_planted_bugs.py -k softsign\n" in page
    for command in (verify, plant):
        run = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, encoding="utf-8", env=env)
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="b.html#here">x</a> <a href="#top">x</a> <a href="https://example.org">x</a>', None),
        ('<a href="c.html">x</a>', "a.html: c.html does not exist"),
        ('<a href="b.html#there">x</a>', "a.html: b.html#there has no such place"),
        ('<script src="https://example.org/x.js"></script>', "a.html: loads https://example.org/x.js"),
        ('<link rel="stylesheet" href="missing.css">', "a.html: missing.css does not exist"),
    ],
)
def test_links_that_lead_nowhere_are_found(body, problem, tmp_path):
    (tmp_path / "a.html").write_text(f'<p id="top">{body}</p>', encoding="utf-8")
    (tmp_path / "b.html").write_text('<p id="here"></p>', encoding="utf-8")
    found = runpy.run_path(str(DOCS / "check_links.py"))["problems"](tmp_path)
    assert found == ([problem] if problem else [])
