"""Every layer, loss and optimizer has a reference case, and the code keeps its rules of layout, size and typing."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from planted_bugs.planting import BUGS

import manual_bp
import oracles
from oracles.registry import entries

ROOT = Path(__file__).parent.parent
OPERATIONS = [
    value
    for name in dir(manual_bp)
    if inspect.isclass(value := getattr(manual_bp, name))
    and not getattr(value, "_is_protocol", False)
    and (hasattr(value, "backward") or hasattr(value, "step"))
]
DERIVATION = (ROOT / "docs" / "derivation.md").read_text(encoding="utf-8")
SOURCES = sorted(
    p for folder in ("manual_bp", "oracles", "tests", "benchmarks", "examples") for p in (ROOT / folder).rglob("*.py")
)


def test_there_are_operations():
    assert {"Linear", "Softmax", "SoftmaxCrossEntropy", "Sequential", "SGD"} <= {o.__name__ for o in OPERATIONS}


def missing_parts(operation):
    """What an operation of manual_bp lacks: a sentence for each part, with the file to write."""
    name, file = operation.__name__, operation.__module__.rpartition(".")[2]
    cases = [e for e in entries() if e.layer_type is operation and e.module == f"oracles.references.{file}"]
    bugs = sum(bug.layer_type is operation for bug in BUGS)
    rows = [line for line in DERIVATION.splitlines() if re.search(rf"`{name}\b[^`]*`", line)]
    derived = operation.__doc__ is None or "derivation.md" in operation.__doc__  # Flatten only copies
    sentences = {
        f"{name} has no reference case: write oracles/references/{file}.py with @oracle_for({name}).": cases,
        f"{name} has {bugs} of 3 planted bugs: write them in tests/planted_bugs/, with @bug(...), in "
        f"{file}.py or in the file of its family.": bugs >= 3,
        f"{name} has no equation: write it in docs/derivation.md, with a row `{name}.backward` in the table.": rows
        or not derived,
        f"{name} has no description: write its equations, Shapes and Dtypes in manual_bp/{file}.py.": operation.__doc__,
    }
    return [sentence for sentence, is_there in sentences.items() if not is_there]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.__name__)
def test_every_operation_is_complete(operation):
    assert not missing_parts(operation), "\n".join(missing_parts(operation))


def test_what_is_missing_is_a_sentence_with_the_file_to_write():
    class Unfinished:
        __module__ = "manual_bp.unfinished"

    sentences = missing_parts(Unfinished)
    assert all(s.startswith("Unfinished has ") and ": write " in s and s.endswith(".") for s in sentences)
    files = ["oracles/references/unfinished.py", "tests/planted_bugs/", "docs/derivation.md", "manual_bp/unfinished.py"]
    assert [file for file, s in zip(files, sentences, strict=True) if file in s] == files


def test_every_reference_file_has_its_file_of_layers():
    import oracles.references

    names = [m.name for m in pkgutil.iter_modules(oracles.references.__path__) if not m.name.startswith("_")]
    assert names
    for name in names:
        importlib.import_module(f"manual_bp.{name}")


def _imports(path):
    """Modules that a file imports when it is imported: not those inside functions."""
    package = path.relative_to(ROOT).parts[:-1]
    pending = list(ast.parse(path.read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += ast.iter_child_nodes(node)


@pytest.mark.parametrize("path", sorted((ROOT / "manual_bp").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_manual_bp_imports_numpy_alone(path):
    tops = {name.split(".")[0] for name in _imports(path)}
    assert not tops - {"numpy", "manual_bp", "", *sys.stdlib_module_names}


def test_no_import_circle():
    modules = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
        for folder in ("manual_bp", "oracles")
        for p in (ROOT / folder).rglob("*.py")
    }
    # A package's __init__ collects exports: it stands above its modules and is not a module of the graph.
    modules = {name: path for name, path in modules.items() if path.name != "__init__.py"}
    graph = {name: {m for m in _imports(path) if m in modules} for name, path in modules.items()}
    assert len(graph) > 30
    while graph:
        free = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert free, f"import circle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in free}


CODE = [p for p in SOURCES if p.relative_to(ROOT).parts[0] in ("manual_bp", "oracles")]


def _functions(path):
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def _lines(function):
    """Count the lines of a function without its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    counted = docstring.end_lineno - docstring.lineno + 1 if docstring else 0
    return function.end_lineno - function.lineno + 1 - counted


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_function_over_55_lines_of_code(path):
    assert not {f.name: _lines(f) for f in _functions(path) if _lines(f) > 55}


