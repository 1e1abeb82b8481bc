"""The pages on hand-written code: the stated numbers of lines, and the table of adapters."""

import re
from pathlib import Path

import pytest

import oracles

DOCS = Path(__file__).parent.parent.parent / "docs" / "verify_your_own"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
COUNTED = [
    pytest.param(int(stated), code, id=f"{page}-{i}")
    for page, text in PAGES.items()
    for i, (stated, code) in enumerate(re.findall(r"# to judge it: (\d+) lines\n(.*?)```", text, re.DOTALL))
]


@pytest.mark.parametrize(("stated", "code"), COUNTED)
def test_lines_are_as_many_as_stated_and_few(stated, code):
    lines = [line for line in code.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) == stated <= 8
    assert any("oracles.check(" in line for line in lines)
    assert not any(";" in line for line in lines)


def test_every_form_is_counted():
    adapters = ("manual", "stateful", "scalar_graph", "torch_function", "jax_function")
    counted = " ".join(param.values[1] for param in COUNTED)
    assert all(f"oracles.{adapter}(" in counted for adapter in adapters)


def test_the_table_names_every_adapter():
    table = PAGES["index"].split("<!-- adapters -->\n", 1)[1].split("\n\n", 1)[0]
    named = set(re.findall(r"oracles\.(\w+)\(", table))
    assert all(callable(getattr(oracles, name)) for name in named)
    modules = oracles._MODULES.items()
    adapters = {name for name, module in modules if module.startswith("adapters.") and "manual_" not in name}
    assert named >= adapters - {"isolated", "Crashed"}
