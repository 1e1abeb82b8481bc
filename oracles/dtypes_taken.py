"""Tell a subject that does not take a dtype from one that fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from oracles.missing import MissingPackage, NotTaken
from oracles.options import ALL_DTYPES
from oracles.rule import Rule
from oracles.strategies import Point
from oracles.tolerance import values_of
from oracles.user_code import Raised, attempt

# What an exception says that is about a dtype; torch calls float16 Half.
_NAMES_A_DTYPE = re.compile(r"dtype|data type|float16|\bhalf\b|scalar type", re.IGNORECASE)


def require_taken(subject: Rule, point_in: Callable[[str], Point], dtype: str, error: Exception) -> None:
    """Require that what a subject raised is not about the dtype of a search in half precision.

    It is if the exception is a type error or names a dtype, and the subject runs at the same point in another dtype.
    What needs float64, as finite differences do, is skipped for a subject that takes half precision alone.

    Args:
        subject: the subject.
        point_in: gives the point in a dtype.
        dtype: that of the search.
        error: what was raised.

    Raises:
        NotTaken: if it is about the dtype, or about float64.
    """
    about_type = isinstance(error, TypeError | NotImplementedError) or _NAMES_A_DTYPE.search(str(error))
    if not about_type or isinstance(error, MissingPackage):
        return

    def runs_in(name: str) -> bool:
        point = attempt(partial(point_in, name))
        if isinstance(point, Raised):
            return False
        return not isinstance(attempt(partial(values_of, subject, point.primals, point.delta)), Raised)

    refused = next((name for name in (dtype, "float64") if not runs_in(name)), None)
    if refused is not None and any(runs_in(name) for name in ALL_DTYPES if name != refused):
        raise NotTaken(subject.name, refused, error) from error
