"""Call sequences: the ways in which an object may be called beside one forward and one backward on a fresh one.

Each is a `Rule`'s ``evaluate``, and must give what a fresh object gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles.adapters.objects import Subject
from oracles.rule import Array, Cotangents, Primals, Pullback, as_tuple
from oracles.self_consistency import move_point

FAINT = 2.0**-12  # of an earlier step's delta: what that leaves behind shows, and its own rounding does not


def fresh(subject: Subject, **primals: Array) -> tuple[Any, Pullback]:
    """Forward and backward on a fresh object; a second pullback runs on another one."""
    ran = [subject.run(primals)]
    y = ran[0][1]

    def pullback(delta: Any) -> Cotangents:
        obj, _ = ran.pop() if ran else subject.run(primals)
        return subject.pull(obj, delta, primals)

    return y, pullback


def forward_twice(subject: Subject, **primals: Array) -> tuple[Any, Pullback]:
    """Forward at another point, then here: what is cached must be of the last one."""
    obj = subject.made(primals)
    subject.call_forward(obj, _elsewhere(subject, primals))
    subject.clear(obj)
    y = subject.call_forward(obj, primals)
    return y, lambda delta: subject.pull(obj, delta, primals)


def backward_twice(subject: Subject, **primals: Array) -> tuple[Any, Pullback]:
    """The second backward gives what the first gave, or adds it; an object may refuse it aloud, as torch does."""
    obj, y = subject.run(primals)

    def pullback(delta: Any) -> Cotangents:
        before = _kept(subject.pull(obj, delta, primals))
        try:
            after = subject.pull(obj, delta, primals)
        except Exception:
            return before
        return _of_the_last(subject, before, after, before)

    return y, pullback


def second_step(subject: Subject, **primals: Array) -> tuple[Any, Pullback]:
    """Forward and backward on other data first: gradients are those of this step, or added to that one's."""
    obj = subject.made(primals)
    other = _elsewhere(subject, primals)
    y = subject.call_forward(obj, other)
    faint = tuple(np.asarray(FAINT * np.asarray(part)).astype(np.asarray(part).dtype) for part in as_tuple(y))
    before = _kept(subject.pull(obj, faint if isinstance(y, tuple | list) else faint[0], other))
    subject.clear(obj)
    y = subject.call_forward(obj, primals)

    def pullback(delta: Any) -> Cotangents:
        after = subject.pull(obj, delta, primals)
        if subject.flush is not None:
            return after
        return _of_the_last(subject, before, after, fresh(subject, **primals)[1](delta))

    return y, pullback


def _elsewhere(subject: Subject, primals: Primals) -> dict[str, Array]:
    """Return other inputs beside the same parameters; the same ones where the domain has no such."""
    moved = move_point({n: a for n, a in primals.items() if n not in subject.params})
    other = {n: moved.get(n, a) for n, a in primals.items()}
    try:
        subject.run(other)
    except Exception:
        return dict(primals)
    return other


def _of_the_last(subject: Subject, before: Cotangents, after: Cotangents, wanted: Cotangents) -> Cotangents:
    """Return the gradients of the last backward alone, where they are left on the object and accumulated."""
    found = dict(after)
    for n in subject.grads:
        if not all(isinstance(g.get(n), np.ndarray) for g in (before, after, wanted)):
            continue
        added = np.asarray(after[n] - before[n])
        closer = np.linalg.norm(np.ravel(added - wanted[n])) < np.linalg.norm(np.ravel(after[n] - wanted[n]))
        if subject.accumulates or (subject.accumulates is None and closer):
            found[n] = added
    return found


def _kept(cotangents: Cotangents) -> Cotangents:
    return {n: np.array(g) if isinstance(g, np.ndarray) else g for n, g in cotangents.items()}
