"""Registry of reference cases by layer type.

``@oracle_for(MyLayer)`` registers how to draw cases of a layer type: a configured layer, its inputs, and what torch and
JAX call it. The command line, the pytest plugin and `oracles.reimplementation` find them here: in the modules and files
that a user names, and in those that installed packages announce as entry points.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import warnings
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from oracles.backends.devices import Device, placed
from oracles.extents import require_blocks, restart_calls
from oracles.lazy_modules import LazyModule
from oracles.numerics import Numerics
from oracles.options import did_you_mean
from oracles.rule import Primals, Rule
from oracles.strategies import Drawn, real
from oracles.structure import NO_TREES, CallWithTrees, Trees, flattened, rule_of_leaves

if TYPE_CHECKING:
    from hypothesis import strategies as st

    from oracles.backends import jax_reference, torch_reference
else:  # a check of one subject at one point needs none of them, or one
    st = LazyModule("hypothesis.strategies")
    jax_reference = LazyModule("oracles.backends.jax_reference")
    torch_reference = LazyModule("oracles.backends.torch_reference")

# The group of entry points under which a package announces its modules of cases.
GROUP = "oracles.cases"


class BrokenCases(UserWarning):
    """An installed package names a module of cases that cannot be imported."""


class Unusable(ValueError):
    """What a user named holds nothing that can be used; says the actual value, the expected one, and the fix."""


# How a reference in each framework's own idiom is made a Rule.
FRAMEWORKS: dict[str, Callable[[Callable[..., Any]], Rule]] = {
    "jax": lambda f: jax_reference.jax_vjp(f),
    "torch": lambda f: torch_reference.torch_autograd(f),
}
_FAMILIES: dict[str, Callable[[Callable[..., Any]], Callable[[Mapping[str, Any]], Rule]]] = {
    "jax": lambda f: jax_reference.jax_family(f),
    "torch": lambda f: torch_reference.torch_family(f),
}


@dataclass(frozen=True)
class Case:
    """A configured subject, how to draw its inputs, and its references in the frameworks.

    Attributes:
        subject: the Rule under test.
        primals: how to fill each of its primals; of trees of arrays, each leaf.
        torch, jax: the reference in each framework's own idiom, ``f(**primals, **options) -> y``; the primal only.
        options: configuration that the references need beyond the primals (a slope, a reduction); hashable, since a
            reference is traced once for each value.
        kinks: "declared" where the references are written to give the convention that the subject declares for points
            without a derivative; "any" accepts every subgradient there.
        blocks: the sizes of the tiles that the subject works in, such as (64, 128): a search gives each axis that
            `rows` and `widths` draw sizes around their multiples too, one axis at a time.
        batched: primals whose first axis holds independent rows, as the output's does; the cotangents of all other
            primals are then sums over the rows.
        numerics: what the subject stores, accumulates and multiplies in; by default what the searched dtype says.
        device: where the subject's arrays lie and torch computes the reference, as in `oracles.check`.
        trees: the structures of primals that are trees; they are found in ``primals``, which then hold the leaves.
    """

    subject: Rule
    primals: Mapping[str, Any]  # Drawn, or trees of them
    torch: Callable[..., Any] | None = None
    jax: Callable[..., Any] | None = None
    options: Mapping[str, Hashable] = field(default_factory=dict)
    batched: tuple[str, ...] = ()
    kinks: Literal["any", "declared"] = "any"
    numerics: Numerics | None = None
    blocks: tuple[int, ...] = ()
    device: Device = None
    trees: Trees = NO_TREES

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", require_blocks("Case", self.blocks))
        if isinstance(self.primals, Mapping) and not all(isinstance(d, Drawn) for d in self.primals.values()):
            self._flatten()
        if self.device is not None and isinstance(self.subject, Rule):
            object.__setattr__(self, "subject", placed(self.subject, (), self.device, {})[0])
        for name in ("torch", "jax"):
            f = getattr(self, name)
            if self.trees.roots and f is not None and not isinstance(f, CallWithTrees):
                object.__setattr__(self, name, self.trees.calling(f))

    def _flatten(self) -> None:
        """Replace trees by their leaves, in the primals and in what is called with them."""
        trees, leaves = flattened(self.primals, lambda value: isinstance(value, Drawn))
        if not trees.roots or not isinstance(self.subject, Rule):
            return
        names = trees.leaf_names(leaves)
        batched = tuple(leaf for n in self.batched for leaf in names.get(n, (n,)))
        changes = {
            "subject": rule_of_leaves(self.subject, trees),
            "primals": leaves,
            "batched": batched,
            "trees": trees,
        }
        for name, value in changes.items():
            object.__setattr__(self, name, value)

    def numerics_at(self, primals: Primals) -> Numerics:
        """Return what is declared, or what the dtypes at a point say."""
        return Numerics.declared(self.numerics or self.subject.numerics, primals)

    def oracles(self, names: Sequence[str] = tuple(FRAMEWORKS)) -> list[Rule]:
        """Return the oracles of these names that this case has a reference for."""
        options = tuple(sorted(self.options.items()))
        references = {"torch": self.torch, "jax": self.jax}
        found = [_oracle_of(n, f, options) for n in FRAMEWORKS if n in names and (f := references[n]) is not None]
        return list(placed(self.subject, found, self.device, {})[1])


@lru_cache(maxsize=1024)
def _oracle_of(framework: str, f: Callable[..., Any], options: tuple[tuple[str, Hashable], ...]) -> Rule:
    """Make an oracle of a reference, once for each configuration."""
    return _family(framework, f)(dict(options))


@lru_cache(maxsize=1024)
def _family(framework: str, f: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Rule]:
    """Return the function of options that makes oracles of a reference; those of JAX share their traces."""
    return _FAMILIES[framework](f)


def _no_options(layer: Any) -> Mapping[str, Hashable]:
    return {}


def _as_initialized(layer: Any) -> Mapping[str, Drawn]:
    return {name: real(*value.shape) for name, value in layer.init(np.random.default_rng(0)).items()}


@dataclass(frozen=True)
class Reference:
    """What torch and JAX call a layer type, apart from the inputs that are drawn for it.

    Composites look up the references of the layers inside by type, with `reference_of`.

    Attributes:
        torch, jax: the reference in each framework's own idiom, ``f(**primals, **options) -> y``.
        options: returns the configuration of a layer that the references need beyond the primals, by name.
        parameters: returns how to fill a layer's parameters; by default signed numbers of magnitude one, in the shapes
            that ``layer.init`` gives.
        native_torch, native_jax: the framework's own function where the reference is written differently to have the
            declared derivative at a kink; for `oracles.cli.layer_commands` only.
    """

    torch: Callable[..., Any]
    jax: Callable[..., Any]
    options: Callable[[Any], Mapping[str, Hashable]] = _no_options
    parameters: Callable[[Any], Mapping[str, Drawn]] = _as_initialized
    native_torch: Callable[..., Any] | None = None
    native_jax: Callable[..., Any] | None = None

    def case(
        self,
        subject: Rule,
        primals: Mapping[str, Drawn],
        *,
        options: Mapping[str, Hashable] | None = None,
        batched: tuple[str, ...] = (),
        kinks: Literal["any", "declared"] = "any",
    ) -> Case:
        """Return the case of a subject that was made from a layer; options are the layer's unless given."""
        options = self.options(subject.implementation) if options is None else options
        return Case(subject, primals, self.torch, self.jax, options, batched, kinks)


