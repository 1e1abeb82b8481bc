"""What can be said of a subject that is not trusted, in the words that kernel benchmarks use."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """The outcome of a job.

    PASSED: at every point outputs and gradients differ from the reference by no more than rounding explains.
    WRONG_NUMERICS: rounding does not explain a difference, a gradient is missing, or an argument was overwritten.
    WRONG_SHAPE: an output or a gradient has another shape, or is no array.
    WRONG_DTYPE: an output or a gradient has another dtype than its primals.
    RUNTIME_ERROR: the subject cannot be loaded, raised, or ended its process.
    TIMEOUT: a call did not return in time.
    NOT_DETERMINISTIC: equal calls give different answers, and one of them is wrong.
    CHEATS: it did what was forbidden, or wrote something else than answers to the judge.
    NOT_JUDGED: nothing is known of it: a reference or the judge failed, or rounding hides every gradient.
    """

    PASSED = "PASSED"
    WRONG_NUMERICS = "WRONG_NUMERICS"
    WRONG_SHAPE = "WRONG_SHAPE"
    WRONG_DTYPE = "WRONG_DTYPE"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    TIMEOUT = "TIMEOUT"
    NOT_DETERMINISTIC = "NOT_DETERMINISTIC"
    CHEATS = "CHEATS"
    NOT_JUDGED = "NOT_JUDGED"
