"""A result as text that reads like a good bug report, and as JSON."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import numpy as np

from oracles.constants import MORE_SAMPLES
from oracles.decision.type_errors import CALL, is_array
from oracles.diagnosis.fitting import fitting_declaration
from oracles.rule import Array, Enclosure, as_tuple, with_dtype
from oracles.tolerance import named_outputs, tolerance_at
from oracles.verdict import Finding, Result, Verdict

WIDTH = 100
NOTHING = "no pattern found"
# Faces that show no exception say here how they reproduce it.
REPRODUCE = "  reproduce: this exception's script() is a stand-alone file; to_json() has every number"


def text(result: Result, diagnosis: str) -> str:
    """Return the report of a result in at most 25 lines: subject, what, where, values, who agrees, the defect."""
    worst = result.worst
    if worst is None:
        return f"{result.subject}: nothing was judged"
    lines = [
        f"{_cut(result.subject, 60)}: {worst.verdict.upper()} in {_what(worst.quantity)}  [{result.property_name}]"
    ]
    lines += _entry(worst)
    lines += [f"  fix:    {line}" for line in worst.evidence.fix.splitlines()]
    if worst.oracle != "self-consistency" or diagnosis != NOTHING:
        lines += _wrapped("diagnosis: ", diagnosis)
    others = [f for f in result.findings if (f.quantity, f.oracle) != (worst.quantity, worst.oracle)]
    lines += _wrapped("also refused: ", _listed([f for f in others if f.refuses]))
    lines += _wrapped("accepted: ", _listed([f for f in others if not f.refuses]))
    if result.not_claimed:
        lines += _wrapped("no gradient claimed, nothing judged: ", ", ".join(result.not_claimed))
    for note in result.notes:
        lines += _wrapped("note: ", note)
    if result.setting is not None:
        lines += _wrapped("at: ", _point(result))
        lines.append(REPRODUCE)
    return "\n".join(lines[:25])


def _entry(finding: Finding) -> list[str]:
    evidence = finding.evidence
    lines = _wrapped("", evidence.reason) if evidence.reason else []
    if evidence.subject is None:
        return lines
    where = f"[{', '.join(map(str, evidence.index))}]" if evidence.index else ""
    lines.append(f"  {finding.quantity}{where}")
    rows = [("subject", f"{evidence.subject!r}")]
    rows += [(oracle, f"{value!r}") for oracle, value in evidence.oracles.items()]
    if evidence.enclosure is not None:
        rows = [
            r if r[0] != "exact" else ("exact", f"{evidence.enclosure[0]!r} ± {evidence.enclosure[1]:.1g}")
            for r in rows
        ]
    width = max(len(name) for name, _ in rows)
    lines += [f"    {name:<{width}}  {value}" for name, value in rows]
    if evidence.tolerance is not None:
        lines.append(f"  rounding allows {evidence.tolerance:.2g} here; the error is {finding.ratio:.3g} times that")
        lines.append(f"  {evidence.refused[0]} of {evidence.refused[1]} entries refused by {finding.oracle}")
    return lines


def _point(result: Result) -> str:
    assert result.setting is not None
    shapes = [f"{n} {np.asarray(a).dtype}{list(np.shape(a))}" for n, a in result.setting.primals.items()]
    return ", ".join(shapes) + f"; judged in {result.setting.precision}"


def _wrapped(label: str, body: str) -> list[str]:
    if not body:
        return []
    return textwrap.wrap(label + body, WIDTH - 4, initial_indent="  ", subsequent_indent="    ", max_lines=4)


def _listed(findings: list[Finding], most: int = 6) -> str:
    by_quantity: dict[str, list[str]] = {}
    for f in findings:
        note = f.oracle if f.verdict in (Verdict.AGREES, Verdict.WRONG) else f"{f.oracle} ({f.verdict})"
        if note not in by_quantity.setdefault(f.quantity, []):
            by_quantity[f.quantity].append(note)
    items = [f"{quantity} by {' and '.join(oracles)}" for quantity, oracles in by_quantity.items()]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _what(quantity: str) -> str:
    whole = re.fullmatch(rf"(output|delta)(\[\d+\])?|cotangents|⟨.*|the primal .*|{CALL}", quantity)
    return quantity if whole else f"the cotangent of {quantity}"


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def document(result: Result, diagnosis: str) -> dict[str, Any]:
    """Return a result as what JSON can hold; arrays as shape, dtype and hex floats, exact to the last bit."""
    worst = result.worst
    found: dict[str, Any] = {
        "schema": 1,
        "subject": result.subject,
        "property": result.property_name,
        "verdict": str(worst.verdict if worst else result.verdict),
        "diagnosis": diagnosis,
        "not_claimed": list(result.not_claimed),
        "notes": list(result.notes),
        "findings": [_finding(f) for f in result.findings],
    }
    if result.setting is not None:
        found["precision"] = result.setting.precision
        found["primals"] = {n: _array(np.asarray(a)) for n, a in result.setting.primals.items()}
        found["delta"] = [_array(np.asarray(d)) for d in as_tuple(result.setting.delta)]
    return found


def _finding(finding: Finding) -> dict[str, Any]:
    e = finding.evidence
    return {
        "quantity": finding.quantity,
        "oracle": finding.oracle,
        "verdict": str(finding.verdict),
        "refuses": finding.refuses,
        "ratio": number(finding.ratio),
        "detects_above": number(finding.detects_above),
        "index": list(e.index),
        "subject": number(e.subject),
        "oracles": {o: number(v) for o, v in e.oracles.items()},
        "tolerance": number(e.tolerance),
        "enclosure": None if e.enclosure is None else [number(v) for v in e.enclosure],
        "refused": list(e.refused),
        "reason": e.reason,
        "fix": e.fix,
    }


def number(value: float | None) -> float | str | None:
    """JSON has no infinities and no NaN: they become strings."""
    return value if value is None or np.isfinite(value) else str(float(value))


def _array(array: Array) -> dict[str, Any]:
    plain = array.astype(np.float64).ravel().tolist() if array.dtype.kind not in "iub" else array.ravel().tolist()
    values = [v.hex() if isinstance(v, float) else v for v in plain]
    return {"shape": list(array.shape), "dtype": array.dtype.name, "values": values}


def diagnosis_of(result: Result) -> str:
    """Name the defect behind the gravest refused cotangent or output, or say that no pattern was found."""
    from oracles.diagnosis.naming import Symptoms, diagnose

    declaration = fitting_declaration(result)
    if declaration:
        return declaration
    worst, setting = result.worst, result.setting
    references = [o for o in setting.oracles if o.evaluate_perturbed is not None] if setting else []
    if worst is None or setting is None or not references:
        return NOTHING
    primals, delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    try:
        y, pullback = setting.subject(**setting.primals)
        got = named_outputs(as_tuple(y), dict(pullback(setting.delta)))
        wy, wanted_pullback = references[0](**primals)
        want = named_outputs(as_tuple(wy), dict(wanted_pullback(delta)))
    except Exception:  # an output of another shape, say: its delta does not fit the reference
        return NOTHING
    if worst.quantity not in want or not is_array(got.get(worst.quantity, np.zeros(0))):
        return NOTHING
    allowed = tolerance_at(references, primals, delta, setting.precision, fallback=setting.subject).estimate(
        MORE_SAMPLES
    )
    target = want[worst.quantity]
    return str(
        diagnose(
            Symptoms(
                name=worst.quantity,
                got=got.get(worst.quantity),
                want=np.asarray(target.mid if isinstance(target, Enclosure) else target, np.float64),
                allowed=allowed[worst.quantity],
                primals=primals,
                delta=setting.delta,
                subject=setting.subject,
                oracle=references[0],
                primal_agrees=not any(f.refuses and f.quantity.startswith("output") for f in result.findings),
                precision=setting.precision,
            )
        )
    )
