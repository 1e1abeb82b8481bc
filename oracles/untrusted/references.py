"""The references of untrusted subjects: trusted files of their own, each imported with its own neighbours.

The jobs of a batch may name files of equal names in several folders. So what a reference imports from its own folder is
its own: it is no module of the process afterwards, and a file that has changed is imported again.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import cache_from_source
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from oracles.cli.subjects import find_reference
from oracles.options import FRAMEWORK_NAMES
from oracles.rule import InvalidInput, Rule

MOST_IMPORTED = 256
_FILE = re.compile(r"(?P<path>.*\.py):(?P<name>.+)", re.DOTALL)


class TrustedReference(NamedTuple):
    """A reference, how it was named, and the files that state it, which no subject may read."""

    text: str
    rule: Rule
    files: tuple[str, ...]


def references_of(reference: str | Sequence[str]) -> list[TrustedReference]:
    """Return the references that are named as ``torch:FILE.py:NAME``, ``jax:jax.nn.silu`` or ``FILE.py:NAME``.

    Without a framework it is the one that the file imports, torch if both.

    Raises:
        InvalidInput: if there is none, or one cannot be found.
    """
    texts = [reference] if isinstance(reference, str) else list(reference)
    if not texts:
        raise InvalidInput('reference: expected one at least.\nFix:    reference="torch:reference.py:f"')
    return [_named(text) for text in texts]


class _Imported(NamedTuple):
    """A reference, and the state of each of its files when it was imported."""

    reference: TrustedReference
    files: dict[str, tuple[int, ...]]

    @property
    def is_current(self) -> bool:
        """Whether no file has changed since."""
        return all(_state_of(path) == state for path, state in self.files.items())


_IMPORTED: dict[tuple[str, str], _Imported] = {}  # by the text and the folder that it is relative to


def _named(text: str) -> TrustedReference:
    """Return one reference, which is imported anew where one of its files has changed."""
    key = text, os.getcwd()
    if key not in _IMPORTED or not _IMPORTED[key].is_current:
        while len(_IMPORTED) >= MOST_IMPORTED:
            _IMPORTED.pop(next(iter(_IMPORTED)))
        _IMPORTED[key] = _imported(text)
    return _IMPORTED[key].reference


def _imported(text: str) -> _Imported:
    framework, _, rest = text.partition(":")
    if framework not in FRAMEWORK_NAMES:
        framework, rest = _framework_of(text), text
    path = _path_of(text)
    folder = os.path.dirname(os.path.abspath(path)) if path else os.getcwd()
    files: list[str] = []
    with _own_modules(folder, files):
        found = find_reference(f"{framework}:{rest}", ModuleType("references"))
        files += filter(None, [path, _path_of_module(rest), _path_of_code(found.f)])
    paths = tuple(dict.fromkeys(os.path.abspath(each) for each in files))
    return _Imported(TrustedReference(text, found.rule, paths), {each: _state_of(each) for each in paths})


@contextmanager
def _own_modules(folder: str, files: list[str]) -> Iterator[None]:
    """Let what the block imports from a folder be imported from there, and be no module of the process afterwards.

    Args:
        folder: the folder.
        files: their paths are added to it.
    """
    before, paths = {*sys.modules}, list(sys.path)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = paths
        new = [name for name in sys.modules if name not in before and name.partition(".")[0] not in before]
        own = [name for name in new if _is_in(folder, sys.modules.get(name.partition(".")[0]))]
        for module in [sys.modules.pop(name) for name in own]:
            if file := getattr(module, "__file__", None):
                files.append(file)
                # It would be taken for the compiled form of a file that is written again in the same second.
                with suppress(OSError, NotImplementedError):
                    os.remove(cache_from_source(file))


def _is_in(folder: str, module: ModuleType | None) -> bool:
    """Return whether a module that is no submodule lies in a folder itself, and in none inside it."""
    file = getattr(module, "__file__", None)
    places = [*getattr(module, "__path__", ())] or ([file] if file else [])
    return any(os.path.realpath(os.path.dirname(place)) == os.path.realpath(folder) for place in places)


def _state_of(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


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


def _path_of_code(f: Callable[..., Any]) -> str:
    """Return the path of the file that a function is written in; "" for the frameworks' own."""
    root = (getattr(f, "__module__", None) or "").partition(".")[0]
    code = getattr(inspect.unwrap(f), "__code__", None)
    file = getattr(code, "co_filename", "")
    return file if root not in FRAMEWORK_NAMES and os.path.exists(file) else ""
