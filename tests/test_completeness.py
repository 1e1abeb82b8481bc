"""Every layer, loss and optimizer has a twin that speaks for it, and the house keeps its self_consistency."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
SOURCES = sorted(
    p for folder in ("manual_bp", "oracles", "tests", "benchmarks", "examples") for p in (ROOT / folder).rglob("*.py")
)


def test_there_are_operations():
    assert {"Linear", "Softmax", "SoftmaxCrossEntropy", "Sequential", "SGD"} <= {o.__name__ for o in OPERATIONS}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.__name__)
def test_twin_speaks_for(operation):
    twin = operation.__module__.replace("manual_bp", "oracles.cases", 1)
    importlib.import_module(twin)
    assert any(e.speaks_for is operation and e.module == twin for e in entries()), (
        f"{operation.__name__} has no case: write {twin.replace('.', '/')}.py with @oracle_for({operation.__name__})"
    )


def test_every_case_file_has_its_layer():
    """A twin without a layer is a leftover."""
    import oracles.cases

    twins = [m.name for m in pkgutil.walk_packages(oracles.cases.__path__, "oracles.cases.") if not m.ispkg]
    assert twins
    for twin in twins:
        importlib.import_module(twin.replace("oracles.cases", "manual_bp", 1))


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


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_over_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500


@pytest.mark.parametrize("folder", ["oracles", "tests"])
def test_no_chosen_tolerance(folder):
    """Relative and absolute tolerances are chosen; ours are derived."""
    chosen = re.compile("[ra]" + "tol|all" + "close|is" + "close|pytest.ap" + "prox|almost" + "_equal")
    for path in (ROOT / folder).rglob("*.py"):
        found = chosen.findall(path.read_text())
        assert not found, f"{path.relative_to(ROOT)} chooses a tolerance: {found}"


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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_listing_layers_is_cold():
    """Drawing cases needs no framework either."""
    code = "import sys; from oracles.registry import entries; entries(); print({'torch', 'jax'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"


def test_lazy_exports_are_those_that_a_type_checker_sees():
    face = (ROOT / "oracles" / "__init__.py").read_text()
    seen = {name: home for home, name in re.findall(r"from oracles\.([\w.]+) import \w+ as (\w+)", face)}
    assert seen
    assert seen == oracles._MODULES


def test_no_module_has_the_name_of_a_public_function():
    modules = {path.stem for path in (ROOT / "oracles").rglob("*.py")}
    assert not modules & {name for name in oracles._MODULES if name[0].islower()}


def test_public_names_are_documented():
    for package in (manual_bp, oracles):
        public = [v for n in dir(package) if not n.startswith("_") and callable(v := getattr(package, n))]
        assert public
        assert not [v for v in public if not inspect.getdoc(v)]
