"""Work in several processes: every result arrives, the end of a process is reported, an interrupt loses nothing."""

import os
import signal
import time

import pytest

from oracles.cli.workers import available_cores, run_in_workers


def squares(task, send):
    for k in range(task):
        send((task, k * k))


def ends_at_three(task, send):
    send(task)
    if task == 3:
        os._exit(7)
    if task == 4:
        os.kill(os.getpid(), signal.SIGKILL)


def waits(task, send):
    try:
        send(("begun", task))
        time.sleep(60)
    except KeyboardInterrupt:
        send(("interrupted", task))
        raise


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_every_result_arrives_once(jobs):
    received = []
    run_in_workers([3, 1, 0, 4], squares, jobs, received.append, lambda task, how: pytest.fail(how))
    assert sorted(received) == sorted((task, k * k) for task in (3, 1, 0, 4) for k in range(task))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
def test_a_process_that_ends_loses_its_own_task_alone():
    received, lost = [], []
    run_in_workers([1, 3, 2, 4, 5], ends_at_three, 2, received.append, lambda task, how: lost.append((task, how)))
    assert sorted(received) == [1, 2, 3, 4, 5]
    assert sorted(lost) == [(3, "exit status 7"), (4, "killed by SIGKILL")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
def test_an_interrupt_keeps_what_was_found():
    received = []

    def receive(result):
        received.append(result)
        if len(received) == 2:
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_in_workers(["a", "b", "c"], waits, 2, receive, lambda task, how: None)
    assert time.monotonic() - began < 30
    assert sorted(received) == [("begun", "a"), ("begun", "b"), ("interrupted", "a"), ("interrupted", "b")]


def test_there_is_a_core():
    assert 1 <= available_cores() <= 8