@dataclass(frozen=True)
class Entry:
    """The reference cases of one layer type under one name.

    Attributes:
        name: the name to select them by.
        layer_type: the type whose cases they are.
        cases: the strategy that draws them.
        module: the module that registered them.
        pullback: whether the subject has a pullback to check.
        source: their origin: "manual-bp", "entry point NAME", or the module or file that a user named.
        reference: what composites and `oracles.cli.layer_commands` need to know of the layer type, if given.
        function: what draws the cases, as it was registered.
    """

    name: str
    layer_type: type
    cases: st.SearchStrategy[Case]
    module: str
    pullback: bool = True
    source: str = ""
    reference: Reference | None = None
    function: Callable[..., Case] | None = None


_OURS = "oracles.references"
_ENTRIES: dict[str, Entry] = {}


def oracle_for(
    layer_type: type, *, reference: Reference | None = None, name: str | None = None, pullback: bool = True
) -> Callable[[Callable[..., Case]], Callable[..., Case]]:
    """Register ``cases(draw) -> Case`` as the cases of a layer type, under the type's name or ``name``.

    Args:
        layer_type: the type of the layers in the cases.
        reference: lets composites of this layer find its references; not needed otherwise.
        name: the name to register under, if not the type's.
        pullback: False, as for an optimizer's step, checks the output alone.

        @oracle_for(MyLayer)
        def my_layer(draw):
            n_rows, n = draw(rows()), draw(widths())
            return Case(manual_layer(MyLayer(n)), {"z": real(n_rows, n)}, torch=torch_ref, jax=jax_ref)

    Raises:
        TypeError: if it is given an instance, or used without a type.
        ValueError: if another module has registered the name.
    """
    _require_type(layer_type)

    def register(cases: Callable[..., Case]) -> Callable[..., Case]:
        if not cases.__module__.startswith(f"{_OURS}."):
            _discover_ours()  # first, so that their names do not depend on the order of imports
        label = name or layer_type.__name__
        previous = _ENTRIES.get(label)
        if previous and previous.module != cases.__module__:
            raise ValueError(
                f"oracle_for: name {label!r} is taken by {previous.module}; pass another name=.\n"
                f"Fix:    @oracles.oracle_for({layer_type.__name__}, name='My{label}')"
            )
        _ENTRIES[label] = Entry(
            label, layer_type, _strategy(cases), cases.__module__, pullback, reference=reference, function=cases
        )
        return cases

    return register


