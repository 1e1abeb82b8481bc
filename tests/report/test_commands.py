"""The options --html and --compare of both commands: the page has the results of the JSON."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = str(ROOT / "docs" / "reference" / "report_page.py")
PAIR = """
def forward(z):
    return z * z, z

def backward(cache, delta):
    return {"z": delta * cache}
"""


def run(folder, *arguments):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "oracles", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder, env=env)


def cells(text):
    return re.findall(r'<td class="cell [^"]*" data-kind="([\w-]+)"', text.split('<h2 id="refusals-title"')[0])


@pytest.mark.slow
def test_a_run_writes_its_page_and_compares_it(tmp_path):
    options = ("verify", "--cases", LAYERS, "--against", "torch", "--max-examples", "8")
    first = run(tmp_path, *options, "Gate", "--json", "a.json")
    assert first.returncode == 0, first.stdout + first.stderr
    options += ("Gate", "MeanGate", "--json", "b.json")
    second = run(tmp_path, *options, "--html", "page.html", "--compare", "a.json")
    assert second.returncode == 1, second.stdout + second.stderr
    document, text = json.loads((tmp_path / "b.json").read_text()), (tmp_path / "page.html").read_text()
    assert document["layers"] == {"Gate": "agrees", "MeanGate": "wrong"}
    failure = next(f for f in document["failures"] if f["property"] == "cotangents_agree")
    assert failure["report"]["entries"]["quantity"] == "g"
    assert "Run it: python THIS_FILE" in failure["report"]["script"]
    refused = {(row["property"], row["dtype"]) for row in document["results"] if row["verdict"] == "wrong"}
    assert cells(text).count("wrong") == len(refused) > 0
    assert "Verdicts: 1 new, the others as before." in text
    assert document["summary"] in text
    points = [len(row["points"]["ratio"]) + row["vacuous"] for row in document["results"]]
    assert points == [row["examples"] for row in document["results"]]
    assert {*os.listdir(tmp_path)} - {".hypothesis"} == {"a.json", "b.json", "page.html"}


def test_the_picture_is_small():
    picture = ROOT / "docs" / "reference" / "report_page.png"
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size < 300_000


@pytest.mark.slow
def test_a_check_writes_its_page(tmp_path):
    (tmp_path / "square.py").write_text(PAIR)
    process = run(
        tmp_path, "check", "square.py:forward,backward", "--shapes", "z=3,4", "--json", "a.json", "--html", "page.html"
    )
    assert process.returncode == 1, process.stdout + process.stderr
    document, text = json.loads((tmp_path / "a.json").read_text()), (tmp_path / "page.html").read_text()
    (result,) = document["results"]
    assert (result["verdict"], result["entries"]["grid"]) == ("wrong", [3, 4])
    assert {*cells(text)} >= {"wrong", "agrees"}
    assert text.count('<rect class="h ') == 3 * 12
    script = tmp_path / "script.py"
    script.write_text(result["script"])
    shown = subprocess.run([sys.executable, str(script)], capture_output=True, encoding="utf-8")
    assert shown.returncode == 1
    assert "12 of 12 entries differ" in shown.stdout
