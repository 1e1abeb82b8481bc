"""Workers that judge, killed processes and workers, a full disk, other code: nothing is lost or counted twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from campaigns import CASES, PROPERTIES, ROOT, Campaign, RedisServer, require_redis, wait_for

from oracles.campaign import worker as worker_module
from oracles.campaign.engines import run_here
from oracles.campaign.locations import open_store
from oracles.campaign.page import campaign_page
from oracles.campaign.sqlite_store import SqliteStore
from oracles.campaign.store import StoreFull
from oracles.campaign.summary import summary
from oracles.campaign.worker import OtherCode, Worker
from oracles.cli.campaign_command import status_of
from oracles.cli.campaign_report import status_lines
from oracles.constants import CAMPAIGN_ATTEMPTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("forget_cases"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals"),
]


def test_a_worker_does_every_unit_and_the_same_seed_gives_the_same_result(tmp_path):
    campaigns = [Campaign(tmp_path, ["Right"], store=name) for name in ("one", "two")]
    one, two = campaigns
    assert Worker(one.task(), "w").run() == one.plan.units == 8
    assert run_here(two.task(), 2, None, lambda: None) == 8
    assert one.records.keys() == one.expected
    results = [
        {key: (each["points"], each["rows"], each["coverage"]) for key, each in campaign.records.items()}
        for campaign in campaigns
    ]
    assert results[0] == results[1]
    searched = [each for each in one.records.values() if each["kind"] == "search"]
    assert {each["points"] for each in searched} == {8}  # two seeds of four points
    assert Worker(one.task(), "again").run() == 0


def test_a_process_killed_in_mid_unit_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PAUSE", "0.02")
    campaign = Campaign(tmp_path, ["Right"])
    worker = Worker(campaign.task(), "w")
    killed = []

    def kill():
        wait_for(lambda: any(each["kind"] == "search" for each in campaign.records.values()))
        wait_for(lambda: campaign.store.leased(campaign.plan.code))
        killed.append(worker.process.pid)
        os.kill(worker.process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    units = worker.run()
    thread.join()
    assert killed
    assert units == len(campaign.records) == campaign.plan.units
    assert campaign.records.keys() == campaign.expected
    assert summary(campaign.store)["leased_again"] == 1


WORKER = """
import json, sys
from oracles.campaign.units import Leasing, Plan
from oracles.campaign.worker import Task, Worker
store, plan, name = sys.argv[1:]
Worker(Task(store, Plan.from_json(json.loads(plan)), 1e12, None, Leasing(1.0)), name).run()
"""


def test_a_worker_killed_in_mid_unit_is_replaced_by_another(tmp_path, monkeypatch):
    monkeypatch.setenv("PAUSE", "0.02")
    campaign = Campaign(tmp_path, ["Right"])
    plan = json.dumps(campaign.plan.to_json())
    first, second = (
        subprocess.Popen([sys.executable, "-c", WORKER, campaign.location, plan, name]) for name in ("first", "second")
    )
    wait_for(lambda: any(each["worker"] == "first" for each in campaign.store.leased(campaign.plan.code)))
    first.kill()
    first.wait()
    assert second.wait(timeout=100) == 0
    assert campaign.records.keys() == campaign.expected
    assert summary(campaign.store)["leased_again"] == 1
    assert campaign.store.outstanding(campaign.plan) == 0


def test_a_unit_that_kills_every_process_is_not_judged_and_the_others_are(tmp_path):
    campaign = Campaign(tmp_path, ["Deadly", "Right"], properties=PROPERTIES[1:2], rounds=1)
    assert Worker(campaign.task(), "w").run() == campaign.plan.units == 4
    verdicts = {(each["layer"], each["kind"]): each["verdict"] for each in campaign.records.values()}
    assert verdicts == {
        ("Deadly", "replay"): "",
        ("Right", "replay"): "",
        ("Deadly", "search"): "not judged",
        ("Right", "search"): "",
    }
    (failure,) = summary(campaign.store)["failures"]
    assert (failure["subject"], failure["verdict"]) == ("Deadly", "not judged")
    assert "SIGSEGV" in failure["text"]
    assert summary(campaign.store)["given_up"] == []  # one unit


@pytest.mark.parametrize("layer", ["Undrawable", "Deadly"])
def test_a_search_that_judges_nothing_is_given_up_and_the_status_says_why(tmp_path, layer):
    campaign = Campaign(tmp_path, [layer, "Right"], properties=PROPERTIES[1:], rounds=6)
    assert Worker(campaign.task(), "w").run() == 2 + CAMPAIGN_ATTEMPTS + 6
    assert campaign.store.outstanding(campaign.plan) == 0
    document = summary(campaign.store)
    (line,) = document["given_up"]
    assert line.startswith(f"{layer}, {PROPERTIES[1]}, float64: nothing was judged in {CAMPAIGN_ATTEMPTS} units: ")
    assert {"Undrawable": "no case can be drawn", "Deadly": "SIGSEGV"}[layer] in line
    assert f"  given up: {line}" in list(status_lines(document))
    assert status_of(document) == 1


def test_a_campaign_of_which_every_search_judges_nothing_ends(tmp_path):
    campaign = Campaign(tmp_path, ["Undrawable"], rounds=None)
    began = time.monotonic()
    units = Worker(campaign.task(seconds=1000.0), "w").run()
    assert units == len(PROPERTIES) * (1 + CAMPAIGN_ATTEMPTS)
    assert time.monotonic() - began < 500
    assert len(summary(campaign.store)["given_up"]) == len(PROPERTIES)
    pytest.importorskip("jinja2")
    assert "given up: Undrawable" in campaign_page(summary(campaign.store))


LONE_WORKER = """
import json, sys, threading, time
from oracles.campaign.units import Plan
from oracles.campaign.worker import Task, Worker
store, plan = sys.argv[1:]
worker = Worker(Task(store, Plan.from_json(json.loads(plan)), 1e12), "w")
threading.Thread(target=worker.run).start()
while worker.process.pid is None:
    time.sleep(0.02)