def _strategy(cases: Callable[..., Case]) -> st.SearchStrategy[Case]:
    def drawn(draw: st.DrawFn) -> Case:
        restart_calls()
        return cases(draw)  # Hypothesis warns of a composite that draws nothing; a case without options is one

    drawn.__name__ = cases.__name__
    return st.composite(drawn)()


def _require_type(layer_type: object) -> None:
    if isinstance(layer_type, type):
        return
    kind = "MyLayer" if inspect.isroutine(layer_type) else type(layer_type).__name__
    raise TypeError(
        f"oracle_for: expected a layer type, got {layer_type!r:.80}.\n"
        f"Fix:    @oracles.oracle_for({kind})\n        def cases(draw):\n            return oracles.Case(...)"
    )


def entries(names: Sequence[str] = ()) -> list[Entry]:
    """Return the registered entries: all of them, or those named.

    Imports every module of `oracles.references`, and those that installed packages announce as entry points of the
    group ``oracles.cases``. One that cannot be imported causes a `BrokenCases` warning, once, and the rest is returned.

    Raises:
        ValueError: if a name is unknown; lists those that are known.
    """
    for complaint in _discover():
        warnings.warn(complaint, BrokenCases, stacklevel=2)
    unknown = [n for n in names if n not in _ENTRIES]
    if unknown:
        hints = "".join(dict.fromkeys(did_you_mean(n, _ENTRIES) for n in unknown))
        raise ValueError(f"unknown layer {', '.join(unknown)}{hints}\nKnown are {', '.join(sorted(_ENTRIES))}.")
    return [_ENTRIES[n] for n in names] if names else [_ENTRIES[n] for n in sorted(_ENTRIES)]


def complaints() -> tuple[str, ...]:
    """Return one message for each announced module of cases that cannot be imported."""
    return _discover()


def entries_for(layer_type: type) -> list[Entry]:
    """Return the entries of a layer type; installed packages are searched only if there is none here."""
    _discover_ours()
    matches = [e for e in _ENTRIES.values() if e.layer_type is layer_type]
    return matches or [e for e in entries() if e.layer_type is layer_type]


