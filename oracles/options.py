"""The options that pytest and the ``oracles`` command share: their names, their defaults and their parsers."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

FRAMEWORK_NAMES = ("torch", "jax")
# The dtypes of a search that names none, and all that a search can draw.
DTYPE_NAMES = ("float64", "float32")
HALF_NAMES = ("float16", "bfloat16")
ALL_DTYPES = (*DTYPE_NAMES, *HALF_NAMES)
# The properties that are judged on request alone, see `oracles.invariance`.
INVARIANCES = ("batch_invariant", "chunk_invariant", "deterministic")
# What of the derivatives is judged: the pullback, the forward mode, or both.
Mode: TypeAlias = Literal["vjp", "jvp", "both"]
MODES: tuple[Mode, ...] = ("vjp", "jvp", "both")
# The properties of the second order and of the forward mode, see `oracles.properties`.
SECOND_ORDER, FORWARD_MODE = ("second_order_agrees", "hessian_is_symmetric"), "tangents_agree"
# Who keeps the workers of a campaign alive, see `oracles.campaign.engines`.
ENGINES = ("local", "ray", "dask")
# The least size of a block: an axis of one entry has no tile.
LEAST_BLOCK = 2
# Stands for `ALL_DTYPES` on a command line.
ALL = "all"
# Precedes the names of our user_properties, since other plugins write some too.
PREFIX = "oracles."
# Points for each property and dtype: a look in passing, an ordinary run, a run over night.
PROFILES: Mapping[str, int] = {"quick": 20, "default": 100, "thorough": 2000}
# Points of `oracles verify`, the first command that a newcomer runs, which should answer in a minute or two.
VERIFY_POINTS = 30


@dataclass(frozen=True)
class SearchOptions:
    """The options of a search on a command line; ``None`` if one is not given.

    An option overrides the argument of a decorator, and that overrides the profile. Without any of them the loaded
    Hypothesis profile decides the number of points. ``climb`` and ``keep`` are those of `oracles.search.run_search`.
    """

    against: tuple[str, ...] | None = None
    max_examples: int | None = None
    seed: int | None = None
    profile: str | None = None
    seconds: int | None = None
    blocks: tuple[int, ...] = ()
    properties: tuple[str, ...] = ()
    climb: int = 0
    keep: bool = False

    def points(self, of_decorator: int | None = None) -> int | None:
        """Return the number of points of a search, given its decorator's; ``None`` leaves it to Hypothesis."""
        return self.max_examples or of_decorator or (PROFILES[self.profile] if self.profile else None)


NO_OPTIONS = SearchOptions()


def derivative_properties(order: int, mode: Mode) -> tuple[str, ...]:
    """Return the names of the properties that a search judges for an order and a mode."""
    return (*(SECOND_ORDER if order == 2 else ()), *((FORWARD_MODE,) if mode != "vjp" else ()))


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return "; did you mean NAME?" of the known name that is closest to a word, in whatever case; "" if none is."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(by_lower), 1)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def some_of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of names separated by commas, for argparse's and pytest's ``type=``."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        unknown = [name for name in names if name not in known]
        if not names or unknown:
            hint = "".join(did_you_mean(name, known) for name in unknown[:1])
            expected = f"expected some of {', '.join(known)}, separated by commas"
            raise argparse.ArgumentTypeError(f"{expected}, got {text!r}{hint}")
        return names

    return parse


def dtypes_of(text: str) -> tuple[str, ...]:
    """Parse names of dtypes separated by commas, or ``all``, for argparse's and pytest's ``type=``."""
    names = some_of((*ALL_DTYPES, ALL))(text)
    return ALL_DTYPES if ALL in names else tuple(dict.fromkeys(names))


def duration(text: str) -> float:
    """Parse a time such as 8h, 1h30m or 90s into seconds, for argparse's ``type=``."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    seconds = sum(int(n or 0) * unit for n, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    if not seconds:
        raise argparse.ArgumentTypeError(f"expected a time such as 8h, 1h30m or 90s, got {text!r}")
    return float(seconds)


def block_sizes(text: str) -> tuple[int, ...]:
    """Parse sizes of blocks separated by commas, for argparse's and pytest's ``type=``."""
    parse = at_least(LEAST_BLOCK)
    return tuple(sorted({parse(size.strip()) for size in text.split(",")}))


def names_of(what: str) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of any names separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not names:
            raise argparse.ArgumentTypeError(f"expected {what}, separated by commas, got {text!r}")
        return names

    return parse


def names_or_positions(text: str) -> tuple[str | int, ...]:
    """Parse names and whole numbers, separated by commas."""
    return tuple(int(n) if n.isdigit() else n for n in names_of("names or positions")(text))


def one_of(known: Collection[str]) -> Callable[[str], str]:
    """Return a parser of one name."""

    def parse(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(
                f"expected one of {', '.join(known)}, got {text!r}{did_you_mean(text, known)}"
            )
        return text

    return parse


def at_least(least: int) -> Callable[[str], int]:
    """Return a parser of whole numbers that are not less than ``least``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return value

    return parse
