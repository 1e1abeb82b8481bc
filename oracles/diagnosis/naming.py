"""Name the defect behind a refused cotangent, or say that no pattern was found: never a guess.

A pattern is a function ``Symptoms -> str | None``: the sentence for a bug report, or ``None``. It holds for the whole
array within what rounding allows, and again under a second random delta. PATTERNS is ordered, the most telling first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from oracles.diagnosis.experiments import Symptoms as Symptoms
from oracles.diagnosis.experiments import fits
from oracles.diagnosis.patterns import cotangents as by_cotangent
from oracles.diagnosis.patterns import errors as by_error
from oracles.diagnosis.patterns import locations as by_location
from oracles.diagnosis.patterns import values as by_value

Pattern: TypeAlias = Callable[[Symptoms], str | None]


@dataclass(frozen=True)
class Diagnosis:
    """What was found: the id of a pattern and a sentence for a bug report. False where nothing was."""

    pattern: str = ""
    text: str = "no pattern found"

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.pattern)


NOTHING = Diagnosis()

PATTERNS: tuple[tuple[str, Pattern], ...] = (
    ("missing", by_value.missing),
    ("not_repeatable", by_cotangent.not_repeatable),
    ("backward_of_own_forward", by_cotangent.backward_of_own_forward),
    ("all_zero", by_value.all_zero),
    ("not_reduced", by_value.not_reduced),
    *((kind, by_value.rearrangement(kind)) for kind in ("shape", "transposed")),
    ("constant_factor", by_value.constant_factor),
    ("delta_ones", by_cotangent.of_another_delta("delta_ones")),
    ("delta_ignored", by_cotangent.delta_ignored),
    ("other_name", by_value.other_name),
    *((kind, by_value.rearrangement(kind)) for kind in ("reversed", "reshaped", "shifted")),
    ("permuted", by_value.permuted),
    ("reduced_too_far", by_value.reduced_too_far),
    *(
        (kind, by_cotangent.of_another_delta(kind))
        for kind in (
            "delta_abs",
            "delta_positive",
            "delta_sign",
            "delta_squared",
            "delta_summed",
            "delta_rearranged",
            "repeated_indices",
        )
    ),
    ("primal_transposed", by_cotangent.primal_transposed),
    ("repeated_indices", by_location.repeated_divided),
    *(
        (kind, by_location.wrong_only_at_values(kind))
        for kind in ("zeros", "masked", "ties", "signs", "repeated_indices")
    ),
    *((kind, by_cotangent.of_another_delta(kind)) for kind in ("delta_first_only", "term_missing", "delta_clipped")),
    ("added_constant", by_error.added_constant),
    ("added_array", by_error.added_array),
    ("known_factor", by_error.known_factor),
    ("clipped", by_location.clipped),
    ("saturated", by_location.wrong_only_at_values("saturated")),
    ("wrong_only_in_places", by_location.wrong_only_in_places),
    ("factor_per_group", by_value.factor_per_group),
    ("zero_in_some", by_location.zero_in_some),
    ("sign_of_some", by_location.sign_of_some),
    ("block_diagonal", by_cotangent.block_diagonal),
    ("term_along_axis", by_error.term_along_axis),
    ("coarse_rounding", by_error.coarse_rounding),
)


def diagnose(symptoms: Symptoms) -> Diagnosis:
    """Return the first pattern that fits the whole array, or "no pattern found"."""
    got, want = symptoms.got, symptoms.want
    if got is not None and (not want.size or fits(got, want, symptoms.allowed)):
        return NOTHING
    with np.errstate(all="ignore"):
        found = ((name, _tried(pattern, symptoms)) for name, pattern in PATTERNS)
        return next((Diagnosis(name, sentence) for name, sentence in found if sentence), NOTHING)


def _tried(pattern: Pattern, symptoms: Symptoms) -> str | None:
    try:
        return pattern(symptoms)
    except Exception:  # third-party code runs inside: a diagnosis must not replace the refusal that it explains
        return None
