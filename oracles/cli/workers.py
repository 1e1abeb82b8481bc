"""Work through tasks in processes of their own, and receive each result as soon as it is there.

The processes are started anew and not forked: frameworks hold threads and locks that a copy could not use.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar

from oracles.forked import describe_ending

Task = TypeVar("Task")
Result = TypeVar("Result")

MOST_WORKERS = 8  # each holds the frameworks in memory
SECONDS_TO_BE_INTERRUPTED = 1.0  # a second interrupt would end a worker that passes on what it has
SECONDS_TO_END = 10.0


def available_cores(most: int = MOST_WORKERS) -> int:
    """Return the number of cores that this process may use, at most so many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, most)


@dataclass
class _Worker(Generic[Task]):
    process: SpawnProcess
    pipe: Connection
    task: Task


def run_in_workers(
    tasks: Sequence[Task],
    work: Callable[[Task, Callable[[Result], None]], None],
    jobs: int,
    receive: Callable[[Result], None],
    lost: Callable[[Task, str], None],
) -> None:
    """Do all tasks in up to ``jobs`` processes, each of which does one task after another.

    Args:
        tasks: what is to be done, in this order.
        work: does one task and passes on each result by its second argument; a function of a module.
        jobs: the number of processes.
        receive: takes each result.
        lost: takes a task whose process ended before it was done, and how it ended.

    Raises:
        KeyboardInterrupt: after the results that the interrupted processes still pass on.
    """
    waiting = deque(tasks)
    workers: dict[Connection, _Worker[Task]] = {}

    def start() -> None:
        if waiting:
            worker = _started(work, waiting.popleft())
            workers[worker.pipe] = worker

    def take(pipe: Connection) -> None:
        """Take one message of a worker, and give it the next task if it has done its own."""
        worker = workers[pipe]
        try:
            done, result = pipe.recv()
        except (EOFError, OSError):
            del workers[pipe]
            worker.process.join()
            lost(worker.task, describe_ending(worker.process.exitcode or 0))
            start()
            return
        if not done:
            receive(result)
        elif waiting:
            worker.task = waiting.popleft()
            pipe.send(worker.task)
        else:
            del workers[pipe]
            pipe.close()

    try:
        for _ in range(jobs):
            start()
        while workers:
            for pipe in wait(list(workers)):
                assert isinstance(pipe, Connection)
                take(pipe)
    except KeyboardInterrupt:
        _take_the_last(workers, receive)
        raise
    finally:
        for worker in workers.values():
            worker.process.terminate()


def _started(work: Callable[..., None], task: Task) -> _Worker[Task]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work))
    process.start()
    theirs.close()  # so that the end of the process ends the pipe
    ours.send(task)
    return _Worker(process, ours, task)


def _serve(pipe: Connection, work: Callable[..., None]) -> None:
    """Do the tasks that come through a pipe, until it is closed."""
    # A shell's background jobs ignore interrupts, and pass that on; the first process decides whom to interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while True:
            try:
                task = pipe.recv()
            except EOFError:
                return
            work(task, lambda result: pipe.send((False, result)))
            pipe.send((True, None))
    except KeyboardInterrupt:
        return  # what was found has been passed on


def _take_the_last(workers: dict[Connection, Any], receive: Callable[[Any], None]) -> None:
    """Take what interrupted workers still pass on; interrupt those that a terminal has not interrupted already."""
    open_pipes = _received(list(workers), receive, SECONDS_TO_BE_INTERRUPTED)
    for pipe in open_pipes:
        process = workers[pipe].process
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGINT)
    _received(open_pipes, receive, SECONDS_TO_END)


def _received(pipes: list[Connection], receive: Callable[[Any], None], seconds: float) -> list[Connection]:
    """Receive results for so long, and return the pipes that are still open."""
    until = time.monotonic() + seconds
    while pipes and time.monotonic() < until:
        for pipe in wait(pipes, timeout=max(0.0, until - time.monotonic())):
            assert isinstance(pipe, Connection)
            try:
                done, result = pipe.recv()
            except (EOFError, OSError):
                pipes.remove(pipe)
                continue
            if not done:
                receive(result)
    return pipes
