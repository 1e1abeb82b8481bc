"""Which store a location means: a folder, or the address of a Redis server."""

from __future__ import annotations

from pathlib import Path

from oracles.campaign.redis_store import RedisStore, is_redis
from oracles.campaign.sqlite_store import SqliteStore
from oracles.campaign.store import Store, StoreFailed


def open_store(location: str, *, create: bool = True) -> Store:
    """Open the store in a folder, or at ``redis://HOST:PORT/DB``.

    Args:
        location: the folder, or the address of a Redis server.
        create: whether to make a store where there is none.

    Raises:
        StoreFailed: if there is none, it is of another version, or it does not answer.
        MissingPackage: for an address, if redis is not installed.
    """
    if is_redis(location):
        return RedisStore(location, create=create)
    if "://" in location:
        raise StoreFailed(f"expected a folder or redis://HOST:PORT/DB, got {location}")
    return SqliteStore(Path(location), create=create)
