"""A store in a Redis server, for many machines. Every change is one script, which the server runs as a whole.

Leases end by the server's clock, so the clocks of the machines need not agree.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from oracles.campaign.store import SCHEMA, StoreFailed, StoreSilent, full, no_store, require_schema
from oracles.campaign.units import Json, Lease, Plan
from oracles.lazy_modules import LazyModule

redis = LazyModule("redis")

PREFIX = "oracles:campaign:"
# Between two attempts to reach a server that does not answer, which double, and how many there are: two minutes.
FIRST_PAUSE, LONGEST_PAUSE, ATTEMPTS = 0.1, 10.0, 18
# What a server says that has no memory, or no disk, left.
_NO_SPACE = "OOM", "maxmemory", "MISCONF", "No space"
# Results that are read at once.
PAGE = 500

_NOW = "local t = redis.call('TIME'); local now = t[1] + t[2] / 1000000; "
# KEYS of a plan: counter, ends of leases, leases. A lease is {token, worker, attempts, reason}.
_LEASE = (
    _NOW
    + """
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 1)
local number, attempts, reason
if due[1] then
  number = due[1]
  local held = cjson.decode(redis.call('HGET', KEYS[3], number))
  attempts, reason = held[3], held[4]
  if held[1] ~= '' then attempts, reason = attempts + 1, 'its worker was silent' end
else
  if ARGV[4] ~= '' and tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[4]) then return false end
  number = tostring(redis.call('INCR', KEYS[1]) - 1)
  attempts, reason = 0, ''
end
redis.call('ZADD', KEYS[2], now + ARGV[3], number)
redis.call('HSET', KEYS[3], number, cjson.encode({ARGV[1], ARGV[2], attempts, reason}))
return {number, tostring(attempts), reason}
"""
)
_HEARTBEAT = (
    _NOW
    + """
local held = redis.call('HGET', KEYS[3], ARGV[1])
if not held or cjson.decode(held)[1] ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
return 1
"""
)
# KEYS: ends of leases, leases, results, examples, sizes of examples.
_RECORD = """
local is_new = redis.call('HSETNX', KEYS[3], ARGV[2], ARGV[3])
if is_new == 1 and ARGV[4] ~= '' then
  local known = redis.call('HGET', KEYS[5], ARGV[4])
  if not known or tonumber(ARGV[5]) < tonumber(known) then
    redis.call('HSET', KEYS[5], ARGV[4], ARGV[5])
    redis.call('HSET', KEYS[4], ARGV[4], ARGV[6])
  end
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return is_new
"""
# A lease that is given back ends at once; one of a recorded unit is removed.
_END = """
local held = redis.call('HGET', KEYS[3], ARGV[1])
if not held or cjson.decode(held)[1] ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
else
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
  redis.call('HSET', KEYS[3], ARGV[1], cjson.encode({'', '', tonumber(ARGV[3]), ARGV[4]}))
