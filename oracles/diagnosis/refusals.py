"""Diagnose a refused result: gather the symptoms of its gravest findings at the point of the refusal."""

from __future__ import annotations

import numpy as np

from oracles.constants import MORE_SAMPLES
from oracles.decision.type_errors import is_array
from oracles.diagnosis.experiments import Symptoms, evaluate, midpoint, result_or_none
from oracles.diagnosis.fitting import fitting_declaration
from oracles.diagnosis.ordered_patterns import NO_PATTERN_FOUND, Diagnosis, diagnose
from oracles.rule import with_dtype
from oracles.tolerance import tolerance_at
from oracles.verdict import Result


def diagnosis_of(result: Result) -> Diagnosis:
    """Return the defect behind the gravest refused array, or ``NO_PATTERN_FOUND``.

    If that is an output without a known pattern, its gravest refused cotangent is diagnosed instead.
    """
    declaration = fitting_declaration(result)
    if declaration:
        return Diagnosis("declaration", declaration)
    gravest = sorted(result.findings, key=lambda f: f.gravity, reverse=True)[:1]
    if gravest and not gravest[0].is_cotangent:
        cotangents = [f for f in result.findings if f.refuses and f.is_cotangent]
        gravest += sorted(cotangents, key=lambda f: f.gravity, reverse=True)[:1]
    for finding in gravest:
        symptoms = symptoms_of(result, finding.quantity)
        diagnosis = diagnose(symptoms) if symptoms is not None else NO_PATTERN_FOUND
        if diagnosis:
            return diagnosis
    return NO_PATTERN_FOUND


def symptoms_of(result: Result, quantity: str) -> Symptoms | None:
    """Return the symptoms of one array; ``None`` if its values cannot be compared with a reference."""
    setting = result.setting
    references = [o for o in setting.oracles if o.evaluate_perturbed is not None] if setting else []
    if setting is None or not references:
        return None
    primals, delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    # An output of another shape, for example: its delta does not fit the reference, which raises.
    actual = result_or_none(lambda: evaluate(setting.subject, setting.primals, setting.delta))
    expected = result_or_none(lambda: evaluate(references[0], primals, delta))
    if actual is None or expected is None or quantity not in expected:
        return None
    value = actual.get(quantity)
    if quantity in actual and not is_array(value):
        return None
    estimator = tolerance_at(references, primals, delta, setting.precision, fallback=setting.subject)
    return Symptoms(
        name=quantity,
        actual=None if value is None else np.asarray(value),
        expected=midpoint(expected[quantity]),
        tolerance=estimator.estimate(MORE_SAMPLES)[quantity],
        primals=primals,
        delta=setting.delta,
        subject=setting.subject,
        oracle=references[0],
        primal_agrees=not any(f.refuses and f.quantity.startswith("output") for f in result.findings),
        precision=setting.precision,
    )
