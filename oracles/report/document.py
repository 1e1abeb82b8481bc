"""A result as a JSON document."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from oracles.rule import Array, as_tuple
from oracles.verdict import Finding, Result

SCHEMA = 1  # raised whenever a key changes its name or meaning

Json: TypeAlias = dict[str, Any]  # what json.dumps accepts


def document(result: Result, diagnosis: str) -> Json:
    """Return a result in the types of JSON; arrays as shape, dtype and hex floats, exact to the last bit."""
    worst = result.worst
    contents: Json = {
        "schema": SCHEMA,
        "subject": result.subject,
        "property": result.property_name,
        "verdict": str(worst.verdict if worst else result.verdict),
        "diagnosis": diagnosis,
        "not_claimed": list(result.not_claimed),
        "notes": list(result.notes),
        "findings": [_finding(finding) for finding in result.findings],
    }
    if result.setting is not None:
        contents["precision"] = result.setting.precision
        contents["primals"] = {n: _array(np.asarray(a)) for n, a in result.setting.primals.items()}
        contents["delta"] = [_array(np.asarray(d)) for d in as_tuple(result.setting.delta)]
    return contents


def _finding(finding: Finding) -> Json:
    evidence = finding.evidence
    return {
        "quantity": finding.quantity,
        "oracle": finding.oracle,
        "verdict": str(finding.verdict),
        "refuses": finding.refuses,
        "ratio": number(finding.ratio),
        "detects_above": number(finding.detects_above),
        "index": list(evidence.index),
        "subject": number(evidence.subject),
        "oracles": {name: number(value) for name, value in evidence.oracles.items()},
        "tolerance": number(evidence.tolerance),
        "enclosure": None if evidence.enclosure is None else [number(value) for value in evidence.enclosure],
        "refused": list(evidence.refused),
        "reason": evidence.reason,
        "fix": evidence.fix,
    }


def number(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: infinities and NaN, which JSON lacks, become strings."""
    return value if value is None or np.isfinite(value) else str(float(value))


def _array(array: Array) -> Json:
    integers = array.dtype.kind in "iub"
    values = array.ravel().tolist() if integers else [v.hex() for v in array.astype(np.float64).ravel().tolist()]
    return {"shape": list(array.shape), "dtype": array.dtype.name, "values": values}
