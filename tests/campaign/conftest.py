"""Stores of both kinds."""

import pytest
from campaigns import ABOUT, PLAN, RedisServer, require_redis

from oracles.campaign.store import open_store


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