print(worker.process.pid, flush=True)
"""


def is_there(pid):
    """Whether a process is there, and has not ended without anybody who asks for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the states of processes in /proc")
@pytest.mark.parametrize("where", ["sqlite", "redis"])
def test_a_process_that_judges_ends_with_its_worker(tmp_path, monkeypatch, where):
    """In mid-unit, and where its examples are in a server that is gone too."""
    monkeypatch.setenv("PAUSE", "100")
    campaign, server = Campaign(tmp_path, ["Right"], properties=PROPERTIES[1:]), None
    location = campaign.location
    if where == "redis":
        require_redis()
        (tmp_path / "redis").mkdir()
        server = RedisServer(tmp_path / "redis").start()
        location = server.url
    store = open_store(location)
    store.open_plan(campaign.plan, campaign.about)
    plan = json.dumps(campaign.plan.to_json())
    worker = subprocess.Popen([sys.executable, "-c", LONE_WORKER, location, plan], stdout=subprocess.PIPE, text=True)
    pid = int(worker.stdout.readline())
    # The unit that searches, which is in work for long.
    wait_for(lambda: list(store.records(campaign.plan.code)) and store.leased(campaign.plan.code))
    assert is_there(pid)
    if server is not None:
        server.kill()
    worker.kill()
    worker.communicate()
    wait_for(lambda: not is_there(pid), seconds=20)


def test_a_full_disk_stops_the_workers_and_loses_nothing(tmp_path, monkeypatch):
    campaign = Campaign(tmp_path, ["Right"], properties=PROPERTIES[1:], rounds=60)
    monkeypatch.setattr(worker_module, "open_store", lambda location, **_: SqliteStore(Path(location), pages=17))
    with pytest.raises(StoreFull, match="no space is left"):
        run_here(campaign.task(), 2, None, lambda: None)
    recorded = set(campaign.records)
    assert 2 < len(recorded) < campaign.plan.units
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with campaign.store._transaction() as connection:  # the leases of workers that could not even give back end
        connection.execute("update leases set expires = 0")
    assert Worker(campaign.task(), "w").run() == campaign.plan.units - len(recorded)
    assert campaign.records.keys() == campaign.expected


def test_a_real_disk_that_is_full_stops_a_worker_and_loses_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        campaign = Campaign(tmp_path, ["Right"], properties=PROPERTIES[1:], store="disk", rounds=40)
        filler = disk / "filler"
        filler.write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - 40_000))
        with pytest.raises(StoreFull, match="no space is left"):
            Worker(campaign.task(lease=0.5), "w").run()
        recorded = set(campaign.records)
        assert recorded
        filler.unlink()
        time.sleep(0.6)  # the lease ends
        assert Worker(campaign.task(), "w").run() == campaign.plan.units - len(recorded)
        assert campaign.records.keys() == campaign.expected
        campaign.store.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_other_code_is_not_mixed_in(tmp_path):
    campaign = Campaign(tmp_path, ["Right"])
    campaign.file.write_text(CASES + "\n# changed\n")
    with pytest.raises(OtherCode, match="not those of the campaign"):
        Worker(campaign.task(), "w").run()
    assert campaign.records == {}
    assert campaign.store.outstanding(campaign.plan) == 0


def test_a_failure_is_shrunk_once_and_replayed_elsewhere_without_a_search(tmp_path):
    found = Campaign(tmp_path, ["Wrong"], properties=PROPERTIES[:1], store="found", rounds=2)
    Worker(found.task(), "w").run()
    (failure,) = summary(found.store)["failures"]
    assert (failure["verdict"], failure["units"], failure["size"]) == ("wrong", 2, 2)  # two rows of one entry
    assert "exception" not in failure["text"]
    assert failure["text"].splitlines()[-1].startswith("  reproduce: the script of this failure")
    assert [len(each["seeds"]) - each["seeds_done"] for each in found.records.values() if each["failure"]] == [1, 1]
    script = tmp_path / "script.py"
    script.write_text(failure["script"])
    shown = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path)
    print(shown)
    shared = {path: path.stat().st_mtime_ns for path in (tmp_path / "found" / "examples").rglob("*")}
    assert shared
    replayed = Campaign(tmp_path, ["Wrong"], properties=PROPERTIES[:1], store="replayed", rounds=0)
    assert Worker(replayed.task(examples_from=found.location), "w").run() == 1
    (again,) = summary(replayed.store)["failures"]
    assert again["failure"] == failure["failure"]
    assert again["seed"] is None
    assert {path: path.stat().st_mtime_ns for path in shared} == shared
