"""Where cases come from: modules and files that a user names, and the entry points of installed packages."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import zlib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

GROUP = "oracles.cases"


class BrokenCases(UserWarning):
    """An installed package names a module of cases that cannot be imported."""


class Unusable(ValueError):
    """What a user named holds nothing that can be used; says what came, what was expected, and the fix."""


def announced() -> list[EntryPoint]:
    """Return what installed packages announce under ``[project.entry-points."oracles.cases"]``, by name."""
    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))


def load(name: str) -> ModuleType:
    """Import a module by its dotted name, or a file by its path ending in ``.py``.

    As under ``python -m`` modules of the current folder are found, as with ``python FILE`` those beside the file.
    A file that is imported already, under whatever name, is not imported again.

    Raises:
        Unusable: (a ValueError) if there is no such module or file; says where it was looked for.
        Exception: whatever the module raises while it is imported.
    """
    return _load_file(name) if name.endswith(".py") else _load_module(name)


def shown(module: ModuleType) -> str:
    """Return what a user calls a module: its file's name, or its own where it is a package or has no file."""
    file = Path(getattr(module, "__file__", None) or "")
    return module.__name__ if file.name in ("", "__init__.py") else file.name


def _load_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise Unusable(f"expected a module (my_package.cases) or a file that ends in .py, got {name!r}")
    _look_in(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # it is there; what it imports is not
    file = Path(*name.split(".")).with_suffix(".py")
    fix = f"give the file, {file}" if file.is_file() else "install its package, start in its folder, or give a .py file"
    raise Unusable(f"no module named {name!r} in {os.getcwd()} or on sys.path.\nFix:    {fix}")


def _load_file(name: str) -> ModuleType:
    path = Path(name).absolute()
    if not path.is_file():
        beside = ", ".join(sorted(p.name for p in path.parent.glob("*.py"))[:8]) if path.parent.is_dir() else ""
        raise Unusable(f"no file {name}" + (f"; {path.parent} has {beside}" if beside else ""))
    for module in list(sys.modules.values()):
        origin = getattr(module, "__file__", None)
        if isinstance(origin, str) and Path(origin).absolute() == path:
            return module
    _look_in(str(path.parent))
    label = path.stem
    if not label.isidentifier() or label in sys.modules:
        label = f"file_{zlib.crc32(str(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(label, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[label] = module  # a dataclass looks up its module here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[label]
        raise
    return module


def _look_in(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)
