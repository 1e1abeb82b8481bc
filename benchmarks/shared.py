"""Shared parts of the benchmarks: options, preparation of a process, and timing."""

from __future__ import annotations

import argparse
import math
import random
import signal
from collections.abc import Callable
from typing import Any, TypeAlias

from oracles.options import at_least

Call = Callable[[], Any]
Row: TypeAlias = dict[str, Any]  # a row of a table, as it goes into the JSON file
Foreign: TypeAlias = Any  # a value of torch or JAX, whose types are not checked
whole_number, positive_count = at_least(0), at_least(1)


def prepare_process() -> None:
    """Prepare a worker process: it ignores Ctrl-C, which the parent handles, and torch runs on one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {text!r}")
    return value


def seconds(call: Call, times: int, clock: Callable[[], float]) -> float:
    call()  # refill the caches, which the previous call replaced
    start = clock()
    for _ in range(times):
        call()
    return (clock() - start) / times


def measure(calls: dict[str, Call], ours: str, rounds: int, clock: Callable[[], float]) -> list[dict[str, float]]:
    """Time all calls in random order in every round, each as often as `ours` runs in 10 ms."""
    for call in calls.values():
        seconds(call, 3, clock)
    times = max(1, int(0.01 / seconds(calls[ours], 9, clock)))
    order, results = list(calls), []
    for _ in range(rounds):
        random.shuffle(order)
        results.append({name: seconds(calls[name], times, clock) for name in order})
    return results
