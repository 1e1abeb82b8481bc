"""Simulate the leasing of a campaign with many workers, and measure what the stores bear on this machine.

    python benchmarks/campaign_leasing.py                              10,000 workers, 10,000,000 units
    python benchmarks/campaign_leasing.py --seconds 5 --redis          how many leases a second the stores really bear

The simulation: every worker leases a unit, renews its lease, and records the result. Durations of units are drawn from
a lognormal distribution, whose longest units take ten times as long as the typical one. Workers fail at random, are
started again, and their units are leased again when their leases end. Requests wait in one queue: a store does one
change at a time. The heartbeats and the record of a unit are charged together with its lease.
"""

import argparse
import heapq
import json
import multiprocessing
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be a benchmark

import numpy as np  # noqa: E402

from oracles.campaign.locations import open_store  # noqa: E402
from oracles.campaign.units import Plan, Searched  # noqa: E402

LEASE, HEARTBEATS = 60.0, 3  # those of a campaign
SPREAD = 0.8  # of the logarithm of a duration: 1 in 200 units takes ten times as long as the typical one
RESTART = 30.0  # seconds until a worker that has failed is there again
RECORD_BYTES, LEASE_BYTES, BEAT_BYTES = 1600, 300, 150


def simulate(workers, units, mean, service, failures_per_hour, rng):
    """Simulate a campaign in time steps of a unit; return what the store had to bear.

    Args:
        workers, units: how many there are.
        mean: the mean duration of a unit in seconds.
        service: seconds that the store needs for one request.
        failures_per_hour: of one worker.
        rng: the random generator.
    """
    drawn = iter(_durations(mean, rng))
    queue = [(rng.random() * mean, worker) for worker in range(workers)]  # (when it asks for a unit, worker)
    heapq.heapify(queue)
    ended, ready = [], 0.0  # leases that end without a result; when the store is free
    started = recorded = twice = 0
    waits, busy, worst, beats = 0.0, 0.0, 0.0, 0
    failing = failures_per_hour / 3600
    now = 0.0
    while recorded < units:
        now, worker = heapq.heappop(queue)
        free = max(ready, now)
        waits, worst = waits + free - now, max(worst, free - now)
        if ended and ended[0] <= free:
            heapq.heappop(ended)
            twice += 1
        elif started < units:
            started += 1
        else:  # nothing is left but units in work
            ready = free + service
            busy += service
            if len(queue) < len(ended) or not ended:
                continue
            heapq.heappush(queue, (max(ended[0], now + 1.0), worker))
            continue
        seconds = next(drawn)
        kept = int(seconds / (LEASE / HEARTBEATS))
        fails = rng.random() < failing * seconds if failing else False
        share = rng.random() if fails else 1.0
        kept = int(kept * share)
        requests = 1 + kept + (not fails)
        beats += kept
        ready = free + service * requests  # the later requests are charged at once: the queue is one
        busy += service * requests
        end = free + service + seconds * share
        if fails:
            heapq.heappush(ended, end + LEASE)
            heapq.heappush(queue, (end + RESTART, worker))
        else:
            recorded += 1
            heapq.heappush(queue, (end + service, worker))
    requests = units + started + twice + beats
    return {
        "mean_s": mean, "hours": now / 3600, "requests_per_s": requests / now, "use": busy / now, "again": twice,
        "MB_per_s": (units * RECORD_BYTES + (started + twice) * LEASE_BYTES + beats * BEAT_BYTES) / now / 1e6,
        "GB": units * RECORD_BYTES / 1e9, "wait_ms": 1000 * waits / (started + twice), "worst_s": worst,
        "efficiency": units * mean / (now * workers),
    }  # fmt: skip


def _durations(mean, rng):
    """Yield durations without an end."""
    while True:
        yield from rng.lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD, 1 << 16).tolist()


PLAN = Plan("0" * 32, tuple(Searched(f"Layer{i}", "cotangents_agree", "float64") for i in range(900)))


def hammer(location, seconds, number, pipe):
    """Lease, renew and record units for so long; send how many, and the latencies of the requests."""
    store = open_store(location)
    result = {"code": PLAN.code, "rows": ["x" * (RECORD_BYTES - 60)]}
    units, latencies = 0, []
    until = time.perf_counter() + seconds

    def timed(call, *args, **named):
        began = time.perf_counter()
        value = call(*args, **named)
        latencies.append(time.perf_counter() - began)
        return value

    while time.perf_counter() < until:
        lease = timed(store.lease, PLAN, f"w{number}", LEASE)
        timed(store.heartbeat, lease, LEASE)
        units += timed(store.record, lease, PLAN.unit(lease.number).key, result, None)
    pipe.send((units, np.percentile(latencies, [50, 99]).tolist()))


def measure(location, seconds, processes):
    """Return units, requests a second, and the median and 99th percentile of the latency, in ms."""
    store = open_store(location)
    store.open_plan(PLAN, {"versions": {}, "files": []})
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(processes)]
    running = [
        context.Process(target=hammer, args=(location, seconds, i, theirs)) for i, (_, theirs) in enumerate(pairs)
    ]
    for process in running:
        process.start()
    results = [ours.recv() for ours, _ in pairs]
    for process in running:
        process.join()
    units = sum(each[0] for each in results)
    medians, high = (1000 * float(np.mean([each[1][i] for each in results])) for i in (0, 1))
    counted = sum(1 for _ in store.records(PLAN.code))
    assert counted == units, (counted, units)  # none lost, none twice
    store.close()
    return {"processes": processes, "units_per_s": units / seconds, "requests_per_s": 3 * units / seconds,
            "median_ms": medians, "p99_ms": high}  # fmt: skip


def measure_redis(seconds, processes):
    """Measure a Redis server of its own, which writes each change to disk once a second."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        command = ["redis-server", "--port", str(port), "--dir", folder, "--save", "", "--appendonly", "yes"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            time.sleep(1.0)
            return measure(f"redis://127.0.0.1:{port}/0", seconds, processes)
        finally:
            server.terminate()
            server.wait()


def print_rows(rows):
    for i, row in enumerate(rows):
        words = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()]
        widths = [max(len(name), 9) for name in row]
        if i == 0:
            print("  ".join(name.rjust(width) for name, width in zip(row, widths, strict=True)))
        print("  ".join(word.rjust(width) for word, width in zip(words, widths, strict=True)), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--units", type=int, default=10_000_000)
    parser.add_argument("--mean", type=float, nargs="*", default=[10.0, 60.0], help="mean seconds of a unit")
    parser.add_argument("--service", type=float, default=2.2e-4, help="seconds of the store for one request")
    parser.add_argument("--failures", type=float, default=0.1, help="failures of one worker an hour")
    parser.add_argument("--seconds", type=float, help="measure the stores for so long instead")
    parser.add_argument("--redis", action="store_true", help="measure Redis too")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if args.seconds:
        rows = []
        for processes in (1, 2, 8):
            with tempfile.TemporaryDirectory() as folder:
                rows.append({"store": "sqlite", **measure(folder, args.seconds, processes)})
            if args.redis and shutil.which("redis-server"):
                rows.append({"store": "redis", **measure_redis(args.seconds, processes)})
    else:
        rng = np.random.default_rng(0)
        rows = [simulate(args.workers, args.units, m, args.service, args.failures, rng) for m in args.mean]
    print_rows(rows)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
