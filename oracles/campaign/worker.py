"""A worker of a campaign: leases units, has a process judge them, and records the results, until the budget is over.

The process that judges may end at any time, and so may the worker: nothing is lost. Of the first, the worker gives the
unit back; of the second, the lease ends.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from oracles.campaign.judging_process import Ended, JudgingProcess
from oracles.campaign.locations import open_store
from oracles.campaign.store import Store, StoreFailed, StoreSilent
from oracles.campaign.units import Json, Lease, Leasing, Plan, Searched, Unit, content_hash, is_unjudged
from oracles.constants import CAMPAIGN_ATTEMPTS, CAMPAIGN_GRACE_SECONDS, CAMPAIGN_POLL_SECONDS
from oracles.environment import pin_threads
from oracles.verdict import NOT_JUDGED


@dataclass(frozen=True)
class Task:
    """What every worker of a campaign needs to know; it can be sent to another machine.

    Attributes:
        store: the location of the store.
        plan: the plan.
        deadline: the time, in seconds since 1970, after which no unit is leased.
        examples_from: Hypothesis's database whose examples are replayed too.
        leasing: for how long a unit is leased.
    """

    store: str
    plan: Plan
    deadline: float
    examples_from: str | None = None
    leasing: Leasing = field(default_factory=Leasing)


class OtherCode(StoreFailed):
    """The code or the versions on a machine are not those of the campaign."""


class _Stopped(Exception):
    """The campaign ends while a unit is judged."""


def worker_name(number: int = 0) -> str:
    """Return a name that no other worker has: machine, process, number, start."""
    return f"{socket.gethostname()}:{os.getpid()}:{number}:{int(time.time())}"


class Worker:
    """Does units, one after the other.

    Attributes:
        name: the name.
        process: what judges.
        units: how many units it has recorded.
    """

    def __init__(self, task: Task, name: str, stopped: Callable[[], bool] = lambda: False) -> None:
        self.name, self.units = name, 0
        self._task, self._stopped = task, stopped
        self.process = JudgingProcess(task.plan, task.store, task.examples_from)
        self._unjudged: Counter[Searched] = Counter()

    def run(self) -> int:
        """Work until the budget is over or all units are done; return how many were recorded.

        Raises:
            StoreFailed: if the store is full or fails, or the code is another one here; the unit is given back.
        """
        pin_threads()  # the process that judges reads the environment
        store, task = open_store(self._task.store, create=False), self._task
        try:
            self._start()
            while not self._stopped() and time.time() < task.deadline and not self._has_given_up(*task.plan.searches):
                lease = store.lease(task.plan, self.name, task.leasing.seconds)
                if lease is not None:
                    self._do(store, lease)
                elif store.outstanding(task.plan):
                    time.sleep(CAMPAIGN_POLL_SECONDS)  # one of them may be given back
                else:
                    break
        except _Stopped:
            pass  # while the process was started
        finally:
            self.process.end()
            store.close()
        return self.units

    def _start(self, wait: Callable[[], None] | None = None) -> None:
        """Start the process that judges, in a few attempts, and require that its code is the campaign's.

        Raises:
            StoreFailed: if it cannot be started.
            OtherCode: if it judges with other code.
        """
        for attempt in range(CAMPAIGN_ATTEMPTS):
            try:
                code = self.process.start(wait or self._require_time)
            except Ended as ended:
                if attempt + 1 == CAMPAIGN_ATTEMPTS:
                    raise StoreFailed(f"{self.name}: no process can judge here: {ended}") from ended
                continue
            if code and code != self._task.plan.code:
                self.process.end()
                raise OtherCode(
                    f"{self.name}: the code or the versions here are not those of the campaign "
                    f"({code}, not {self._task.plan.code}).\n"
                    "Fix:    install the same on every machine; `oracles --version` prints the versions"
                )
            return

    def _require_time(self) -> None:
        if self._stopped() or time.time() > self._task.deadline + CAMPAIGN_GRACE_SECONDS:
            raise _Stopped

    def _do(self, store: Store, lease: Lease) -> None:
        """Do the unit of a lease, or give it back."""
        plan, started = self._task.plan, time.time()
        unit = plan.unit(lease.number)
        if self._has_given_up(unit.searched) or store.is_recorded(plan.code, unit.key):
            store.skip(lease)
            return
        wait = self._heartbeats(store, lease)
        try:
            if lease.is_lost:
                answer = _lost(unit, plan, lease)
            else:
                self._start(wait)
                answer = self.process.judge(lease.number, wait)
            record = {**answer["record"], "key": unit.key, "worker": self.name, "attempts": lease.attempts}
            record |= {"started": started, "finished": time.time()}
            self.units += store.record(lease, unit.key, record, answer["example"])
            self._note(record, unit)
        except Ended as ended:
            store.give_back(lease, str(ended), counts=True)
        except _Stopped:
            self.process.end()
            store.give_back(lease, "the campaign was stopped", counts=False)
        except StoreSilent:
            raise  # it has been waited for: the lease ends by itself
        except BaseException:
            with suppress(StoreFailed):  # else the lease ends by itself
                store.give_back(lease, "its worker failed", counts=False)
            raise

    def _note(self, record: Json, unit: Unit) -> None:
        """Count the units of a search that followed each other and judged nothing."""
        if is_unjudged(record):
            self._unjudged[unit.searched] += 1
        elif unit.kind == "search":
            self._unjudged[unit.searched] = 0

    def _has_given_up(self, *searches: Searched) -> bool:
        """Return whether further units of all these searches would judge nothing either."""
        return all(self._unjudged[searched] >= CAMPAIGN_ATTEMPTS for searched in searches)

    def _heartbeats(self, store: Store, lease: Lease) -> Callable[[], None]:
        """Return a function that renews a lease now and then, and raises when the campaign ends."""
        seconds, every = self._task.leasing.seconds, self._task.leasing.heartbeat
        last = time.monotonic()

        def wait() -> None:
            nonlocal last
            self._require_time()
            if time.monotonic() - last > every:
                # If the lease has ended, whoever is first records the unit.
                store.heartbeat(lease, seconds)
                last = time.monotonic()

        return wait


def _lost(unit: Unit, plan: Plan, lease: Lease) -> Json:
    """Return the record of a unit that has ended every process that tried it."""
    searched = unit.searched
    reason = lease.reason.partition("\n")[0]
    text = f"{searched.layer}, {searched.property}, {searched.dtype}: {lease.attempts} processes ended: {reason}"
    failure = content_hash([searched.layer, NOT_JUDGED, reason])
    named = {"property": searched.property, "dtype": searched.dtype, "verdict": NOT_JUDGED}
    record = {**named, "code": plan.code, "kind": unit.kind, "layer": searched.layer, "order": searched.order}
    record |= {"seeds": list(unit.seeds), "seeds_done": 0, "points": 0, "rows": [], "seconds": 0.0, "skipped": {}}
    record |= {"headline": text, "failure": failure, "out_of_time": 0, "coverage": None}
    example = {**named, "failure": failure, "subject": searched.layer, "diagnosis": "", "primal": "", "size": 0}
    seed = unit.seeds[0] if unit.seeds else None
    return {"record": record, "example": {**example, "seed": seed, "text": f"{text}\n{lease.reason}", "script": ""}}
