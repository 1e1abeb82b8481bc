"""Both stores: no unit is lost, none is with two live workers, and none is counted twice."""

import multiprocessing
import sqlite3
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest
from campaigns import ABOUT, PLAN, example, finish, numbers, record, with_rounds

from oracles.campaign.locations import open_store
from oracles.campaign.redis_store import PREFIX
from oracles.campaign.sqlite_store import FILE, SqliteStore
from oracles.campaign.store import StoreFailed, StoreFull
from oracles.campaign.summary import summary
from oracles.constants import CAMPAIGN_ATTEMPTS

SOON = 0.05


def test_every_unit_is_leased_once_and_then_none(store):
    assert numbers(store, PLAN, PLAN.units + 2) == [*range(PLAN.units), None, None]
    assert store.outstanding(PLAN) == PLAN.units


def test_a_lease_that_is_not_renewed_ends_and_the_unit_is_leased_again(store):
    first = store.lease(PLAN, "silent", SOON)
    time.sleep(2 * SOON)
    again = store.lease(PLAN, "other", 60)
    assert (again.number, again.attempts, again.reason) == (first.number, 1, "its worker was silent")
    assert again.token != first.token
    assert not store.heartbeat(first, 60)
    assert store.heartbeat(again, 60)
    assert store.lease(PLAN, "third", 60).number == 1


def test_a_lease_that_is_renewed_lasts(store):
    first = store.lease(PLAN, "slow", 0.5)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert store.heartbeat(first, 0.5)
        time.sleep(0.05)
    assert store.lease(PLAN, "other", 60).number == 1


def test_a_result_is_recorded_once(store):
    late = store.lease(PLAN, "late", SOON)
    time.sleep(2 * SOON)
    other = store.lease(PLAN, "other", 60)
    assert finish(store, PLAN, late, worker="late")
    assert not finish(store, PLAN, other, worker="other")
    assert [each["worker"] for each in store.records(PLAN.code)] == ["late"]
    assert store.outstanding(PLAN) == 0
    assert numbers(store, PLAN, PLAN.units) == [*range(1, PLAN.units), None]


def test_a_unit_that_is_given_back_is_leased_next(store):
    first, second = store.lease(PLAN, "a", 60), store.lease(PLAN, "b", 60)
    store.give_back(first, "killed by SIGKILL", counts=True)
    store.give_back(second, "stopped", counts=False)
    leases = sorted((store.lease(PLAN, "c", 60) for _ in range(3)), key=lambda lease: lease.number)
    assert [(each.number, each.attempts, each.reason) for each in leases] == [
        (0, 1, "killed by SIGKILL"),
        (1, 0, "stopped"),
        (2, 0, ""),
    ]


def test_who_lost_a_lease_cannot_give_the_unit_back(store):
    first = store.lease(PLAN, "silent", SOON)
    time.sleep(2 * SOON)
    second = store.lease(PLAN, "other", 60)
    store.give_back(first, "late", counts=True)
    store.skip(first)
    assert store.heartbeat(second, 60)


def test_a_unit_that_ends_its_workers_is_lost_in_the_end(store):
    for attempt in range(CAMPAIGN_ATTEMPTS):
        lease = store.lease(PLAN, "w", 60)
        assert (lease.number, lease.attempts, lease.is_lost) == (0, attempt, False)
        store.give_back(lease, "killed by SIGSEGV", counts=True)
    assert store.lease(PLAN, "w", 60).is_lost


def test_a_recorded_unit_is_known(store):
    lease = store.lease(PLAN, "w", 60)
    key = PLAN.unit(lease.number).key
    assert not store.is_recorded(PLAN.code, key)
    finish(store, PLAN, lease)
    assert store.is_recorded(PLAN.code, key)
    assert not store.is_recorded(PLAN.code, PLAN.unit(1).key)


def test_what_is_recorded_is_there_when_the_store_is_opened_again(store, location):
    for _ in range(3):
        finish(store, PLAN, store.lease(PLAN, "w", 60))
    held = store.lease(PLAN, "w", 60)
    store.close()
    again = open_store(location, create=False)
    again.open_plan(PLAN, ABOUT)
    assert {each["key"] for each in again.records(PLAN.code)} == {PLAN.unit(n).key for n in range(3)}
    assert len(list(again.records(PLAN.code))) == 3
    assert again.lease(PLAN, "w", 60).number == held.number + 1
    assert again.heartbeat(held, 60)
    again.close()


def test_a_campaign_goes_on_with_more_rounds(store):
    short, long = with_rounds(1), with_rounds(2)
    for _ in range(short.units):
        finish(store, short, store.lease(short, "w", 60))
    assert store.lease(short, "w", 60) is None
    assert numbers(store, long, 4) == [6, 7, 8, None]


def test_failures_are_one_and_keep_the_smallest_example(store):
    for size, failure in ((9, "one"), (4, "one"), (6, "one"), (2, "two")):
        lease = store.lease(PLAN, "w", 60)
        result = record(PLAN, lease.number, failure=failure)
        assert store.record(lease, PLAN.unit(lease.number).key, result, example(failure, size))
    assert [(each["failure"], each["size"], each["text"]) for each in store.examples(PLAN.code)] == [
        ("one", 4, "report of 4"),
        ("two", 2, "report of 2"),
    ]
    found = summary(store)["failures"]
    assert sorted((each["failure"], each["units"], each["size"]) for each in found) == [("one", 3, 4), ("two", 1, 2)]


