"""Ray and Dask with two workers on this machine: a killed worker is replaced, and every unit is recorded once."""

import importlib.util
import os
import signal
import threading

import pytest
from campaigns import Campaign, wait_for

from oracles.campaign.engines import ENGINES
from oracles.campaign.summary import summary

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("forget_cases"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals"),
]
# The first takes a few seconds more; where both are installed, both are tried.
INSTALLED = [
    pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"needs {module}"))
    for name, module in (("dask", "distributed"), ("ray", "ray"))
]


@pytest.mark.parametrize("engine", INSTALLED)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_killed_worker_of_an_engine_loses_nothing(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("PAUSE", "0.02")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    campaign = Campaign(tmp_path, ["Right"], rounds=4)
    code, killed = campaign.plan.code, []

    def kill():
        wait_for(lambda: len({each["worker"] for each in campaign.store.leased(code)}) == 2)
        worker = campaign.store.leased(code)[0]["worker"]
        killed.append(worker)
        os.kill(int(worker.split(":")[1]), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    ENGINES[engine](campaign.task(lease=2.0), 2, None, lambda: None)
    thread.join()
    assert campaign.records.keys() == campaign.expected
    assert campaign.store.outstanding(campaign.plan) == 0
    document = summary(campaign.store)
    assert document["leased_again"] >= 1
    assert len({each["worker"] for each in document["workers"] if each["units"]} - set(killed)) >= 2
