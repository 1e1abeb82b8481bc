"""What workers share: leases of units, recorded results, the smallest example of each failure.

    lease(plan, worker)      the next unit: one whose lease has ended or that was given back, else the next number
    heartbeat(lease)         the worker is alive: the lease lasts longer
    record(lease, ...)       the result of the unit, once: by its key; and the end of the lease, in one transaction
    give_back(lease, ...)    the unit was not done: somebody else may lease it at once

Every number below the counter of a plan is recorded, leased or given back, so no unit is lost; a unit that is judged
twice, since its lease ended while its worker went on, is recorded once.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import Protocol

from oracles.campaign.units import Json, Lease, Plan

# Of what is stored. It counts up when a later version could not read it.
SCHEMA = 1


class StoreFailed(ValueError):
    """A store cannot be used: it is of another version, or does not answer."""


class StoreSilent(StoreFailed):
    """A store does not answer, and was waited for."""


class StoreFull(StoreFailed):
    """There is no space for another result."""


class Store(Protocol):
    """What a store does; `SqliteStore` and `RedisStore` are the two."""

    location: str

    def open_plan(self, plan: Plan, about: Json) -> None:
        """Remember a plan, and of whose code it is; a plan that is known goes on where it was."""

    def lease(self, plan: Plan, worker: str, seconds: float) -> Lease | None:
        """Lease a unit for so many seconds; ``None`` if there is none at present."""

    def heartbeat(self, lease: Lease, seconds: float) -> bool:
        """Let a lease end so many seconds from now; false if it has ended and the unit is not this worker's."""

    def is_recorded(self, code: str, key: str) -> bool:
        """Return whether the result of a unit is recorded."""

    def record(self, lease: Lease, key: str, record: Json, example: Json | None) -> bool:
        """Record a result, unless there is one of this key; false if there is. Ends the lease."""

    def outstanding(self, plan: Plan) -> int:
        """Return how many units of a plan are leased or given back."""

    def skip(self, lease: Lease) -> None:
        """End the lease of a unit whose result is recorded."""

    def give_back(self, lease: Lease, reason: str, *, counts: bool) -> None:
        """Return a unit that was not done; ``counts`` if it may be the unit's own fault."""

    def records(self, code: str) -> Iterator[Json]:
        """Return the results of one identity of code and versions."""

    def examples(self, code: str) -> Iterator[Json]:
        """Return the smallest example of each failure, of one identity."""

    def identities(self) -> list[Json]:
        """Return whose results there are, the latest last: ``code``, ``versions``, ``opened``, ``units``."""

    def leased(self, code: str) -> list[Json]:
        """Return the present leases of one identity: ``worker``, ``expires``, ``now``."""

    def close(self) -> None:
        """Free what it holds."""


def require_schema(location: str, found: object) -> None:
    """Require that a store is of this version.

    Raises:
        StoreFailed: if it is not.
    """
    if str(found) != str(SCHEMA):
        raise StoreFailed(
            f"{location}: a store of version {found}; this oracles reads and writes version {SCHEMA}.\n"
            "Fix:    use the oracles that made it, or name another store; nothing was changed"
        )


def no_store(location: str) -> StoreFailed:
    """Return the exception of a place that holds no store."""
    return StoreFailed(f"{location}: there is no campaign.\nFix:    oracles campaign --store {location}")


def full(location: str) -> StoreFull:
    """Return the exception of a store without space."""
    return StoreFull(
        f"{location}: no space is left. What is recorded is kept; the unit in work is given back.\n"
        "Fix:    make space, and run the same command again"
    )


def is_no_space(error: OSError) -> bool:
    """Return whether an error says that a file system, or what a process may write to it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def now() -> float:
    """Return the time by which leases of this machine end."""
    return time.time()
