"""The examples of a campaign, in Hypothesis's own databases.

A store has a database of its own: a folder next to the results, or Redis. What a search by seeds finds is saved there.
It reads nothing from there, so that a seed means the same everywhere. Replays read it, and a second database that many
campaigns share and none of them changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis.database import (
    DirectoryBasedExampleDatabase,
    ExampleDatabase,
    MultiplexedDatabase,
    ReadOnlyDatabase,
)

from oracles.campaign.redis_store import PREFIX, connect, is_redis, redis
from oracles.lazy_modules import LazyModule

if TYPE_CHECKING:
    from hypothesis.extra import redis as hypothesis_redis
else:  # it needs redis
    hypothesis_redis = LazyModule("hypothesis.extra.redis")

FOLDER = "examples"
# How long Redis keeps an example that no campaign reads.
KEPT_FOR = timedelta(days=366)


class Saved(ExampleDatabase):
    """Holds what one search saves, until it is known whether the search failed.

    Hypothesis also saves what it climbs from, which would grow without an end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[bytes, set[bytes]] = {}

    def fetch(self, key: bytes) -> Iterable[bytes]:
        """Return the values of a key."""
        return tuple(self._values.get(key, ()))

    def save(self, key: bytes, value: bytes) -> None:
        """Add a value to a key."""
        self._values.setdefault(key, set()).add(value)

    def delete(self, key: bytes, value: bytes) -> None:
        """Remove a value of a key."""
        self._values.get(key, set()).discard(value)

    def pass_on(self, database: ExampleDatabase) -> None:
        """Save everything in another database, and forget it."""
        for key, values in self._values.items():
            for value in values:
                database.save(key, value)
        self._values.clear()

    def forget(self) -> None:
        """Forget everything."""
        self._values.clear()


class Forgiving(ExampleDatabase):
    """Another database, whose failures say nothing of a subject: what cannot be read is not replayed.

    Results are not in it: whether these can be written, the store says. A server that did not answer, for as long as it
    is waited for, is not asked again.
    """

    def __init__(
        self, database: ExampleDatabase, errors: tuple[type[Exception], ...], silent: tuple[type[Exception], ...] = ()
    ) -> None:
        super().__init__()
        self._database, self._errors, self._silent = database, errors, silent
        self._is_silent = False

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            self._is_silent = isinstance(error, self._silent)

    def fetch(self, key: bytes) -> Iterable[bytes]:
        """Return the values of a key, or none."""
        found: tuple[bytes, ...] = ()
        if not self._is_silent:
            with self._forgiving():
                found = tuple(self._database.fetch(key))
        return found

    def save(self, key: bytes, value: bytes) -> None:
        """Add a value to a key, if that is possible."""
        if not self._is_silent:
            with self._forgiving():
                self._database.save(key, value)

    def delete(self, key: bytes, value: bytes) -> None:
        """Remove a value of a key, if that is possible."""
        if not self._is_silent:
            with self._forgiving():
                self._database.delete(key, value)


def database_at(location: str) -> ExampleDatabase:
    """Return the database of a store, or of a folder of Hypothesis's own, such as ``.hypothesis/examples``.

    Raises:
        MissingPackage: for the address of a Redis server, if redis is not installed.
    """
    if is_redis(location):
        own = connect(location, text=False)
        found = hypothesis_redis.RedisExampleDatabase(
            own, key_prefix=f"{PREFIX}example:".encode(), expire_after=KEPT_FOR
        )
        return Forgiving(found, (OSError, redis.RedisError), (OSError, redis.ConnectionError, redis.TimeoutError))
    of_store = Path(location) / FOLDER
    folder = of_store if of_store.is_dir() else Path(location)
    return Forgiving(DirectoryBasedExampleDatabase(folder), (OSError,))


def databases(store: str, shared: str | None) -> tuple[ExampleDatabase, ExampleDatabase]:
    """Return the database of a store, and the one that replays read: with a second one that nobody changes."""
    if not is_redis(store):
        with suppress(OSError):
            (Path(store) / FOLDER).mkdir(parents=True, exist_ok=True)
    own = database_at(store)
    return own, own if shared is None else MultiplexedDatabase(own, ReadOnlyDatabase(database_at(shared)))
