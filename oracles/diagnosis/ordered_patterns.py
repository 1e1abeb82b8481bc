"""The ordered list of patterns, and `diagnose`, which returns the first that fits.

A diagnosis is never a guess: its pattern holds in every entry within the tolerance, and again in the experiments of
`oracles.diagnosis.experiments`. If no pattern does, the diagnosis says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from oracles.diagnosis.arrays import agrees
from oracles.diagnosis.experiments import Symptoms, result_or_none
from oracles.diagnosis.patterns import (
    calls,
    coarse_precision,
    error_terms,
    factors,
    locations,
    rearrangements,
    reductions,
    wrong_entries,
)
from oracles.diagnosis.patterns.incoming_delta import block_diagonal, changed_delta_pattern, delta_ignored
from oracles.diagnosis.patterns.rearrangements import rearrangement_pattern
from oracles.diagnosis.patterns.special_values import special_value_pattern

Pattern: TypeAlias = Callable[[Symptoms], str | None]


@dataclass(frozen=True)
class Diagnosis:
    """The defect behind a refusal; false where no pattern was found.

    Attributes:
        pattern: the id of the pattern, "" where none was found.
        text: a sentence for a bug report.
    """

    pattern: str = ""
    text: str = "no pattern found"

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.pattern)


NO_PATTERN_FOUND = Diagnosis()

# The order matters. What makes all other comparisons meaningless comes first (nothing returned, another answer every
# time, a wrong forward). Then an exact claim on the whole array comes before a vaguer one that would hold as well: a
# transpose before a permutation, a factor with a meaning before one factor per slice, special values before locations.
PATTERNS: tuple[tuple[str, Pattern], ...] = (
    ("missing", calls.missing),
    ("not_repeatable", calls.not_repeatable),
    ("backward_of_own_forward", calls.backward_of_own_forward),
    ("all_zero", calls.all_zero),
    ("not_reduced", reductions.not_reduced),
    ("shape", rearrangement_pattern("shape")),
    ("transposed", rearrangement_pattern("transposed")),
    ("constant_factor", factors.constant_factor),
    ("delta_ones", changed_delta_pattern("delta_ones")),
    ("delta_ignored", delta_ignored),
    ("other_name", calls.other_name),
    ("reversed", rearrangement_pattern("reversed")),
    ("reshaped", rearrangement_pattern("reshaped")),
    ("shifted", rearrangement_pattern("shifted")),
    ("permuted", rearrangements.permuted),
    ("reduced_too_far", reductions.reduced_too_far),
    ("delta_abs", changed_delta_pattern("delta_abs")),
    ("delta_positive", changed_delta_pattern("delta_positive")),
    ("delta_sign", changed_delta_pattern("delta_sign")),
    ("delta_squared", changed_delta_pattern("delta_squared")),
    ("delta_summed", changed_delta_pattern("delta_summed")),
    ("delta_rearranged", changed_delta_pattern("delta_rearranged")),
    ("repeated_indices", changed_delta_pattern("repeated_indices")),
    ("primal_transposed", calls.primal_transposed),
    ("repeated_indices", factors.divided_by_count),
    ("zeros", special_value_pattern("zeros")),
    ("masked", special_value_pattern("masked")),
    ("ties", special_value_pattern("ties")),
    ("signs", special_value_pattern("signs")),
    ("repeated_indices", special_value_pattern("repeated_indices")),
    ("delta_first_only", changed_delta_pattern("delta_first_only")),
    ("term_missing", changed_delta_pattern("term_missing")),
    ("delta_clipped", changed_delta_pattern("delta_clipped")),
    ("added_constant", error_terms.added_constant),
    ("added_array", error_terms.added_array),
    ("known_factor", factors.known_factor),
    ("clipped", wrong_entries.clipped),
    ("saturated", special_value_pattern("saturated")),
    ("wrong_only_in_locations", locations.wrong_only_in_locations),
    ("factor_per_group", factors.factor_per_group),
    ("zero_in_some", wrong_entries.zero_in_some),
    ("sign_of_some", wrong_entries.sign_of_some),
    ("block_diagonal", block_diagonal),
    ("term_along_axis", error_terms.term_along_axis),
    ("coarse_rounding", coarse_precision.coarse_rounding),
)


def diagnose(symptoms: Symptoms) -> Diagnosis:
    """Return the first pattern that fits the whole array, or ``NO_PATTERN_FOUND``.

    A pattern that raises is skipped: a diagnosis must not replace the refusal that it explains.
    """
    actual, expected = symptoms.actual, symptoms.expected
    if actual is not None and (not expected.size or agrees(actual, expected, symptoms.tolerance)):
        return NO_PATTERN_FOUND
    with np.errstate(all="ignore"):
        for name, pattern in PATTERNS:
            sentence = result_or_none(partial(pattern, symptoms))
            if sentence:
                return Diagnosis(name, sentence)
    return NO_PATTERN_FOUND