end
return 1
"""


def is_redis(location: str) -> bool:
    """Return whether a location is the address of a Redis server."""
    return location.startswith(("redis://", "rediss://"))


def connect(address: str, *, text: bool = True) -> Any:
    """Return a connection that waits two minutes for a server that is restarted; it answers in text or bytes."""
    pauses = redis.retry.Retry(redis.backoff.ExponentialBackoff(LONGEST_PAUSE, FIRST_PAUSE), ATTEMPTS)
    errors = [redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError, OSError]
    return redis.Redis.from_url(address, decode_responses=text, retry=pauses, retry_on_error=errors)


class RedisStore:
    """See `oracles.campaign.store.Store`.

    Attributes:
        location: the address.
    """

    def __init__(self, address: str, *, create: bool = True) -> None:
        self.location = address
        with self._errors():
            self._redis = connect(address)
            if create:
                self._redis.set(f"{PREFIX}schema", SCHEMA, nx=True)
            found = self._redis.get(f"{PREFIX}schema")
            if found is None:
                raise no_store(address)
            require_schema(address, found)
            names = (_LEASE, _HEARTBEAT, _RECORD, _END)
            self._lease, self._beat, self._record, self._end = map(self._redis.register_script, names)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the errors of Redis into those of a store."""
        try:
            yield
        except redis.exceptions.ResponseError as error:
            if any(word in str(error) for word in _NO_SPACE):
                raise full(self.location) from error
            raise StoreFailed(f"{self.location}: {error}") from error
        except (redis.exceptions.RedisError, OSError) as error:
            raise StoreSilent(f"{self.location} does not answer: {error}") from error

    @staticmethod
    def _keys(plan: str) -> list[str]:
        return [f"{PREFIX}plan:{plan}:{part}" for part in ("next", "ends", "leases")]

    def open_plan(self, plan: Plan, about: Json) -> None:
        """See `Store`."""
        with self._errors():
            seconds, microseconds = self._redis.time()
            opened = {**about, "code": plan.code, "plan": plan.to_json(), "opened": seconds + microseconds / 1e6}
            self._redis.hsetnx(f"{PREFIX}plans", plan.name, json.dumps(opened))

    def lease(self, plan: Plan, worker: str, seconds: float) -> Lease | None:
        """See `Store`."""
        token = secrets.token_hex(8)
        units = "" if plan.units is None else plan.units
        with self._errors():
            row = self._lease(keys=self._keys(plan.name), args=[token, worker, seconds, units])
        return row and Lease(plan.name, int(row[0]), token, int(float(row[1])), row[2])

    def heartbeat(self, lease: Lease, seconds: float) -> bool:
        """See `Store`."""
        with self._errors():
            return bool(self._beat(keys=self._keys(lease.plan), args=[lease.number, lease.token, seconds]))

    def is_recorded(self, code: str, key: str) -> bool:
        """See `Store`."""
        with self._errors():
            return bool(self._redis.hexists(f"{PREFIX}results:{code}", key))

    def record(self, lease: Lease, key: str, record: Json, example: Json | None) -> bool:
        """See `Store`."""
        code = record["code"]
        named = [f"{PREFIX}{part}:{code}" for part in ("results", "examples", "sizes")]
        of_example = [example["failure"], example["size"], json.dumps(example)] if example else ["", 0, ""]
        args = [lease.number, key, json.dumps(record), *of_example]
        with self._errors():
            return bool(self._record(keys=[*self._keys(lease.plan)[1:], *named], args=args))

    def outstanding(self, plan: Plan) -> int:
        """See `Store`."""
        with self._errors():
            return int(self._redis.hlen(self._keys(plan.name)[2]))

    def skip(self, lease: Lease) -> None:
        """See `Store`."""
        with self._errors():
            self._end(keys=self._keys(lease.plan), args=[lease.number, lease.token, "", ""])

    def give_back(self, lease: Lease, reason: str, *, counts: bool) -> None:
        """See `Store`."""
        args = [lease.number, lease.token, lease.attempts + counts, reason]
        with self._errors():
            self._end(keys=self._keys(lease.plan), args=args)

    def records(self, code: str) -> Iterator[Json]:
        """See `Store`."""
        with self._errors():
            for _, text in self._redis.hscan_iter(f"{PREFIX}results:{code}", count=PAGE):
                yield json.loads(text)

    def examples(self, code: str) -> Iterator[Json]:
        """See `Store`."""
        with self._errors():
            for _, text in sorted(self._redis.hgetall(f"{PREFIX}examples:{code}").items()):
                yield json.loads(text)

    def _plans(self) -> dict[str, Json]:
        with self._errors():
            return {name: json.loads(text) for name, text in self._redis.hgetall(f"{PREFIX}plans").items()}

    def identities(self) -> list[Json]:
        """See `Store`."""
        by_code: dict[str, Json] = {}
        for opened in sorted(self._plans().values(), key=lambda each: -each["opened"]):
            with self._errors():
                units = self._redis.hlen(f"{PREFIX}results:{opened['code']}")
            known = by_code.setdefault(opened["code"], {**opened, "units": units})
            known["opened"] = min(known["opened"], opened["opened"])
            known.pop("plan", None)
        return list(reversed(by_code.values()))

    def leased(self, code: str) -> list[Json]:
        """See `Store`."""
        found: list[Json] = []
        for name, opened in self._plans().items():
            if opened["code"] == code:
                _, ends, leases = self._keys(name)
                with self._errors():
                    seconds, _ = self._redis.time()
                    held, expires = self._redis.hgetall(leases), dict(self._redis.zrange(ends, 0, -1, withscores=True))
                rows = ((json.loads(value), expires.get(number, 0.0)) for number, value in held.items())
                found += [{"worker": row[1], "expires": at, "now": float(seconds)} for row, at in rows if row[0]]
        return found

    def close(self) -> None:
        """See `Store`."""
        self._redis.close()
