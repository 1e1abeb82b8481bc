"""A Redis server that is killed, restarted, full: nothing that was recorded is lost."""

import threading
import time

import pytest
from campaigns import ABOUT, PLAN, RedisServer, finish, numbers, require_redis

from oracles.campaign.examples import Forgiving, Saved, databases
from oracles.campaign.locations import open_store
from oracles.campaign.store import StoreFull


@pytest.fixture
def server(tmp_path):
    require_redis()
    own = RedisServer(tmp_path).start()
    yield own
    own.kill()


def test_a_server_that_is_killed_and_restarted_loses_nothing(server):
    store = open_store(server.url)
    store.open_plan(PLAN, ABOUT)
    finish(store, PLAN, store.lease(PLAN, "w", 60))
    held = store.lease(PLAN, "w", 60)
    server.kill()
    threading.Timer(0.5, server.start).start()  # meanwhile the store waits
    assert store.heartbeat(held, 60)
    assert finish(store, PLAN, held)
    assert len(list(store.records(PLAN.code))) == 2
    assert numbers(store, PLAN, 2) == [2, 3]
    store.close()


def test_a_server_without_memory_loses_nothing(server):
    import redis

    store = open_store(server.url)
    store.open_plan(PLAN, ABOUT)
    lease = store.lease(PLAN, "w", 0.05)
    with redis.Redis.from_url(server.url) as connection:
        connection.config_set("maxmemory", 1)
        with pytest.raises(StoreFull, match="no space is left"):
            finish(store, PLAN, lease)
        connection.config_set("maxmemory", 0)
    time.sleep(0.1)
    again = store.lease(PLAN, "w", 60)
    assert again.number == lease.number
    assert finish(store, PLAN, again)
    store.close()


def test_examples_are_in_redis_and_a_shared_database_is_only_read(server, tmp_path):
    of_shared, _ = databases(str(tmp_path / "shared"), None)
    own, replayed = databases(server.url, str(tmp_path / "shared"))
    of_shared.save(b"key", b"shared")
    saved = Saved()
    saved.save(b"key", b"own")
    saved.pass_on(own)
    assert sorted(replayed.fetch(b"key")) == [b"own", b"shared"]
    replayed.delete(b"key", b"shared")
    replayed.delete(b"key", b"own")
    assert list(of_shared.fetch(b"key")) == [b"shared"]
    assert list(own.fetch(b"key")) == []


def test_a_database_that_does_not_answer_is_asked_once():
    asked = []

    class Gone(Saved):
        def fetch(self, key):
            asked.append(key)
            raise ConnectionError

        def save(self, key, value):
            asked.append(key)
            raise PermissionError

    database = Forgiving(Gone(), (OSError,), (ConnectionError,))
    database.save(b"key", b"value")
    assert list(database.fetch(b"key")) == list(database.fetch(b"key")) == []
    database.save(b"key", b"value")
    assert len(asked) == 2  # a refusal by a server that answers, and the first silence


def test_a_database_that_does_not_answer_has_no_examples(tmp_path):
    own, _ = databases(str(tmp_path / "store"), None)
    own.save(b"key", b"value")
    for file in (tmp_path / "store").rglob("*"):
        if file.is_file():
            file.unlink()
            file.mkdir()
    assert list(own.fetch(b"key")) == []
