"""What a campaign has to do, as units of work: one search, by a block of seeds.

A plan is finite data, and the n-th unit is a function of the plan and n. So nobody lists ten million units: workers
lease numbers, see `oracles.campaign.store`. The key of a unit is the hash of all that its result depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

from oracles.constants import CAMPAIGN_ATTEMPTS, CAMPAIGN_LEASE_SECONDS
from oracles.verdict import NOT_JUDGED

Json: TypeAlias = dict[str, Any]
# A search by seeds, or the examples that Hypothesis's databases hold.
Kind: TypeAlias = Literal["search", "replay"]


def content_hash(value: object) -> str:
    """Return the hash of a value of JSON's types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Searched:
    """A search: a property of a layer in a dtype; ``order`` 2 where it is about second derivatives."""

    layer: str
    property: str
    dtype: str
    order: int = 1


@dataclass(frozen=True)
class Unit:
    """A unit of work.

    Attributes:
        key: the hash of all that its result depends on.
        kind: "search", or "replay" of stored examples.
        searched: the search.
        seeds: the seeds, each of which fixes one run; none of a replay.
    """

    key: str
    kind: Kind
    searched: Searched
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All units of a campaign, in the order in which they are leased.

    First the stored examples of each search are replayed, then each search gets its first block of seeds, then each its
    second one, and so on without an end, or up to ``rounds`` blocks.

    Attributes:
        code: the identity of code and versions, see `oracles.campaign.identity`.
        searches: the searches.
        cases: the modules and files of the user's cases; files by their absolute paths.
        folder: where modules of cases are looked for.
        against: the frameworks that judge.
        points: points of each run.
        climb: points of each run besides that climb towards the worst, of searches against oracles.
        tiles: sizes of tiles, `SearchOptions.blocks`.
        seed: the first seed.
        block: seeds of one unit.
        rounds: blocks of each search; ``None`` for no end.
    """

    code: str
    searches: tuple[Searched, ...]
    cases: tuple[str, ...] = ()
    folder: str = ""
    against: tuple[str, ...] = ()
    points: int = 30
    climb: int = 10
    tiles: tuple[int, ...] = ()
    seed: int = 0
    block: int = 10
    rounds: int | None = None

    @cached_property
    def name(self) -> str:
        """The hash of the plan, without its end: a campaign that goes on for more rounds is the same one."""
        return content_hash(asdict(replace(self, rounds=None, folder="")))

    @property
    def units(self) -> int | None:
        """The number of units; ``None`` for no end."""
        return None if self.rounds is None else len(self.searches) * (1 + self.rounds)

    def unit(self, number: int) -> Unit:
        """Return the unit of a number."""
        block, position = divmod(number, len(self.searches))
        searched = self.searches[position]
        first = self.seed + (block - 1) * self.block
        seeds = tuple(range(first, first + self.block)) if block else ()
        kind: Kind = "search" if block else "replay"
        depends_on = (self.code, kind, asdict(searched), self.against, self.points, self.climb, self.tiles, seeds)
        return Unit(content_hash(depends_on), kind, searched, seeds)

    def to_json(self) -> Json:
        """Return the plan as JSON's types."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Json) -> Plan:
        """Return the plan that `to_json` wrote."""
        lists = {name: tuple(value) for name, value in document.items() if isinstance(value, Sequence | tuple)}
        lists = {name: value for name, value in lists.items() if not isinstance(document[name], str)}
        return cls(**{**document, **lists, "searches": tuple(Searched(**each) for each in document["searches"])})


def is_unjudged(record: Json) -> bool:
    """Return whether a search by seeds has judged nothing: no case could be drawn, or every process ended."""
    return record["kind"] == "search" and not record["points"] and record["verdict"] in ("", NOT_JUDGED)


def reason_of(record: Json) -> str:
    """Return why a unit has judged nothing."""
    skipped = "; ".join(f"{name}: {line}" for name, line in record["skipped"].items())
    return record["headline"] or skipped or "no point was drawn"


@dataclass(frozen=True)
class Lease:
    """The right to do a unit, for so long.

    Attributes:
        plan: the name of the plan.
        number: the number of the unit.
        token: tells this lease from an earlier and a later one of the same unit.
        attempts: how often the unit was leased before and no result was recorded.
        reason: how the last attempt ended, where that is known.
    """

    plan: str
    number: int
    token: str
    attempts: int = 0
    reason: str = ""

    @property
    def is_lost(self) -> bool:
        """Whether the unit has ended so many workers that no other one tries it."""
        return self.attempts >= CAMPAIGN_ATTEMPTS


@dataclass(frozen=True)
class Leasing:
    """For how long units are leased, and how often a worker says that it is alive."""

    seconds: float = CAMPAIGN_LEASE_SECONDS

    @property
    def heartbeat(self) -> float:
        """Seconds between two heartbeats: two may be late before a lease ends."""
        return self.seconds / 3
