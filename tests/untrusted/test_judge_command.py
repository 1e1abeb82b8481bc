import io
import json

import pytest
from subjects import REFERENCE, SILU, edited

from oracles.__main__ import main
from oracles.untrusted.schema import SCHEMAS, require_valid

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