def test_an_example_of_a_result_that_is_not_counted_is_not_kept(store):
    lease = store.lease(PLAN, "w", 60)
    key = PLAN.unit(0).key
    assert store.record(lease, key, record(PLAN, 0, failure="one"), example("one", 9))
    assert not store.record(lease, key, record(PLAN, 0, failure="one"), example("one", 1))
    assert [each["size"] for each in store.examples(PLAN.code)] == [9]


def test_results_of_other_code_are_kept_apart(store):
    finish(store, PLAN, store.lease(PLAN, "w", 60))
    other = replace(PLAN, code="b" * 32)
    store.open_plan(other, {**ABOUT, "versions": {"numpy": "3"}})
    lease = store.lease(other, "w", 60)
    assert lease.number == 0
    assert not store.is_recorded(other.code, other.unit(0).key)
    finish(store, other, lease)
    finish(store, other, store.lease(other, "w", 60))
    document = summary(store)
    assert (document["code"], document["units"], document["versions"]) == (other.code, 2, {"numpy": "3"})
    assert [(each["code"], each["units"]) for each in document["apart"]] == [(PLAN.code, 1)]
    assert summary(store, "aaa")["units"] == 1
    with pytest.raises(StoreFailed):
        summary(store, "ccc")


def test_leases_are_shown_with_their_workers(store):
    store.lease(PLAN, "a", 60)
    store.give_back(store.lease(PLAN, "b", 60), "stopped", counts=False)
    (lease,) = store.leased(PLAN.code)
    assert lease["worker"] == "a"
    assert 50 < lease["expires"] - lease["now"] <= 61


def _take_all(location, worker, taken):
    own = open_store(location)
    while (lease := own.lease(PLAN_OF_MANY, worker, 60)) is not None:
        taken.append(lease.number)
        finish(own, PLAN_OF_MANY, lease, worker=worker)
    own.close()


PLAN_OF_MANY = with_rounds(39)  # 120 units


def test_threads_never_get_the_same_unit(store, location):
    store.open_plan(PLAN_OF_MANY, ABOUT)
    taken = [[] for _ in range(8)]
    threads = [threading.Thread(target=_take_all, args=(location, f"w{i}", taken[i])) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for each in taken for number in each) == [*range(120)]
    assert len(list(store.records(PLAN.code))) == 120


def _in_process(location, worker, pipe):
    taken = []
    _take_all(location, worker, taken)
    pipe.send(taken)


@pytest.mark.slow
def test_processes_never_get_the_same_unit(store, location):
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for i in range(4):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=_in_process, args=(location, f"w{i}", theirs)))
        pipes.append(ours)
    for process in processes:
        process.start()
    taken = Counter(number for pipe in pipes for number in pipe.recv())
    for process in processes:
        process.join()
    assert taken == Counter(range(120))
    assert store.outstanding(PLAN) == 0


def test_a_store_of_another_version_is_refused(store, location):
    store.close()
    if location.startswith("redis"):
        import redis

        with redis.Redis.from_url(location) as connection:
            connection.set(f"{PREFIX}schema", 99)
    else:
        with sqlite3.connect(f"{location}/{FILE}") as connection:
            connection.execute("update about set value = 99")
    with pytest.raises(StoreFailed, match="version 99"):
        open_store(location)
    with pytest.raises(StoreFailed, match="version 99"):
        open_store(location, create=False)


def test_no_store_is_made_where_one_is_only_read(location):
    for _ in range(2):
        with pytest.raises(StoreFailed, match="no campaign"):
            open_store(location, create=False)


def test_another_place_is_no_store():
    with pytest.raises(StoreFailed, match="redis://HOST"):
        open_store("http://localhost/0")


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / FILE).write_text("no database, of whatever kind" * 100)
    with pytest.raises(StoreFailed, match="not a database"):
        open_store(str(tmp_path))


def test_a_full_disk_loses_nothing(tmp_path):
    small = SqliteStore(tmp_path, pages=60)
    small.open_plan(PLAN_OF_MANY, ABOUT)
    recorded, lease = 0, None
    with suppress(StoreFull):
        while recorded < 60:
            lease = small.lease(PLAN_OF_MANY, "w", SOON)
            finish(small, PLAN_OF_MANY, lease, headline="long " * 2000)
            recorded += 1
    assert 3 < recorded < 60
    assert len(list(small.records(PLAN.code))) == recorded
    small.close()
    time.sleep(2 * SOON)
    larger = SqliteStore(tmp_path)
    again = larger.lease(PLAN_OF_MANY, "w", 60)
    assert (again.number, again.reason) == (lease.number, "its worker was silent")
    assert finish(larger, PLAN_OF_MANY, again)
    assert sorted(each["key"] for each in larger.records(PLAN.code)) == sorted(
        PLAN_OF_MANY.unit(number).key for number in range(recorded + 1)
    )
    larger.close()
