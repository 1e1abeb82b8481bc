import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
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


INVALID = [
    job("a", SILU, cases=[{**CASE, "declared": {"no_such": 1}}]),
    job("b", SILU, cases=[{**CASE, "precision": "float99"}]),
    job("c", SILU, cases=[{**CASE, "declared": {"scale": "much"}}]),
    job("d", SILU, reference="torch:exits.py:f"),
    job("e", SILU, reference="torch:raises.py:f"),
    job("f", SILU, cases="no.json"),
    job("g", SILU, forbid=["no.such.package"]),
]


@pytest.mark.parametrize("processes", [1, 2])
def test_whatever_a_job_raises_is_its_judgement_and_the_others_are_judged(folder, processes):
    (folder / "exits.py").write_text("raise SystemExit(0)\n")
    (folder / "raises.py").write_text("raise KeyError('no')\n")
    (folder / "jobs.jsonl").write_text(lines([*INVALID, job("right", SILU)]))
    assert main(["judge", "--batch", "jobs.jsonl", "--json", "out.jsonl", "--jobs", str(processes)]) == 2
    judgements = {each["id"]: each for each in map(json.loads, (folder / "out.jsonl").read_text().splitlines())}
    assert [*judgements] == [each["id"] for each in INVALID] + ["right"] or processes > 1
    statuses = {name: each["status"] for name, each in judgements.items()}
    assert statuses == {**{each["id"]: "NOT_JUDGED" for each in INVALID}, "right": "PASSED"}
    assert "no_such" in judgements["a"]["reason"]
    assert "float99" in judgements["b"]["reason"]
    assert all(each["reason"] for each in judgements.values())


BAD_LINES = ["{", "12", '{"id": 1}', "[" * 100_000, "\udcff"]


def test_a_line_of_the_standard_input_that_is_no_job_is_not_judged_and_the_others_are(folder, capsys, monkeypatch):
    text = lines([job("a", SILU)]) + "\n" + "".join(f"{line}\n" for line in BAD_LINES) + lines([job("b", WRONG)])
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert main(["judge", "--batch", "-"]) == 2
    judgements = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for each in judgements:
        require_valid(each, "judgement", "")
    numbers = list(range(3, 3 + len(BAD_LINES)))
    assert [each["id"] for each in judgements] == ["a", *numbers, "b"]
    expected = ["PASSED", *["NOT_JUDGED"] * len(numbers), "WRONG_NUMERICS"]
    assert [each["status"] for each in judgements] == expected
    assert all(f"line {number}" in each["reason"] for number, each in zip(numbers, judgements[1:-1], strict=True))


def test_two_jobs_of_one_id_are_refused(folder, capsys):
    without = {name: value for name, value in job(0, SILU).items() if name != "id"}
    (folder / "jobs.jsonl").write_text(lines([job(2, SILU), without]))
    with pytest.raises(SystemExit) as leaving:
        main(["judge", "--batch", "jobs.jsonl", "--json", "out.jsonl"])
    assert leaving.value.code == 2
    assert "lines 1 and 2 have the same id, 2" in capsys.readouterr().err


CHANGES = {
    "nothing": (lambda folder: None, []),
    "the subject": (lambda folder: (folder / "own.py").write_text(WRONG), ["file"]),
    "the reference": (lambda folder: (folder / "reference.py").write_text(REFERENCE + "\n"), ["file", "text", "named"]),
    "the cases": (lambda folder: (folder / "cases.json").write_text(json.dumps({"cases": [CASE, CASE]})), ["named"]),
    "the primals": (lambda folder: np.savez(folder / "primals.npz", z=np.full((2, 3), 0.25)), ["primals"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_job_that_has_changed_is_judged_again(folder, name):
    change, again = CHANGES[name]
    (folder / "own.py").write_text(SILU)
    np.savez(folder / "primals.npz", z=np.full((2, 3), 0.5))
    of_file = {key: value for key, value in job("file", "").items() if key != "source"}
    jobs = [
        {**of_file, "subject": "own.py:forward,backward"},
        job("text", SILU),
        job("named", SILU, cases="cases.json"),
        job("primals", SILU, reference="torch:torch.nn.functional.silu", cases=[{"primals": "primals.npz"}]),
    ]
    (folder / "jobs.jsonl").write_text(lines(jobs))
    arguments = ["judge", "--batch", "jobs.jsonl", "--json", "out.jsonl", "--jobs", "1"]
    assert main(arguments) == 0
    first = {json.loads(line)["id"]: line for line in (folder / "out.jsonl").read_text().splitlines()}
    change(folder)
    assert main([*arguments, "--resume"]) == int(name == "the subject")
    second = {json.loads(line)["id"]: line for line in (folder / "out.jsonl").read_text().splitlines()}
    assert second.keys() == first.keys()
    assert [each for each in first if first[each] != second[each]] == again
    (folder / "jobs.jsonl").write_text(lines([job("text", WRONG)]))
    assert main([*arguments, "--resume"]) == 1  # of this job alone; the judgements of the others stay
    assert len((folder / "out.jsonl").read_text().splitlines()) == len(jobs)


@pytest.mark.parametrize("line", ["12", "{}", '{"id": 1, "status": "PASSED"}', "text"])
def test_a_file_that_has_no_judgements_is_refused(folder, capsys, line):
    (folder / "jobs.jsonl").write_text(lines([job(1, SILU)]))
    (folder / "out.jsonl").write_text(f"{line}\n")
    with pytest.raises(SystemExit) as leaving:
        main(["judge", "--batch", "jobs.jsonl", "--json", "out.jsonl", "--resume"])
    assert leaving.value.code == 2
    assert "out.jsonl, line 1: no judgement" in capsys.readouterr().err
    assert (folder / "out.jsonl").read_text() == f"{line}\n"


@pytest.mark.parametrize("name", ["jobs.jsonl", "./jobs.jsonl", "linked.jsonl", "reference.py", "cases.json"])
def test_no_input_is_overwritten(folder, capsys, name):
    (folder / "jobs.jsonl").write_text(lines([job(1, SILU), job(2, SILU, cases="cases.json")]))
    (folder / "linked.jsonl").hardlink_to(folder / "jobs.jsonl")
    before = (folder / name).read_text()
    with pytest.raises(SystemExit) as leaving:
        main(["judge", "--batch", "jobs.jsonl", "--json", name])
    assert leaving.value.code == 2
    assert "would overwrite" in capsys.readouterr().err
    assert (folder / name).read_text() == before


@pytest.mark.skipif(not landlock_version(), reason="needs Landlock")
def test_no_subject_reads_the_jobs_and_the_judgements(folder):
    reads = edited("import numpy as np", "import numpy as np\nopen({name!r}).read()")
    names = ["jobs.jsonl", "out.jsonl"]
    jobs = [job(name, reads.replace("{name!r}", repr(str(folder / name)))) for name in names]
    (folder / "jobs.jsonl").write_text(lines([job("first", SILU), *jobs]))
    assert main(["judge", "--batch", "jobs.jsonl", "--json", "out.jsonl", "--jobs", "1"]) == 1
    judgements = {each["id"]: each for each in map(json.loads, (folder / "out.jsonl").read_text().splitlines())}
    assert [judgements[name]["status"] for name in ("first", *names)] == ["PASSED", "RUNTIME_ERROR", "RUNTIME_ERROR"]
    assert all("Permission" in judgements[name]["reason"] for name in names)


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
