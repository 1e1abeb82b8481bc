"""The project uses public interfaces of other packages only, patches none of them, and runs no text as code."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OWN = ("oracles", "manual_bp")
SOURCES = sorted(path for package in OWN for path in (ROOT / package).rglob("*.py"))
# Rounding inside torch's fused operations shows only in their decompositions, for which torch has no public name.
MAY_USE_PRIVATE_TORCH = {"oracles/perturbation/torch_operations.py"}
MAY_EVALUATE: set[str] = set()


def imported_names(tree):
    """The dotted names of foreign modules and of what is imported from them, by the names they are bound to."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return {bound: name for bound, name in names.items() if name.partition(".")[0] not in OWN}


def dotted(node):
    """A chain of attributes as text; "" for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    base = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{base}.{node.attr}" if base else ""


def is_private(name):
    """Whether a name of another package has a private part; the standard library documents os._exit, for one."""
    if name.partition(".")[0] in (*OWN, *sys.stdlib_module_names):
        return False
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def foreign(node, names):
    """The full dotted name of a foreign module's attribute (or of the module); "" where a node is none."""
    head, _, rest = dotted(node).partition(".")
    return f"{names[head]}.{rest}".rstrip(".") if head in names else ""


def private_uses(tree):
    """Private modules and attributes of foreign modules, by line."""
    names = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                modules = [] if node.level else [f"{node.module}.{name}" for name in modules]
            yield from ((node.lineno, name) for name in modules if is_private(name))
        elif isinstance(node, ast.Attribute) and is_private(name := foreign(node, names)):
            yield node.lineno, name


def patches(tree):
    """Assignments to attributes of foreign modules, and of what is imported from them, by line."""
    names = imported_names(tree)
    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif (
            isinstance(node, ast.Call) and dotted(node.func) in ("setattr", "delattr") and foreign(node.args[0], names)
        ):
            yield node.lineno, f"{dotted(node.func)}({dotted(node.args[0])}, …)"
        for target in targets:
            if isinstance(target, ast.Attribute) and foreign(target.value, names):
                yield node.lineno, dotted(target)


def evaluations(tree):
    """Calls of eval and exec, by line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in ("eval", "exec", "builtins.eval", "builtins.exec"):
            yield node.lineno, dotted(node.func)


def uses(find, paths=SOURCES):
    return [
        f"{path.relative_to(ROOT).as_posix()}:{line}: {what}"
        for path in paths
        for line, what in find(ast.parse(path.read_text(encoding="utf-8")))
    ]


def without(complaints, files):
    return [complaint for complaint in complaints if complaint.partition(":")[0] not in files]


def test_no_private_interface_of_another_package_is_used():
    assert without(uses(private_uses), MAY_USE_PRIVATE_TORCH) == []


def test_the_exception_for_torch_is_about_torch_alone():
    paths = [ROOT / file for file in MAY_USE_PRIVATE_TORCH]
    assert all(complaint.partition(": ")[2].startswith("torch.") for complaint in uses(private_uses, paths))


def test_nothing_patches_another_package():
    assert uses(patches) == []


def test_no_text_is_run_as_code():
    assert without(uses(evaluations), MAY_EVALUATE) == []


@pytest.mark.parametrize(
    ("find", "source"),
    [
        (private_uses, "import jax._src.core"),
        (private_uses, "from jax._src import core"),
        (private_uses, "from torch import _decomp"),
        (private_uses, "import jax\njax._src.config"),
        (private_uses, "import torch as t\nt.overrides._get_overloaded_args(f)"),
        (patches, "import jax\njax.numpy.sin = None"),
        (patches, "from jax.lax import convolution\nconvolution.operator += 1"),
        (patches, "import numpy as np\nsetattr(np.ndarray, 'x', 1)"),
        (patches, "import jax\ndel jax.numpy.sin"),
        (evaluations, "eval('1')"),
        (evaluations, "exec(compile('1', '', 'exec'), {})"),
    ],
)
def test_every_kind_of_bug_is_refused(find, source):
    assert list(find(ast.parse(source)))
