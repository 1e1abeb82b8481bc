"""A store in a folder: SQLite, with a write-ahead log. Every change is one transaction, on disk before it returns.

The processes of one machine share it. SQLite's log needs memory that all of them see, which network file systems do not
give: many machines share a Redis server.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oracles.campaign.store import SCHEMA, StoreFailed, full, is_no_space, no_store, now, require_schema
from oracles.campaign.units import Json, Lease, Plan

FILE = "campaign.sqlite"
# Below this a disk counts as full: the memory that SQLite's processes share, and a page.
LEAST_FREE_BYTES = 2**16
# How long a transaction waits for the others.
BUSY_SECONDS = 60.0

_TABLES = """
create table if not exists about (name text primary key, value text not null) without rowid;
create table if not exists plans (
    plan text primary key, code text not null, document text not null, about text not null, opened real not null,
    next integer not null default 0
) without rowid;
create table if not exists leases (
    plan text not null, number integer not null, token text not null, worker text not null, expires real not null,
    attempts integer not null, reason text not null, primary key (plan, number)
) without rowid;
create index if not exists ends on leases (plan, expires, number);
create table if not exists results (
    key text primary key, code text not null, document text not null
);
create index if not exists by_code on results (code);
create table if not exists examples (
    code text not null, failure text not null, size integer not null, document text not null,
    primary key (code, failure)
);
"""


class SqliteStore:
    """See `oracles.campaign.store.Store`; one connection, for one thread at a time.

    Attributes:
        location: the folder.
    """

    def __init__(self, folder: Path, *, create: bool = True, pages: int | None = None) -> None:
        """Open the store in a folder; of at most so many pages, which stands for a disk of this size."""
        self.location = str(folder)
        if not create and not (folder / FILE).is_file():
            raise no_store(self.location)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise full(self.location) if is_no_space(error) else StoreFailed(f"{folder}: {error.strerror}") from error
        with self._errors():
            self._db = sqlite3.connect(
                folder / FILE, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            if pages is not None:
                self._db.execute(f"pragma max_page_count = {pages}")
            self._require_schema(create)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = full")  # what is recorded survives a power cut

    def _require_schema(self, create: bool) -> None:
        """Require a store of this version; where there is none, make one, which only one process does."""
        self._db.execute("begin immediate")
        try:
            known = self._db.execute("select name from sqlite_master where name = 'about'").fetchone()
            row = known and self._db.execute("select value from about where name = 'schema'").fetchone()
            if known:
                require_schema(self.location, row[0] if row else "unknown")
            elif not create:
                raise no_store(self.location)
            else:
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute("insert into about values ('schema', ?)", (str(SCHEMA),))
            self._db.execute("commit")
        except BaseException:
            self._db.rollback()
            self._db.close()
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn SQLite's errors into those of a store."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            message = str(error)
            if "is full" in message or ("disk I/O error" in message and self._has_no_space()):
                raise full(self.location) from error
            raise StoreFailed(f"{self.location}: {message}") from error
        except OSError as error:
            raise full(self.location) if is_no_space(error) else error from error

    def _has_no_space(self) -> bool:
        """Return whether a page of memory that processes share would not fit, so that SQLite cannot say it is full."""
        return shutil.disk_usage(self.location).free < LEAST_FREE_BYTES

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            self._db.execute("begin immediate")
            try:
                yield self._db
                self._db.execute("commit")
            except BaseException:
                self._db.rollback()
                raise

    def open_plan(self, plan: Plan, about: Json) -> None:
        """See `Store`."""
        row = (plan.name, plan.code, json.dumps(plan.to_json()), json.dumps(about), now())
        with self._transaction() as db:
            db.execute("insert or ignore into plans (plan, code, document, about, opened) values (?, ?, ?, ?, ?)", row)

    def lease(self, plan: Plan, worker: str, seconds: float) -> Lease | None:
        """See `Store`."""
        token, name, at = secrets.token_hex(8), plan.name, now()
        with self._transaction() as db:
            ended = db.execute(
                "select number, attempts, reason, token from leases where plan = ? and expires <= ? "
                "order by expires, number limit 1",
                (name, at),
            ).fetchone()
            if ended is not None:
                number, attempts, reason, holder = ended
                if holder:  # it was not given back: its worker is silent
                    attempts, reason = attempts + 1, "its worker was silent"
            else:
                (number,) = db.execute("select next from plans where plan = ?", (name,)).fetchone()
                if plan.units is not None and number >= plan.units:
                    return None
                attempts, reason = 0, ""
                db.execute("update plans set next = next + 1 where plan = ?", (name,))
            row = (name, number, token, worker, at + seconds, attempts, reason)
            db.execute("insert or replace into leases values (?, ?, ?, ?, ?, ?, ?)", row)
        return Lease(name, number, token, attempts, reason)

    def heartbeat(self, lease: Lease, seconds: float) -> bool:
        """See `Store`."""
        row = (now() + seconds, lease.plan, lease.number, lease.token)
        with self._transaction() as db:
            change = db.execute("update leases set expires = ? where plan = ? and number = ? and token = ?", row)
        return change.rowcount == 1

    def is_recorded(self, code: str, key: str) -> bool:
        """See `Store`."""
        with self._errors():
            return self._db.execute("select 1 from results where key = ?", (key,)).fetchone() is not None

    def record(self, lease: Lease, key: str, record: Json, example: Json | None) -> bool:
        """See `Store`."""
        row = (key, record["code"], json.dumps(record))
        with self._transaction() as db:
            is_new = db.execute("insert or ignore into results values (?, ?, ?)", row).rowcount == 1
            if is_new and example is not None:
                values = (record["code"], example["failure"], example["size"], json.dumps(example))
                db.execute(
                    "insert into examples values (?, ?, ?, ?) on conflict do update "
                    "set size = excluded.size, document = excluded.document where excluded.size < examples.size",
                    values,
                )
            db.execute("delete from leases where plan = ? and number = ?", (lease.plan, lease.number))
        return is_new

    def outstanding(self, plan: Plan) -> int:
        """See `Store`."""
        with self._errors():
            return int(self._db.execute("select count(*) from leases where plan = ?", (plan.name,)).fetchone()[0])

    def skip(self, lease: Lease) -> None:
        """See `Store`."""
        row = (lease.plan, lease.number, lease.token)
        with self._transaction() as db:
            db.execute("delete from leases where plan = ? and number = ? and token = ?", row)

    def give_back(self, lease: Lease, reason: str, *, counts: bool) -> None:
        """See `Store`."""
        row = (lease.attempts + counts, reason, lease.plan, lease.number, lease.token)
        with self._transaction() as db:
            db.execute(
                "update leases set token = '', expires = 0, attempts = ?, reason = ? "
                "where plan = ? and number = ? and token = ?",
                row,
            )

    def records(self, code: str) -> Iterator[Json]:
        """See `Store`."""
        with self._errors():
            for (text,) in self._db.execute("select document from results where code = ? order by rowid", (code,)):
                yield json.loads(text)

    def examples(self, code: str) -> Iterator[Json]:
        """See `Store`."""
        with self._errors():
            for (text,) in self._db.execute("select document from examples where code = ? order by failure", (code,)):
                yield json.loads(text)

    def identities(self) -> list[Json]:
        """See `Store`."""
        with self._errors():
            rows = self._db.execute(
                "select code, about, min(opened), (select count(*) from results where results.code = plans.code) "
                "from plans group by code order by max(opened)"
            ).fetchall()
        return [{**json.loads(about), "code": code, "opened": at, "units": n} for code, about, at, n in rows]

    def leased(self, code: str) -> list[Json]:
        """See `Store`."""
        with self._errors():
            rows = self._db.execute(
                "select worker, expires from leases join plans using (plan) where code = ? and token != ''", (code,)
            ).fetchall()
        return [{"worker": worker, "expires": expires, "now": now()} for worker, expires in rows]

    def close(self) -> None:
        """See `Store`."""
        self._db.close()
