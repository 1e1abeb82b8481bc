import io
import json
import re
import shlex
from pathlib import Path

import pytest
from subjects import REFERENCE, SILU, edited

from oracles.__main__ import main
from oracles.untrusted.sandbox import Protection, landlock_version
from oracles.untrusted.schema import SCHEMAS, require_valid
from oracles.untrusted.statuses import Status

DOCS = Path(__file__).parents[2] / "docs"
CASE = {"shapes": "z=2,3", "points": 1}
WRONG = edited("a + z * a", "a - z * a")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reference.py").write_text(REFERENCE)
    (tmp_path / "right.py").write_text(SILU)
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "cases.json").write_text(json.dumps({"cases": [CASE]}))
    return tmp_path


@pytest.mark.parametrize(("file", "status", "exit_status"), [("right", "PASSED", 0), ("wrong", "WRONG_NUMERICS", 1)])
def test_one_subject(folder, capsys, file, status, exit_status):
    arguments = ["--reference", "torch:reference.py:silu", "--cases", "cases.json", "--json", "out.json"]
    assert main(["judge", "--subject", f"{file}.py:forward,backward", "--seed", "3", *arguments]) == exit_status
    document = json.loads((folder / "out.json").read_text())
    require_valid(document, "judgement", "")
    assert (document["status"], document["seed"]) == (status, 3)
    assert bool(document["diagnosis"]) == (status != "PASSED")
    assert status in capsys.readouterr().out


def job(number, source, **options):
    return {
        "id": number, "subject": "forward,backward", "source": source, "reference": "torch:reference.py:silu",
        "cases": [CASE], **options,
    }  # fmt: skip


def lines(jobs):
    return "".join(json.dumps(each) + "\n" for each in jobs)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_batch(folder, capsys, processes):
    jobs = [
        job("a", SILU),
        job("b", WRONG),
        job("c", SILU, forbid=["torch"]),
        job("d", SILU, reference="torch:no.py:f"),
    ]
    (folder / "jobs.jsonl").write_text(lines(jobs))
    arguments = ["judge", "--batch", "jobs.jsonl", "--json", "out.jsonl", "--jobs", str(processes)]
    assert main(arguments) == 2
    judgements = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    for each in judgements:
        require_valid(each, "judgement", "")
    expected = {"a": "PASSED", "b": "WRONG_NUMERICS", "c": "PASSED", "d": "NOT_JUDGED"}
    assert {each["id"]: each["status"] for each in judgements} == expected
    assert "PASSED 2" in capsys.readouterr().out


def test_a_batch_is_resumed(folder):
    (folder / "jobs.jsonl").write_text(lines([job(1, SILU), job(2, WRONG)]))
    arguments = ["judge", "--batch", "jobs.jsonl", "--json", "out.jsonl", "--jobs", "1"]
    assert main(arguments) == 1
    first = (folder / "out.jsonl").read_text().splitlines()
    (folder / "out.jsonl").write_text(first[0] + "\n" + first[1][:40])  # as an interrupt leaves it
    assert main([*arguments, "--resume"]) == 1
    again = (folder / "out.jsonl").read_text().splitlines()
    assert again[0] == first[0]
    assert [json.loads(line)["id"] for line in again] == [1, 2]


def test_jobs_from_the_standard_input(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(lines([job(1, SILU), job(2, WRONG)])))
    assert main(["judge", "--batch", "-"]) == 1
    statuses = [json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()]
    assert statuses == ["PASSED", "WRONG_NUMERICS"]


USAGE = {
    "no subject": ["--reference", "torch:torch.exp", "--cases", "cases.json"],
    "no such file": ["--subject", "no.py:f", "--reference", "torch:torch.exp", "--cases", "cases.json"],
    "no such cases": ["--subject", "right.py:forward,backward", "--reference", "torch:torch.exp", "--cases", "no.json"],
    "no file for a batch": ["--batch", "jobs.jsonl"],
    "a line that is no job": ["--batch", "bad.jsonl", "--json", "out.jsonl"],
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_is_status_2(folder, name):
    (folder / "jobs.jsonl").write_text(lines([job(1, SILU)]))
    (folder / "bad.jsonl").write_text(lines([job(1, SILU), {"id": 2}]))
    with pytest.raises(SystemExit) as leaving:
        main(["judge", *USAGE[name]])
    assert leaving.value.code == 2
    assert not (folder / "out.jsonl").exists()


def test_the_schemas_are_printed(capsys):
    assert main(["judge", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == {name: SCHEMAS[name] for name in ("job", "judgement")}


def documented(marker):
    page = (DOCS / "reference" / "json.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)` \|", page.split(f"<!-- {marker} -->\n")[1].split("\n\n")[0], re.MULTILINE)


def test_json_has_the_keys_that_are_documented(folder):
    arguments = ["--reference", "reference.py:silu", "--cases", "cases.json", "--json", "out.json"]
    assert main(["judge", "--subject", "right.py:forward,backward", *arguments]) == 0
    document = json.loads((folder / "out.json").read_text())
    assert list(document) == documented("judgement") == SCHEMAS["judgement"]["required"]
    assert list(document["points"][0]) == documented("judged-point")


@pytest.mark.skipif(not landlock_version(), reason="the page shows the protections of Linux")
def test_the_page_shows_what_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "verify_your_own" / "untrusted.md").read_text(encoding="utf-8")
    for name, text in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (command,) = re.findall(r"<!-- judge -->\n```bash\noracles (.*?)\n```", page)
    assert main(shlex.split(command)) == 1
    (shown,) = re.findall(r"<!-- judge-output -->\n```text\n(.*?)```", page, re.DOTALL)
    printed = capsys.readouterr().out
    assert [re.sub(r"-?\d[\d.e+-]*", "#", line) for line in printed.splitlines()] == [
        re.sub(r"-?\d[\d.e+-]*", "#", line) for line in shown.splitlines()
    ]


def test_every_status_is_described():
    page = (DOCS / "verify_your_own" / "untrusted.md").read_text(encoding="utf-8")
    section = page.split("## Statuses")[1].split("## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [str(status) for status in Status]
    needs = page.split("## What it needs")[1]
    assert re.findall(r"^\| `(\w+)` \|", needs, re.MULTILINE) == [str(each) for each in Protection]
