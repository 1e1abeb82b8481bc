"""The project's own files agree with one another: lower bounds, workflows, changelog."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from oracles.cli.parser import make_parsers

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def _constraints(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _lower_bounds(extras):
    """Map each dependency in these extras to its lower bound."""
    optional = PROJECT["optional-dependencies"]
    listed = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    requirements = [Requirement(line) for line in listed]
    return {
        r.name: Version(s.version)
        for r in requirements
        if r.name != PROJECT["name"]
        for s in r.specifier
        if s.operator == ">="
    }


def _pinned(requirements):
    """Map each name to the version that this Python would get."""
    chosen = [r for r in requirements if r.marker is None or r.marker.evaluate({"python_version": "3.11"})]
    return {r.name: Version(next(iter(r.specifier)).version) for r in chosen}


def test_lowest_versions_are_the_lower_bounds():
    lowest = _pinned(_constraints("constraints-lowest.txt"))
    bounds = _lower_bounds(["torch", "jax", "exact", "oracles", "report", "test"])
    assert {name: lowest.get(name) for name in bounds} == bounds


def test_pinned_versions_are_not_below_the_lower_bounds():
    pinned, bounds = _pinned(_constraints("constraints.txt")), _lower_bounds(PROJECT["optional-dependencies"])
    assert [name for name, bound in bounds.items() if pinned.get(name, bound) < bound] == []


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_major_version(workflow):
    actions = re.findall(r"uses: (\S+)", workflow.read_text(encoding="utf-8"))
    assert actions
    assert [action for action in actions if not re.fullmatch(r"actions/[\w-]+@v\d+|\./", action)] == []


def test_the_action_passes_its_inputs_to_options_that_there_are():
    """A composite action; no input stands in a script, where a value of somebody else's would be run."""
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    assert "using: composite" in text
    inputs = re.findall(r"^  ([\w-]+):\n    description:", text.partition("outputs:")[0], re.MULTILINE)
    assert {name for name in inputs if f"${{{{ inputs.{name} }}}}" not in text} == set()
    scripts = re.findall(r"run: (?:\|\n)?((?:.+\n)+?)(?=    - |\Z)", text)
    assert len(scripts) == 2
    assert not any("${{" in script for script in scripts)
    help_text = make_parsers()[1].choices["verify"].format_help()
    assert [option for option in re.findall(r"--[a-z-]+", scripts[1]) if option not in help_text] == []
    used = (ROOT / ".github" / "workflows" / "action.yml").read_text(encoding="utf-8")
    given = re.findall(r"^          ([\w-]+): ", used.partition("uses: ./")[2].partition("- uses")[0], re.MULTILINE)
    assert given
    assert set(given) <= set(inputs)


def test_supported_pythons_are_tested():
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    for name in ("ci.yml", "versions.yml"):
        workflow = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
        assert re.findall(r'"(3\.\d+)"', re.search(r"python: \[(.*)\]", workflow)[1]) == supported


def test_changelog_has_this_version_below_unreleased():
    assert HEADINGS[0] == "[Unreleased]"
    versions = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d", heading)[1] for heading in HEADINGS[1:]]
    assert versions[0] == PROJECT["version"]
    assert versions == sorted(versions, key=Version, reverse=True)


def test_changelog_sections_are_of_known_kinds_in_order():
    for section in CHANGELOG.split("\n## ")[1:]:
        kinds = re.findall(r"^### (.*)$", section, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]
        for body in re.split(r"^### .*$", section, flags=re.MULTILINE)[1:]:
            lines = body.strip().splitlines()
            assert lines
            assert [line for line in lines if not line.startswith(("- ", "  "))] == []
