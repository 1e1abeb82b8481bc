"""Compare Ray and Dask as the engine of a campaign: start, cost of a task, and what a killed worker costs.

    python benchmarks/campaign_engines.py [--tasks 500]

An engine of a campaign only keeps workers alive, since the store shares out the work. So what counts is: how long it
takes to start, whether a worker whose process is killed is started again, and how soon.
"""

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

import psutil

WORKERS = 2


def nothing(i):
    """A task that does nothing."""
    return i


def hold(folder, i, seconds):
    """Be a worker: write down each start with the process's id, then work for so long."""
    (Path(folder) / f"{i}-{time.time()}-{os.getpid()}").touch()
    time.sleep(seconds)
    return os.getpid()


def starts(folder):
    """The starts so far: (worker, time, pid), the first one first."""
    rows = (path.name.split("-") for path in Path(folder).iterdir())
    return sorted(((int(i), float(at), int(pid)) for i, at, pid in rows), key=lambda row: row[1])


def kill_one(folder):
    """Kill the first worker's process when both work, and return how long its replacement takes; None after 60 s."""
    while len(starts(folder)) < WORKERS:
        time.sleep(0.02)
    worker, _, pid = starts(folder)[0]
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    while time.time() < killed + 60:
        again = [at for i, at, other in starts(folder) if i == worker and other != pid]
        if again:
            return again[0] - killed
        time.sleep(0.02)
    return None


def memory():
    """The memory of all processes that this one has started, in MB, and how many there are."""
    children = psutil.Process().children(recursive=True)
    total = 0
    for child in children:
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6, len(children)


def measured_by_ray(tasks, folder):
    """Measure Ray."""
    began = time.time()
    import ray

    imported = time.time()
    ray.init(num_cpus=WORKERS, log_to_driver=False)
    remote, holding = ray.remote(nothing), ray.remote(max_retries=-1)(hold)
    ray.get([remote.remote(i) for i in range(WORKERS)])
    started = time.time()
    ray.get([remote.remote(i) for i in range(tasks)])
    done = time.time()
    used = memory()
    pending = [holding.remote(folder, i, 20) for i in range(WORKERS)]
    again = kill_one(folder)
    results = len(ray.get(pending))
    ray.shutdown()
    return imported - began, started - imported, (done - started) / tasks, *used, again, results


def measured_by_dask(tasks, folder):
    """Measure Dask."""
    began = time.time()
    import distributed

    imported = time.time()
    client = distributed.Client(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
    client.gather(client.map(nothing, range(WORKERS), pure=False))
    started = time.time()
    client.gather(client.map(nothing, range(tasks), pure=False))
    done = time.time()
    used = memory()
    pending = [client.submit(hold, folder, i, 20, pure=False) for i in range(WORKERS)]
    again = kill_one(folder)
    results = len(client.gather(pending))
    client.close()
    return imported - began, started - imported, (done - started) / tasks, *used, again, results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=500)
    args = parser.parse_args()
    head = "engine  import, s  start, s  task, ms  memory, MB  processes  replaced after, s  results of 2"
    print(head)
    for name, measure in (("ray", measured_by_ray), ("dask", measured_by_dask)):
        with tempfile.TemporaryDirectory() as folder:
            imported, started, task, used, processes, again, results = measure(args.tasks, folder)
        after = "never" if again is None else f"{again:.2f}"
        row = (
            f"{imported:.2f}",
            f"{started:.2f}",
            f"{1000 * task:.2f}",
            f"{used:.0f}",
            str(processes),
            after,
            str(results),
        )
        widths = [len(word) for word in head.split("  ")[1:]]
        print(f"{name:<6}  " + "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    main()