def test_few_imports_inside_functions():
    """They are for laziness alone: torch, jax, flint, zipfile and the like."""
    count = Counter()
    for path in CODE:
        imports = {n for f in _functions(path) for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)}
        count[str(path.relative_to(ROOT))] += len(imports)
    assert count.total() <= 60, count.most_common(12)


@pytest.mark.parametrize("package", ["manual_bp", "oracles"])
def test_few_untyped_values(package):
    """`Any` at most 30 times in 1000 lines."""
    texts = [p.read_text() for p in CODE if p.relative_to(ROOT).parts[0] == package]
    lines, count = sum(len(t.splitlines()) for t in texts), sum(len(re.findall(r"\bAny\b", t)) for t in texts)
    assert count <= 0.03 * lines, f"{count} in {lines} lines"


@pytest.mark.parametrize(("package", "limit"), [("manual_bp", 1), ("oracles", 15)])
def test_few_broad_handlers_each_with_its_reason(package, limit):
    count = 0
    for path in CODE:
        if path.relative_to(ROOT).parts[0] != package:
            continue
        lines = path.read_text().splitlines()
        for above, line in zip(["", *lines], lines, strict=False):
            if re.search(r"except \(?.*\bException\b", line):
                count += 1
                assert "#" in line or above.strip().startswith("#"), f"{path.relative_to(ROOT)}: {line.strip()}"
    assert count <= limit


@pytest.mark.parametrize("folder", ["oracles", "tests"])
def test_no_chosen_tolerance(folder):
    """Relative and absolute tolerances are chosen; ours are derived. The audit and the red team name others."""
    chosen = re.compile("[ra]" + "tol|all" + "close|is" + "close|pytest.ap" + "prox|almost" + "_equal")
    audit = {*(ROOT / "oracles" / "audit").glob("*.py"), ROOT / "tests" / "plugin" / "test_audit.py"}
    attacks = {*(ROOT / "tests" / "red_team").rglob("*.py")}
    for path in {*(ROOT / folder).rglob("*.py")} - audit - attacks:
        matches = chosen.findall(path.read_text())
        assert not matches, f"{path.relative_to(ROOT)} chooses a tolerance: {matches}"


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("manual_bp", ("torch", "jax", "hypothesis", "oracles")),
        ("oracles", ("numpy", "torch", "jax", "sklearn", "flint", "hypothesis", "pytest")),
        ("oracles.decision.judge", ("torch", "jax", "flint", "hypothesis", "pytest")),
    ],
)
def test_import_is_cold(module, forbidden):
    code = f"import {module}, sys; print([m for m in {forbidden!r} if m in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert process.stdout.strip() == "[]"


def test_listing_layers_is_cold():
    """Drawing cases needs no framework either."""
    code = "import sys; from oracles.registry import entries; entries(); print({'torch', 'jax'} & sys.modules.keys())"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert process.stdout.strip() == "set()"


def test_lazy_exports_are_those_that_a_type_checker_sees():
    text = (ROOT / "oracles" / "__init__.py").read_text()
    exports = {name: module for module, name in re.findall(r"from oracles\.([\w.]+) import \w+ as (\w+)", text)}
    assert exports
    assert exports == oracles._MODULES


def test_no_module_has_the_name_of_a_public_function():
    modules = {path.stem for path in (ROOT / "oracles").rglob("*.py")}
    assert not modules & {name for name in oracles._MODULES if name[0].islower()}


def test_public_names_are_documented():
    for package in (manual_bp, oracles):
        public = [v for n in dir(package) if not n.startswith("_") and callable(v := getattr(package, n))]
        assert public
        assert not [v for v in public if not inspect.getdoc(v)]
