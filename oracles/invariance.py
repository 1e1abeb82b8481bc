"""Properties on request: a row has the same bits in every batch and at every place, and a repeat gives the same bits.

    batch_invariant   f(z)[i] has the bits of f on row i alone, in another order, in a larger batch, above rows of zeros
    chunk_invariant   f(z)[i] has the bits of f on a chunk of the batch that contains row i
    deterministic     f(z) has the bits of f(z), in every repeat

f stands for the outputs and for the cotangents of the batched primals; the cotangents of all others are sums over the
rows, and not compared. A subject may be accurate and not invariant: then the verdict is `Verdict.NOT_INVARIANT`. A
difference that rounding does not explain is `Verdict.WRONG`.

Source: He and Thinking Machines Lab, "Defeating Nondeterminism in LLM Inference", 2025, for batch invariance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from oracles.constants import MOST_CHUNKS, REPEATS
from oracles.decision.type_errors import refuse
from oracles.evaluations import different, on_copies
from oracles.nondeterminism import cause_of_change
from oracles.notes import note, with_notes
from oracles.numerics import unit_roundoff
from oracles.options import INVARIANCES, did_you_mean
from oracles.rule import Array, Cotangents, InvalidInput, Output, Primals, Rule, as_tuple, is_differentiable
from oracles.self_consistency import Tolerance, compare_values, self_tolerance_at
from oracles.tolerance import named_outputs, values_of
from oracles.user_code import Raised, attempt
from oracles.verdict import SELF_CONSISTENCY, Evidence, Finding, Result, Setting, Verdict

# In a call, the number of a row of zeros, which stands in no batch.
ZEROS = -1


@dataclass(frozen=True)
class Rows:
    """The rows of one call.

    Attributes:
        numbers: the number that each has in the whole batch, or `ZEROS`.
        where: how they stand in the call, in words.
    """

    numbers: Array
    where: str

    def of(self, array: Array) -> Array:
        """Return these rows of an array, contiguous."""
        rows = np.ascontiguousarray(array[np.maximum(self.numbers, 0)])
        rows[self.numbers == ZEROS] = 0
        return rows


def _in_other_batches(n: int, blocks: Sequence[int]) -> Iterator[Rows]:
    every = np.arange(n)
    for i in dict.fromkeys((0, n // 2, n - 1)):
        yield Rows(every[i : i + 1], f"row {i} alone")
    yield Rows(every[::-1], "the rows in reverse order")
    # Row 0 stands in the middle, and the number of rows has grown.
    yield Rows(np.concatenate([every[::-1], every]), f"a batch of {2 * n} rows, below others")
    for size in dict.fromkeys((n + 1, 2 * n, *(-(-n // block) * block for block in blocks))):
        if size > n:
            padding = np.full(size - n, ZEROS)
            yield Rows(np.concatenate([every, padding]), f"the rows padded with zeros to {size}")


def _in_chunks(n: int, blocks: Sequence[int]) -> Iterator[Rows]:
    sizes = (-(-n // 2), -(-n // 3), 1 << ((n - 1).bit_length() - 1) if n > 1 else n, *blocks)
    for size in dict.fromkeys(size for size in sizes if 0 < size < n):
        starts = range(0, n, size)
        # Of many chunks, the first ones and the last, which may be shorter.
        for start in (*starts[: MOST_CHUNKS - 1], starts[-1]) if len(starts) > MOST_CHUNKS else starts:
            stop = min(start + size, n)
            yield Rows(np.arange(start, stop), f"rows {start} to {stop - 1} as a chunk of their own")


BATCH, CHUNK, DETERMINISTIC = INVARIANCES
_CALLS: Mapping[str, Callable[[int, Sequence[int]], Iterator[Rows]]] = {BATCH: _in_other_batches, CHUNK: _in_chunks}


def require_properties(where: str, properties: Sequence[str]) -> tuple[str, ...]:
    """Return the names of properties on request.

    Raises:
        InvalidInput: for a name that is none, or a text in place of several.
    """
    names = () if isinstance(properties, str) else tuple(properties)
    unknown = [name for name in names if name not in INVARIANCES]
    if isinstance(properties, str) or unknown:
        hint = did_you_mean(str(unknown[0]), INVARIANCES) if unknown else ""
        first = properties if isinstance(properties, str) and properties in INVARIANCES else INVARIANCES[0]
        raise InvalidInput(
            f"{where}: properties: expected some of {', '.join(INVARIANCES)}, got {properties!r:.80}{hint or '.'}\n"
            f"Fix:    properties=({first!r},)"
        )
    return names


def require_invariances(
    where: str, properties: Sequence[str], batched: Sequence[str], primals: Primals
) -> tuple[str, ...]:
    """Return the names of properties on request, of a subject whose rows are in the ``batched`` primals.

    Raises:
        InvalidInput: as `require_properties`; if a property compares rows and no primal is batched; for a batched
            primal that is unknown, or has other rows than the others.
    """
    names = require_properties(where, properties)
    fix = f"Fix:    batched={likely_batched(primals)}"
    if isinstance(batched, str) or (not batched and set(names) & set(_CALLS)):
        raise InvalidInput(
            f"{where}: batched: expected the names of the primals whose first axis holds independent rows, got "
            f"{batched!r}.\n{fix}"
        )
    unknown = [name for name in batched if name not in primals]
    if unknown:
        raise InvalidInput(
            f"{where}: batched: no primal {unknown[0]!r}{did_you_mean(unknown[0], primals) or '.'}\n{fix}"
        )
    rows = [len(primals[name]) if np.ndim(primals[name]) else None for name in batched]
    if len({*rows}) > 1 or None in rows:
        listed = ", ".join(f"{name} {list(np.shape(primals[name]))}" for name in batched)
        raise InvalidInput(f"{where}: batched: expected primals with equally many rows, got {listed}.\n{fix}")
    return names


def likely_batched(primals: Primals) -> tuple[str, ...]:
    """Return the primals with as many rows as the first floating one with two axes or more; else the first primal."""
    first = next((a for a in primals.values() if np.ndim(a) > 1 and is_differentiable(a)), None)
    if first is None:
        return tuple(primals)[:1]
    return tuple(n for n, a in primals.items() if np.ndim(a) and len(a) == len(first))


@with_notes
def invariance_result(name: str, setting: Setting, batched: Sequence[str], blocks: Sequence[int] = ()) -> Result:
    """Return the result of one property on request, with a finding for every array that is compared.

    Args:
        name: one of `INVARIANCES`.
        setting: the subject and the point.
        batched: the primals whose first axis holds independent rows.
        blocks: the sizes of the subject's tiles: batches are padded and cut to them too.
    """
    subject = on_copies(setting.subject)
    tolerance = self_tolerance_at(subject, setting.oracles, setting.primals, setting.delta, setting.numerics)
    if name == DETERMINISTIC:
        findings = _repeats(subject, setting.primals, setting.delta, tolerance)
    else:
        with np.errstate(all="ignore"):  # a row of zeros may be no point of the domain
            findings = _in_other_calls(name, replace(setting, subject=subject), batched, blocks, tolerance)
    return Result(setting.subject.name, name, tuple(findings), setting=setting)


def _in_other_calls(
    name: str, setting: Setting, batched: Sequence[str], blocks: Sequence[int], tolerance: Tolerance
) -> list[Finding]:
    """Compare the rows of the whole batch with the same rows of other calls."""
    subject, primals, delta = setting.subject, setting.primals, setting.delta
    rows = len(primals[batched[0]])
    if not rows:
        return []
    follows = _outputs_of_rows(subject, primals, delta, batched)
    whole = _answers(subject, primals, delta, batched, Rows(np.arange(rows), ""), follows)
    names = [*named_outputs(as_tuple(delta), {})]
    per_row = [n for n in whole if (n in batched if n in primals else follows[names.index(n)])]
    found: dict[str, Finding] = {}
    for call in _CALLS[name](rows, blocks):
        # A kernel may take whole tiles of rows alone.
        answers = attempt(partial(_answers, subject, primals, delta, batched, call, follows))
        if isinstance(answers, Raised):
            note(f"{name}: not compared with {call.where}: {type(answers.error).__name__}: {answers.error!s:.80}")
            continue
        for n in per_row:
            finding = _compared_rows(n, answers.get(n), whole[n], call, tolerance)
            found[n] = max(found.get(n, finding), finding, key=lambda f: f.gravity)
    return list(found.values())


def _has_rows(array: Any, rows: int) -> bool:
    return np.ndim(array) > 0 and len(array) == rows


def _outputs_of_rows(subject: Rule, primals: Primals, delta: Output, batched: Sequence[str]) -> list[bool]:
    """Return for each output whether its first axis grows with the batch; a sum over the rows has another one."""
    rows = len(primals[batched[0]])
    parts = [np.asarray(d) for d in as_tuple(delta)]
    one_more = Rows(np.append(np.arange(rows), 0), "")
    longer = attempt(lambda: as_tuple(subject(**_rows_of(primals, batched, one_more))[0]))
    if isinstance(longer, Raised) or len(longer) != len(parts):
        return [_has_rows(d, rows) for d in parts]
    return [_has_rows(d, rows) and _has_rows(y, rows + 1) for d, y in zip(parts, longer, strict=True)]


def _rows_of(primals: Primals, batched: Sequence[str], rows: Rows) -> dict[str, Array]:
    return {n: rows.of(a) if n in batched else a for n, a in primals.items()}


def _answers(
    subject: Rule, primals: Primals, delta: Output, batched: Sequence[str], rows: Rows, follows: Sequence[bool]
) -> Cotangents:
    """Return the outputs and cotangents of a call with some rows of the batch.

    ``follows`` says of each output whether its first axis is the batch; the cotangent of another one stays.
    """
    of_call = _rows_of(primals, batched, rows)
    parts = [rows.of(np.asarray(d)) if grows else d for d, grows in zip(as_tuple(delta), follows, strict=True)]
    return values_of(subject, of_call, tuple(parts) if isinstance(delta, tuple) else parts[0])


def _compared_rows(name: str, actual: Any, whole: Array, call: Rows, tolerance: Tolerance) -> Finding:
    """Compare the rows of one call with the same rows of the whole batch."""
    known = call.numbers != ZEROS
    numbers = call.numbers[known]
    expected = whole[numbers]
    if not _has_rows(actual, len(known)):
        got = "nothing" if actual is None else f"shape {np.shape(actual)}"
        return refuse(name, f"{call.where}: expected {len(known)} rows, got {got}")
    finding = _same_bits(name, np.asarray(actual)[known], expected, lambda n, s: tolerance(n, s)[numbers])
    if not finding.refuses:
        return finding
    index = finding.evidence.index
    if index:  # a dtype that changes is shown by no entry
        index = (int(numbers[index[0]]), *index[1:])
    batch = f"the batch of {len(whole)} rows"
    says = (
        f"{call.where}: other bits than in {batch}"
        if finding.verdict is Verdict.NOT_INVARIANT
        else f"{call.where}: another value than in {batch}, which no rounding explains: the rows are not independent"
    )
    return _explained(finding, says, batch, index)


def _repeats(subject: Rule, primals: Primals, delta: Output, tolerance: Tolerance) -> list[Finding]:
    """Compare repeated calls, each with two pullbacks, with the first one."""
    first = {n: np.array(a) for n, a in values_of(subject, primals, delta).items()}
    found = {n: Finding(n, SELF_CONSISTENCY, Verdict.AGREES) for n in first}
    for repeat in range(2, REPEATS + 1):
        y, pullback = subject(**primals)
        once = named_outputs(as_tuple(y), dict(pullback(delta)))
        for again in (once, dict(pullback(delta))):
            for n in again.keys() & first.keys():
                finding = _same_bits(n, again[n], first[n], tolerance)
                if finding.refuses:
                    within = finding.verdict is Verdict.NOT_INVARIANT
                    what = "other bits" if within else "another value, which no rounding explains"
                    says = f"call {repeat} with the same arguments gives {what}"
                    if not within:
                        says += f": {cause_of_change(subject, primals, delta, n).reason}"
                    finding = _explained(finding, says, "call 1", finding.evidence.index)
                found[n] = max(found[n], finding, key=lambda f: f.gravity)
    return list(found.values())


def _same_bits(name: str, actual: Any, expected: Any, tolerance: Tolerance) -> Finding:
    """Return AGREES for equal bits, NOT_INVARIANT for a difference within the tolerance, and WRONG for a larger one."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        of = [f"{a.dtype.name}{list(a.shape)}" for a in (actual, expected)]
        return refuse(name, f"{of[0]} against {of[1]}")
    differs = different(actual, expected)
    if not np.any(differs):
        return Finding(name, SELF_CONSISTENCY, Verdict.AGREES)
    finding = compare_values(name, actual, expected, tolerance, "")
    if finding.refuses:
        return finding
    units = _units_apart(actual, expected)
    index = np.unravel_index(int(np.argmax(np.where(differs, units, -1.0))), units.shape)
    evidence = Evidence(
        tuple(int(i) for i in index),
        float(actual[index]),
        {SELF_CONSISTENCY: float(expected[index])},
        refused=(int(np.count_nonzero(differs)), differs.size),
        reason=f"by up to {float(units[index]):.3g} units in the last place; rounding explains it",
    )
    return replace(finding, verdict=Verdict.NOT_INVARIANT, refuses=True, evidence=evidence)


def _explained(finding: Finding, says: str, against: str, index: tuple[int, ...]) -> Finding:
    """Return a refusal with its reason, and its entry at an index of the whole array."""
    evidence = finding.evidence
    count, size = evidence.refused
    entries = f", in {count} of {size} entries" if size else ""
    details = f", {evidence.reason}" if evidence.reason else ""
    oracles = dict(zip((against,), evidence.oracles.values(), strict=False))
    return replace(
        finding, evidence=replace(evidence, index=index, oracles=oracles, reason=f"{says}{entries}{details}")
    )


def _units_apart(a: Array, b: Array) -> Array:
    """Return the distances of two arrays in units in the last place of the larger number; 0 between equal entries."""
    unit = 2 * unit_roundoff(a.dtype)
    wide_a, wide_b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(all="ignore"):
        _, exponents = np.frexp(np.fmax(np.abs(wide_a), np.abs(wide_b)))
        distance = np.abs(wide_a - wide_b) / np.ldexp(unit, exponents - 1)
    return np.asarray(np.nan_to_num(distance, nan=0.0, posinf=np.inf))
