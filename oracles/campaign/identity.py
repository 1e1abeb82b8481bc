"""Whose results these are: a hash of the code that judges and is judged, and of the versions under both.

Results of another identity are kept apart: a gradient that was wrong yesterday may be right today.
"""

from __future__ import annotations

import hashlib
import inspect
import platform
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from oracles.campaign.units import Json, content_hash
from oracles.environment import installed_versions
from oracles.registry import Entry, load

ROOT = Path(__file__).parents[2]
# The packages whose every file counts.
PACKAGES = ("oracles", "manual_bp")


def identity(entries: Iterable[Entry], cases: Iterable[str]) -> Json:
    """Return ``code``, the identity, and what it is made of.

    Args:
        entries: the layers; the files that define them and register their cases count.
        cases: the modules and files that the user named; of a package every file counts.

    Files that these import count only if they are among them.
    """
    modules = {load(name) for name in cases}
    files = {path for module in modules for path in _files_of(module)}
    for entry in entries:
        for owner in (entry.layer_type, entry.function):
            path = _source_of(owner)
            files |= {path} if path else set()
    outside = sorted(path for path in files if not any(path.is_relative_to(ROOT / name) for name in PACKAGES))
    versions = {"python": platform.python_version(), **installed_versions()}
    hashes = [_hash_of_packages(), *(_hash_of(path) for path in outside)]
    return {"code": content_hash([hashes, versions]), "versions": versions, "files": [path.name for path in outside]}


def _files_of(module: ModuleType) -> Iterator[Path]:
    """Return the file of a module, or every file of a package."""
    for folder in getattr(module, "__path__", ()):
        yield from Path(folder).rglob("*.py")
    if module.__file__:
        yield Path(module.__file__).absolute()


def _source_of(owner: object) -> Path | None:
    try:
        file = inspect.getsourcefile(owner) if owner is not None else None  # type: ignore[arg-type]
    except TypeError:  # it is built in
        return None
    return Path(file).absolute() if file else None


def _hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


@lru_cache(maxsize=1)
def _hash_of_packages() -> str:
    files = sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    return content_hash([(path.relative_to(ROOT).as_posix(), _hash_of(path)) for path in files])
