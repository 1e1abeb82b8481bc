"""What is skipped, and why: a package that is not installed, or a dtype that a subject does not take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import NamedTuple

from oracles.rule import InvalidInput


class _Source(NamedTuple):
    """The distribution that has a module, and the extra of this package that installs it."""

    distribution: str
    extra: str


# By the name to import.
SOURCES: Mapping[str, _Source] = {
    "torch": _Source("torch", "torch"),
    "jax": _Source("jax", "jax"),
    "jaxlib": _Source("jax", "jax"),
    "flint": _Source("python-flint", "exact"),
    "shtab": _Source("shtab", "completion"),
    "jinja2": _Source("Jinja2", "report"),
    "redis": _Source("redis", "campaign"),
    "distributed": _Source("distributed", "campaign"),
    "ray": _Source("ray", "ray"),
    **{name: _Source(name, "oracles") for name in ("hypothesis", "rich", "cloudpickle")},
    "ml_dtypes": _Source("ml-dtypes", "oracles"),
}


@dataclass(frozen=True)
class Missing:
    """A package that is not installed or cannot be imported, or a dtype that a subject does not take.

    Attributes:
        package: the name of its distribution, or that of the dtype.
        reason: what is wrong, in words.
        fix: the command that installs it, or another way out.
        dtype: the dtype, if it is about one.
    """

    package: str
    reason: str
    fix: str
    dtype: str = ""

    def __str__(self) -> str:
        return f"{self.reason}.\nFix:    {self.fix}"

    @property
    def line(self) -> str:
        """Reason and fix in one line."""
        return f"{self.reason}: {self.fix}"


class MissingPackage(InvalidInput):
    """Nothing could be judged, since packages are missing: no verdict, and the run is skipped.

    Attributes:
        missing: the packages.
    """

    def __init__(self, missing: Iterable[Missing], what: str = "") -> None:
        self.missing = tuple(missing)
        super().__init__(what + "\n".join(map(str, self.missing)))


class NotTaken(MissingPackage):
    """A subject raises a type error for arrays of a dtype, and for those of another one it does not: no verdict."""

    def __init__(self, name: str, dtype: str, error: BaseException) -> None:
        line = str(error).partition("\n")[0]
        reason = f"{name} does not take {dtype} ({type(error).__name__}: {line:.160})"
        super().__init__([Missing(dtype, reason, f"leave {dtype} out of the dtypes, or let the code take it", dtype)])


@lru_cache(maxsize=16)
def missing_module(name: str) -> Missing | None:
    """Import a module of `SOURCES`, and return what is missing if that fails."""
    try:
        import_module(name)
    except ImportError as error:  # not installed, or one of its own libraries is not
        return describe_missing(name, error)
    return None


def describe_missing(name: str, error: ImportError) -> Missing:
    """Return what is missing, given the module of `SOURCES` whose import failed."""
    source = SOURCES[name]
    absent = isinstance(error, ModuleNotFoundError) and error.name in (None, *SOURCES)
    reason = f"{source.distribution} is not installed" if absent else f"{source.distribution} cannot be imported"
    return Missing(
        source.distribution,
        reason if absent else f"{reason} ({type(error).__name__}: {error})",
        f"pip install 'manual-bp[{source.extra}]'",
    )


def missing_of(error: BaseException | None) -> Missing | None:
    """Return the missing package that an exception, or what caused it, is about; ``None`` if it is about none."""
    while error is not None:
        if isinstance(error, MissingPackage):
            return error.missing[0]
        name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if isinstance(error, ModuleNotFoundError) and name in SOURCES:
            return describe_missing(name, error)
        error = error.__cause__
    return None
