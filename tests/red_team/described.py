"""What the files of the red team say of themselves; they are read, and never imported."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Described:
    """The constants of one file.

    Attributes:
        name: of the file.
        path: of the file.
        does: the first line of its docstring.
        in_process: what the docstring says of a naive verifier.
        expected: the statuses that are right.
        kind: of attack.
        function: of references.py, whose gradient it claims to be.
        subject: what is judged, as a command line names it.
        cases: of the judge; by default two points of the function's shapes in float64.
        forbid: what it must not use.
        seconds: the limit of one call.
        memory_mb: the limit of memory.
        comparison: the one of the naive verifier that it is made for, see benchmarks/red_team_in_process.py.
        harmful: whether it must not run without limits.
    """

    name: str
    path: Path
    does: str
    in_process: str
    expected: frozenset[str]
    kind: str = ""
    function: str = "silu"
    subject: str = "forward,backward"
    cases: tuple[dict[str, Any], ...] = ()
    forbid: tuple[str, ...] = ()
    seconds: float = 10.0
    memory_mb: int = 2048
    comparison: str = "np.allclose"
    harmful: bool = False


def describe(path: Path) -> Described:
    """Read the docstring and the constants of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    does, _, rest = (ast.get_docstring(tree) or "").partition("\n\n")
    fields = {name.upper(): name for name in Described.__dataclass_fields__ if name not in ("name", "path", "does")}
    found: dict[str, Any] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in fields:
                found[fields[name]] = ast.literal_eval(value)
    found["expected"] = frozenset(found["expected"])
    found["cases"] = tuple(found.get("cases") or [{"shapes": _shapes(found.get("function", "silu")), "points": 2}])
    return Described(path.stem, path, does, rest.removeprefix("In process: ").strip(), **found)


def all_in(folder: str) -> list[Described]:
    """Describe the files of a folder: "attacks" or "honest"."""
    return [describe(path) for path in sorted((FOLDER / folder).glob("*.py")) if not path.stem.startswith("_")]


def _shapes(function: str) -> str:
    tree = ast.parse((FOLDER / "references.py").read_text(encoding="utf-8"))
    (shapes,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "SHAPES")
    return str(ast.literal_eval(shapes)[function])
