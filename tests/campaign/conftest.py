"""Stores of both kinds, and cases that are forgotten again."""

import sys

import pytest
from campaigns import ABOUT, PLAN, ROOT, RedisServer, require_redis

from oracles import registry
from oracles.campaign.locations import open_store


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    require_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "redis"])
def location(request, tmp_path):
    """Where an empty store may be."""
    if request.param == "sqlite":
        return str(tmp_path / "store")
    server = request.getfixturevalue("redis_server")
    import redis

    with redis.Redis.from_url(server.url) as connection:
        connection.flushall()
    return server.url


@pytest.fixture
def store(location):
    opened = open_store(location)
    opened.open_plan(PLAN, ABOUT)
    yield opened
    opened.close()


@pytest.fixture
def forget_cases(monkeypatch):
    """What a test registers is forgotten, so that the next one may register it again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "_ENTRIES", {entry.name: entry for entry in registry.entries()})
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
