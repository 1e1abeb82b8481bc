"""Who keeps the workers of a campaign alive: this process, Ray, or Dask. The store alone shares out the work.

An engine starts so many workers, replaces those that end, and stops them. Each is an `oracles.campaign.worker.Worker`
with the same task, so engines and machines may be mixed on one store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from oracles.campaign.worker import Task, Worker, worker_name
from oracles.constants import CAMPAIGN_POLL_SECONDS
from oracles.lazy_modules import LazyModule

ray = LazyModule("ray")
distributed = LazyModule("distributed")

# Called now and then while the workers work; what it raises stops them.
Tick: TypeAlias = Callable[[], None]
# (task, workers or None for one on each core, address of the cluster or None for one here, tick) -> recorded units
Engine: TypeAlias = Callable[[Task, int | None, str | None, Tick], int]


def work(task: Task, number: int) -> int:
    """Be a worker, on whatever machine, and return how many units it has recorded."""
    return Worker(task, worker_name(number)).run()


def run_here(task: Task, workers: int | None, address: str | None, tick: Tick) -> int:
    """Run workers on this machine: threads, each with a process that judges.

    Raises:
        Exception: the first that a worker or ``tick`` raises, after all have given back their units.
    """
    stopped = threading.Event()
    with ThreadPoolExecutor(workers or 1) as pool:
        running = [Worker(task, worker_name(i), stopped.is_set) for i in range(workers or 1)]
        futures = [pool.submit(worker.run) for worker in running]
        try:
            while not all(future.done() for future in futures):
                for future in futures:
                    if future.done():
                        future.result()
                tick()
                time.sleep(CAMPAIGN_POLL_SECONDS)
        finally:
            stopped.set()
    return sum(future.result() for future in futures)


def run_on_ray(task: Task, workers: int | None, address: str | None, tick: Tick) -> int:
    """Run workers as tasks of Ray, which starts those anew whose process or machine is lost.

    Raises:
        Exception: what a worker raises, or ``tick``.
    """
    ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
    try:
        count = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        remote = ray.remote(num_cpus=1, max_retries=-1)(work)
        pending = [remote.remote(task, i) for i in range(count)]
        units = 0
        while pending:
            done, pending = ray.wait(pending, timeout=CAMPAIGN_POLL_SECONDS)
            units += sum(ray.get(done))
            tick()
        return units
    finally:
        ray.shutdown()  # it ends the tasks that are left; their leases end


def run_on_dask(task: Task, workers: int | None, address: str | None, tick: Tick) -> int:
    """Run workers as tasks of Dask, which starts those anew whose process or machine is lost.

    Raises:
        Exception: what a worker raises, or ``tick``.
    """
    here: dict[str, Any] = {} if address else {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.Client(address, **here) as client:
        count = workers or max(sum(client.nthreads().values()), 1)

        def start(i: int) -> Any:
            return client.submit(work, task, i, pure=False)

        pending = {i: start(i) for i in range(count)}
        units = 0
        while pending:
            tick()
            time.sleep(CAMPAIGN_POLL_SECONDS)
            for i, future in list(pending.items()):
                if future.status == "error" and isinstance(future.exception(), distributed.KilledWorker):
                    pending[i] = start(i)  # Dask gives a task up whose process was killed a few times
                elif future.done():
                    units += pending.pop(i).result()
        return units


ENGINES: dict[str, Engine] = {"local": run_here, "ray": run_on_ray, "dask": run_on_dask}
