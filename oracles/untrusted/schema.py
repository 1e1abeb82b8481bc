"""The JSON of jobs and judgements, as JSON Schema (draft 2020-12), and their validation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from oracles.rule import InvalidInput
from oracles.untrusted.statuses import Status

SCHEMA_VERSION = 1
_NAMES = {"type": "array", "items": {"type": "string"}}
_CASE = {
    "type": "object",
    "properties": {
        "shapes": {"type": "string", "minLength": 1},
        "primals": {"type": "string", "minLength": 1},
        "extents": {
            "type": "object",
            "additionalProperties": {
                "type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**24}, "minItems": 1,
            },
        },
        "dtypes": {**_NAMES, "minItems": 1},
        "points": {"type": "integer", "minimum": 1, "maximum": 1000},
        "wrt": _NAMES,
        "kinks": {"enum": ["any", "declared"]},
        "precision": {"type": "string"},
        "declared": {"type": "object"},
    },
    "oneOf": [{"required": ["shapes"]}, {"required": ["primals"]}],
    "additionalProperties": False,
}  # fmt: skip
CASES: Mapping[str, Any] = {"type": "array", "items": _CASE, "minItems": 1}
CASES_FILE: Mapping[str, Any] = {
    "type": "object", "properties": {"cases": CASES}, "required": ["cases"], "additionalProperties": False,
}  # fmt: skip
JOB: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "a job of oracles judge --batch, one line of JSON",
    "type": "object",
    "properties": {
        "id": {"type": ["string", "integer"]},
        "subject": {"type": "string", "minLength": 1},
        "source": {"type": "string"},
        "reference": {"anyOf": [{"type": "string", "minLength": 1}, {**_NAMES, "minItems": 1}]},
        "cases": {"anyOf": [CASES, {"type": "string", "minLength": 1}]},
        "seconds": {"type": "number", "exclusiveMinimum": 0},
        "memory_mb": {"type": "integer", "minimum": 16},
        "processes": {"type": "integer", "minimum": 1},
        "forbid": _NAMES,
        "seed": {"type": "integer", "minimum": 0},
        "diagnosis": {"type": "boolean"},
    },
    "required": ["subject", "reference", "cases"],
    "additionalProperties": False,
}
_POINT = {
    "type": "object",
    "properties": {
        "case": {"type": "integer"},
        "point": {"type": "integer"},
        "dtype": {"type": "string"},
        "shapes": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}}},
        "verdict": {"type": "string"},
        "ratio": {"type": ["number", "string"]},
        "detects_above": {"type": ["number", "string"]},
        "judged": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["case", "point", "dtype", "shapes", "verdict"],
    "additionalProperties": False,
}
JUDGEMENT: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "a judgement of oracles judge",
    "type": "object",
    "properties": {
        "schema": {"const": SCHEMA_VERSION},
        "id": {"type": ["string", "integer", "null"]},
        "job": {"type": ["string", "null"]},
        "subject": {"type": "string"},
        "reference": _NAMES,
        "status": {"enum": [str(status) for status in Status]},
        "reason": {"type": "string"},
        "verdict": {"type": "string"},
        "diagnosis": {"type": "string"},
        "points": {"type": "array", "items": _POINT},
        "calls": {"type": "integer"},
        "protections": _NAMES,
        "seed": {"type": "integer"},
        "seconds": {"type": "number"},
        "versions": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": [
        "schema", "id", "job", "subject", "reference", "status", "reason", "verdict", "diagnosis", "points", "calls",
        "protections", "seed", "seconds", "versions",
    ],
    "additionalProperties": False,
}  # fmt: skip


SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "cases": CASES, "cases file": CASES_FILE, "job": JOB, "judgement": JUDGEMENT,
}  # fmt: skip


def require_valid(value: Any, schema: str, what: str) -> None:
    """Require that a value of JSON fits a schema of `SCHEMAS`.

    Raises:
        InvalidInput: if it does not; ``what`` begins the message, which says where, and what was expected.
    """
    from jsonschema.exceptions import best_match

    error = best_match(_validator(schema).iter_errors(value))
    if error is not None:
        where = "".join(f"[{step!r}]" for step in error.absolute_path)
        either = [n for each in error.validator_value for n in each["required"]] if error.validator == "oneOf" else []
        message = f"expected either {' or '.join(either)}" if either else error.message[:300]
        raise InvalidInput(f"{what}{where}: {message}")


@lru_cache
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator  # it takes 0.1 s to load

    return Draft202012Validator(SCHEMAS[schema])
