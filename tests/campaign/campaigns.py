"""Plans, stores and records for the tests of campaigns."""

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from oracles import registry
from oracles.campaign.identity import identity
from oracles.campaign.locations import open_store
from oracles.campaign.units import Leasing, Plan, Searched
from oracles.campaign.worker import Task

ROOT = Path(__file__).parents[2]

PLAN = Plan(
    "a" * 32,
    tuple(Searched("Linear", name, "float64") for name in ("primal_agrees", "cotangents_agree", "chain_rule")),
    block=2,
    rounds=4,
)
ABOUT = {"versions": {"numpy": "2"}, "files": []}

# A right layer and a wrong one without references, so that nothing loads a framework.
CASES = """
import ctypes, os, time
import numpy as np
import oracles
from oracles.strategies import real


class Right: pass
class Wrong: pass
class Deadly: pass
class Undrawable: pass


def forward(z):
    return z * z, z


def case(draw, backward, forward=forward):
    n = draw(oracles.strategies.widths(4))
    return oracles.Case(oracles.manual(forward, backward), {"z": real(2, n)}, batched=("z",))


def slowly(cache, delta):
    time.sleep(float(os.environ.get("PAUSE", "0")))
    return {"z": 2 * cache * delta}


@oracles.oracle_for(Right)
def right(draw):
    return case(draw, slowly)


@oracles.oracle_for(Wrong)
def wrong(draw):
    return case(draw, lambda cache, delta: {"z": 3 * cache * delta})


@oracles.oracle_for(Undrawable)
def undrawable(draw):
    raise LookupError("no case can be drawn")


def dies(cache, delta):
    ctypes.string_at(0)


@oracles.oracle_for(Deadly)
def deadly(draw):
    return case(draw, dies)
"""


def record(plan, number, *, worker="w", points=10, failure=None, started=1000.0, seconds=2.0, **changes):
    """The record of a unit in which nothing is refused, unless a failure is named."""
    unit = plan.unit(number)
    searched = unit.searched
    row = {"oracle": "torch", "verdict": "agrees", "examples": points, "worst_ratio": 0.5, "worst_seed": 3}
    return {
        "code": plan.code, "kind": unit.kind, "layer": searched.layer, "property": searched.property,
        "dtype": searched.dtype, "order": 1, "seeds": list(unit.seeds), "seeds_done": len(unit.seeds), "points": points,
        "rows": [{**row, "vacuous": 0, "detects_above": 1e-15}], "headline": "", "verdict": "wrong" if failure else "",
        "skipped": {}, "out_of_time": 0, "coverage": None, "failure": failure, "seconds": seconds, "key": unit.key,
        "worker": worker, "attempts": 0, "started": started, "finished": started + seconds, **changes,
    }  # fmt: skip


def example(failure, size, **changes):
    """An example of a failure."""
    return {
        "failure": failure, "subject": "Linear", "verdict": "wrong", "diagnosis": "a factor", "primal": "W",
        "property": "cotangents_agree", "dtype": "float64", "seed": 3, "size": size, "text": f"report of {size}",
        "script": "print()", **changes,
    }  # fmt: skip


def finish(store, plan, lease, **changes):
    """Record the unit of a lease, and return whether it is counted."""
    return store.record(lease, plan.unit(lease.number).key, record(plan, lease.number, **changes), None)


def numbers(store, plan, count, worker="w", seconds=60.0):
    """The numbers of the next leases."""
    leases = [store.lease(plan, worker, seconds) for _ in range(count)]
    return [lease and lease.number for lease in leases]


def with_rounds(rounds):
    return replace(PLAN, rounds=rounds)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


class RedisServer:
    """A Redis server of its own, which can be killed and started again with what it has on disk."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self, *options):
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        raise RuntimeError("redis-server does not answer")

    def kill(self):
        self.process.kill()
        self.process.wait()


def require_redis():
    """Skip where there is no Redis; on the machine of CI that is a failure."""
    if os.environ.get("ORACLES_REQUIRE_REDIS"):
        return
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")


PROPERTIES = ("adjoint_of_own_primal", "same_every_time")


class Campaign:
    """A plan on the layers of a file, and a store."""

    def __init__(self, folder, layers, *, properties=PROPERTIES, store="store", **changes):
        self.file = folder / "own_cases.py"
        self.file.write_text(CASES)
        sys.modules.pop("own_cases", None)
        self.about = identity(registry.entries_of(str(self.file)), [str(self.file)])
        searches = tuple(Searched(layer, name, "float64") for layer in layers for name in properties)
        settings = {"points": 4, "climb": 4, "block": 2, "rounds": 3, **changes}
        self.plan = Plan(self.about["code"], searches, (str(self.file),), against=("torch",), **settings)
        self.location = str(folder / store)
        self.store = open_store(self.location)
        self.store.open_plan(self.plan, self.about)

    def task(self, *, plan=None, lease=60.0, examples_from=None, seconds=100.0):
        plan = plan or self.plan
        return Task(self.location, plan, time.time() + seconds, examples_from, Leasing(lease))

    @property
    def records(self):
        return {each["key"]: each for each in self.store.records(self.plan.code)}

    @property
    def expected(self):
        return {self.plan.unit(number).key for number in range(self.plan.units)}


def wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
