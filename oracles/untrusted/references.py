"""The references of untrusted subjects: trusted files of their own, imported once."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from oracles.cli.subjects import find_reference
from oracles.options import FRAMEWORK_NAMES
from oracles.rule import InvalidInput, Rule

_FILE = re.compile(r"(?P<path>.*\.py):(?P<name>.+)", re.DOTALL)


class TrustedReference(NamedTuple):
    """A reference, how it was named, and its file, which no subject may read."""

    text: str
    rule: Rule
    path: str


def references_of(reference: str | Sequence[str]) -> list[TrustedReference]:
    """Return the references that are named as ``torch:FILE.py:NAME``, ``jax:jax.nn.silu`` or ``FILE.py:NAME``.

    Without a framework it is the one that the file imports, torch if both.

    Raises:
        InvalidInput: if there is none, or one cannot be found.
    """
    texts = [reference] if isinstance(reference, str) else list(reference)
    if not texts:
        raise InvalidInput('reference: expected one at least.\nFix:    reference="torch:reference.py:f"')
    return [_named(text, _modified(text)) for text in texts]


@lru_cache(maxsize=256)
def _named(text: str, modified: float) -> TrustedReference:
    """Return one reference; ``modified`` is when its file was written, so that a changed file is another one."""
    framework, _, rest = text.partition(":")
    if framework not in FRAMEWORK_NAMES:
        framework, rest = _framework_of(text), text
    found = find_reference(f"{framework}:{rest}", ModuleType("references"))
    return TrustedReference(text, found.rule, _path_of(text) or _path_of_module(rest))


def _framework_of(text: str) -> str:
    path = _path_of(text)
    if not path:
        raise InvalidInput(
            f'reference: expected FILE.py:NAME, torch:NAME or jax:NAME, got {text!r}.\nFix:    reference="torch:{text}"'
        )
    try:
        source = Path(path).read_text()
    except OSError as error:
        raise InvalidInput(f"reference: {path} cannot be read: {error.strerror}") from None
    imports = set(re.findall(r"^\s*(?:import|from)\s+(torch|jax)\b", source, re.MULTILINE))
    return "jax" if imports == {"jax"} else "torch"


def _path_of(text: str) -> str:
    """Return the path of the file that a reference is in; "" for one of a module."""
    parts = _FILE.fullmatch(text)
    if parts is None:
        return ""
    framework, _, rest = parts["path"].partition(":")
    return rest if framework in FRAMEWORK_NAMES else parts["path"]


def _path_of_module(text: str) -> str:
    """Return the path of the imported module of ``MODULE:NAME``; "" for the frameworks, which subjects may use."""
    name, colon, _ = text.partition(":")
    module = sys.modules.get(name) if colon and name.partition(".")[0] not in FRAMEWORK_NAMES else None
    return getattr(module, "__file__", None) or ""


def _modified(text: str) -> float:
    path = _path_of(text)
    return Path(path).stat().st_mtime if path and Path(path).exists() else 0.0
