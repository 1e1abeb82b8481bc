"""Measure how much faster a campaign is with two workers than with one, and what its own bookkeeping costs.

    python benchmarks/campaign.py [--layers Linear Tanh Softmax LayerNorm] [--rounds 2] [--repeat 1]

Both runs do the same units. The wall-clock time counts from the first unit to the last, without the start of the
processes. On a machine that does other work too, the processor time says more: `cpu_s` is that of all processes of the
run, and what a second worker adds to it, by the memory that both share, is what two cores of a quiet machine lose.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be a benchmark

from oracles.campaign.engines import run_here  # noqa: E402
from oracles.campaign.identity import identity  # noqa: E402
from oracles.campaign.locations import open_store  # noqa: E402
from oracles.campaign.summary import summary  # noqa: E402
from oracles.campaign.units import Plan, Searched  # noqa: E402
from oracles.campaign.worker import Task  # noqa: E402
from oracles.properties import properties_of  # noqa: E402
from oracles.registry import entries  # noqa: E402


def cpu_seconds():
    """The processor time of this process and of those that it has started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def run(layers, rounds, block, workers):
    """Do all units of these layers with so many workers, and return what it took."""
    selected = entries(layers)
    about = identity(selected, ())
    searches = tuple(Searched(entry.name, name, "float64") for entry in selected for name in properties_of(entry))
    plan = Plan(about["code"], searches, against=("torch",), climb=30, block=block, rounds=rounds)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        store.open_plan(plan, about)
        before, began = cpu_seconds(), time.time()
        run_here(Task(folder, plan, time.time() + 3600), workers, None, lambda: None)
        cpu, whole = cpu_seconds() - before, time.time() - began
        records = list(store.records(plan.code))
        document = summary(store)
        store.close()
    assert len(records) == plan.units
    judged = sum(each["seconds"] for each in records)
    return {
        "workers": workers,
        "units": len(records),
        "points": document["points"],
        "seconds": document["seconds"],
        "with_start": whole,
        "points_per_s": document["points"] / document["seconds"],
        "cpu_s": cpu,
        "cpu_ms_per_point": 1000 * cpu / document["points"],
        "bookkeeping": 1 - judged / (document["seconds"] * workers),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", default=["Linear", "Tanh", "Softmax", "LayerNorm"])
    parser.add_argument("--rounds", type=int, default=2, help="units of each search")
    parser.add_argument("--block", type=int, default=2, help="seeds of a unit")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    rows = []
    for _ in range(args.repeat):
        for workers in (1, 2):
            row = run(args.layers, args.rounds, args.block, workers)
            rows.append({**row, "load": os.getloadavg()[0]})
            if len(rows) == 1:
                print("  ".join(name.rjust(max(len(name), 8)) for name in rows[0]))
            cells = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in rows[-1].values())
            print("  ".join(cell.rjust(max(len(name), 8)) for cell, name in zip(cells, rows[-1], strict=True)))
    one, two = (min((row for row in rows if row["workers"] == n), key=lambda row: row["seconds"]) for n in (1, 2))
    print(f"two workers: {two['points_per_s'] / one['points_per_s']:.2f} times the points a second of one; "
          f"processor time {two['cpu_s'] / one['cpu_s']:.2f} times")  # fmt: skip
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