def reference_of(layer_type: type) -> Reference:
    """Return the reference that a layer type was registered with.

    Raises:
        LookupError: if it was registered without one, or not at all.
    """
    for entry in entries_for(layer_type):
        if entry.reference is not None:
            return entry.reference
    raise LookupError(
        f"reference_of: expected a layer type registered with a reference, got {layer_type.__name__}.\n"
        f"Fix:    @oracles.oracle_for({layer_type.__name__}, reference=Reference(torch=..., jax=...))"
    )


def known_types() -> str:
    """Return the names of all registered layer types."""
    return ", ".join(sorted({e.layer_type.__name__ for e in entries()}))


def entries_of(module: str) -> list[Entry]:
    """Import a module by name, or a file by path, and return the entries that it or its imports registered.

    Raises:
        Unusable: (a ValueError) if there is no such module, or no ``@oracle_for`` in it.
        Exception: whatever the module raises while it is imported.
    """
    before = dict(_ENTRIES)
    _discover_ours()
    ours = set(_ENTRIES) - set(before)
    label = load(module).__name__
    names = [e.name for e in _ENTRIES.values() if e.name not in ours and (e.name not in before or _within(e, label))]
    if not names:
        raise Unusable(
            f"{module} registers no cases.\n"
            "Fix:    @oracles.oracle_for(MyLayer)\n        def my_layer(draw): return oracles.Case(...)"
        )
    _attribute(names, module)
    return [_ENTRIES[n] for n in sorted(names)]


@lru_cache(maxsize=1)
def _discover() -> tuple[str, ...]:
    """Import all modules of cases and return one message for each that cannot be imported."""
    # Ours first, so that entries of other packages can be attributed to them.
    _discover_ours()
    complaints = []
    for point in announced_modules():
        before = set(_ENTRIES)
        try:
            point.load()
        # Another package's module may raise anything while it is imported, also exit; the other layers stay usable.
        except (Exception, SystemExit) as error:
            who = f" of {point.dist.name}" if point.dist else ""
            complaints.append(f"entry point {point.name} = {point.value}{who}: {type(error).__name__}: {error}")
            continue
        new = [e.name for e in _ENTRIES.values() if e.name not in before or _within(e, point.module)]
        _attribute(new, f"entry point {point.name}")
    return tuple(complaints)


@lru_cache(maxsize=1)
def _discover_ours() -> None:
    package = importlib.import_module(_OURS)
    for module in pkgutil.walk_packages(package.__path__, f"{_OURS}."):
        importlib.import_module(module.name)
    _attribute([e.name for e in _ENTRIES.values() if e.module.startswith(f"{_OURS}.")], "manual-bp")


def _within(entry: Entry, module: str) -> bool:
    return f"{entry.module}.".startswith(f"{module}.")


def _attribute(names: Sequence[str], source: str) -> None:
    """Set the source of entries that have none."""
    for n in names:
        if not _ENTRIES[n].source:
            _ENTRIES[n] = replace(_ENTRIES[n], source=source)


def announced_modules() -> list[EntryPoint]:
    """Return what installed packages announce under ``[project.entry-points."oracles.cases"]``, by name."""
    return sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))


def load(name: str) -> ModuleType:
    """Import a module by its dotted name, or a file by its path ending in ``.py``.

    As under ``python -m`` modules of the current folder are found, and as under ``python FILE`` those next to the file.
    A file that is imported already, under whatever name, is not imported again.

    Raises:
        Unusable: (a ValueError) if there is no such module or file; says where it was looked for.
        Exception: whatever the module raises while it is imported.
    """
    return _load_file(name) if name.endswith(".py") else _load_module(name)


def display_name(module: ModuleType) -> str:
    """Return the name of a module for messages: its file's name; its own if it is a package or has no file."""
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
        neighbours = ", ".join(sorted(p.name for p in path.parent.glob("*.py"))[:8]) if path.parent.is_dir() else ""
        raise Unusable(f"no file {name}" + (f"; {path.parent} has {neighbours}" if neighbours else ""))
    # A second import would register the same layers twice.
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
