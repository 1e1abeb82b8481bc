"""What a command line asks of the searches: named in the same words by pytest's options and by ``oracles``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

FRAMEWORK_NAMES = ("torch", "jax")
DTYPE_NAMES = ("float64", "float32")
# Before the names of our user_properties, which other plugins may write too.
PREFIX = "oracles."
# Points for each check and dtype.
PROFILES: Mapping[str, int] = {"quick": 20, "default": 100, "thorough": 2000}


@dataclass(frozen=True)
class Options:
    """What was asked for; ``None`` where nothing was.

    What is named here wins over a decorator's own argument, which wins over the profile; without any of them the
    loaded Hypothesis profile decides how many points there are.
    """

    against: tuple[str, ...] | None = None
    max_examples: int | None = None
    seed: int | None = None
    profile: str | None = None

    def points(self, own: int | None = None) -> int | None:
        """Return how many points a search has, given its own number; ``None`` leaves it to Hypothesis."""
        return self.max_examples or own or (PROFILES[self.profile] if self.profile else None)


NOTHING_ASKED = Options()


def some_of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of names separated by commas, for argparse's and pytest's ``type=``."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if not names or set(names) - set(known):
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, separated by commas, got {text!r}")
        return names

    return parse


def modules(text: str) -> tuple[str, ...]:
    """Parse modules and files separated by commas."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError(f"expected modules or .py files, separated by commas, got {text!r}")
    return names


def one_of(known: Mapping[str, int]) -> Callable[[str], str]:
    """Return a parser of one name."""

    def parse(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}, got {text!r}")
        return text

    return parse


def at_least(least: int) -> Callable[[str], int]:
    """Return a parser of whole numbers."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return value

    return parse
