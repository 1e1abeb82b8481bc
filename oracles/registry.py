"""Which cases speak for which layer: ``@oracle_for(MyLayer)`` makes a layer type known to every face of the judge."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from hypothesis import strategies as st

from oracles.backends.jax_reference import jax_family, jax_vjp
from oracles.backends.torch_reference import torch_autograd, torch_family
from oracles.discovery import BrokenCases, Unusable, announced, load
from oracles.rule import Rule
from oracles.strategies import Drawn

FRAMEWORKS: dict[str, Callable[..., Rule]] = {"jax": jax_vjp, "torch": torch_autograd}
_FAMILIES: dict[str, Callable[[Callable[..., Any]], Callable[[Mapping[str, Any]], Rule]]] = {
    "jax": jax_family,
    "torch": torch_family,
}


@dataclass(frozen=True)
class Case:
    """A configured subject, what to feed it, and what the frameworks call it.

    Attributes:
        subject: the Rule under test.
        primals: how to fill each of its primals.
        torch, jax: the reference in each framework's own idiom, ``f(**primals, **options) -> y``; the primal only.
        options: configuration that the references need beyond the primals (a slope, a reduction); hashable, since a
            reference is traced once for each value.
        kinks: "declared" where the references are written to give the convention that the subject declares for points
            without a derivative; "any" accepts every subgradient there.
        batched: primals whose first axis holds independent rows, as the output's does; the cotangents of all other
            primals are then sums over the rows.
    """

    subject: Rule
    primals: Mapping[str, Drawn]
    torch: Callable[..., Any] | None = None
    jax: Callable[..., Any] | None = None
    options: Mapping[str, Hashable] = field(default_factory=dict)
    batched: tuple[str, ...] = ()
    kinks: Literal["any", "declared"] = "any"

    def oracles(self, names: Sequence[str] = tuple(FRAMEWORKS)) -> list[Rule]:
        """Return the oracles of these names that this case has a reference for."""
        options = tuple(sorted(self.options.items()))
        references = {"torch": self.torch, "jax": self.jax}
        return [_lifted(n, f, options) for n in FRAMEWORKS if n in names and (f := references[n]) is not None]


@lru_cache(maxsize=1024)
def _lifted(framework: str, f: Callable[..., Any], options: tuple[tuple[str, Hashable], ...]) -> Rule:
    """Lift a reference once for each configuration."""
    return _family(framework, f)(dict(options))


@lru_cache(maxsize=1024)
def _family(framework: str, f: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Rule]:
    """Lift a reference for all configurations: JAX's oracle keeps what it has traced."""
    return _FAMILIES[framework](f)


@dataclass(frozen=True)
class Entry:
    """A registered family of cases: the type it speaks for, the strategy that draws them, whether they pull back.

    ``source`` says who brought it: "manual-bp", "entry point NAME", or the module or file that a user named.
    """

    name: str
    speaks_for: type
    cases: st.SearchStrategy[Case]
    module: str
    pullback: bool = True
    source: str = ""


_OURS = "oracles.cases"
_ENTRIES: dict[str, Entry] = {}


def oracle_for(
    speaks_for: type, *, name: str | None = None, pullback: bool = True
) -> Callable[[Callable[..., Case]], Callable[..., Case]]:
    """Register ``cases(draw) -> Case`` as speaking for a type, under the type's name or ``name``.

    With ``pullback=False``, as for an optimizer's step, only what concerns the output is checked.

        @oracle_for(MyLayer)
        def my_layer(draw):
            n_rows, n = draw(rows()), draw(widths())
            return Case(manual_layer(MyLayer(n)), {"z": real(n_rows, n)}, torch=torch_ref, jax=jax_ref)

    Raises:
        TypeError: if it is given an instance, or used without a type: says what came and what to write.
        ValueError: if another module has taken the name.
    """
    _require_type(speaks_for)

    def register(cases: Callable[..., Case]) -> Callable[..., Case]:
        if not cases.__module__.startswith(f"{_OURS}."):
            _discover_ours()  # they have their names first, whoever is imported first
        label = name or speaks_for.__name__
        taken = _ENTRIES.get(label)
        if taken and taken.module != cases.__module__:
            raise ValueError(
                f"oracle_for: name {label!r} is taken by {taken.module}; pass another name=.\n"
                f"Fix:    @oracles.oracle_for({speaks_for.__name__}, name='My{label}')"
            )
        _ENTRIES[label] = Entry(label, speaks_for, _strategy(cases), cases.__module__, pullback)
        return cases

    return register


def _strategy(cases: Callable[..., Case]) -> st.SearchStrategy[Case]:
    def drawn(draw: st.DrawFn) -> Case:
        return cases(draw)  # Hypothesis warns of a composite that draws nothing; a case without options is one

    drawn.__name__ = cases.__name__
    return st.composite(drawn)()


def _require_type(speaks_for: object) -> None:
    if isinstance(speaks_for, type):
        return
    kind = "MyLayer" if inspect.isroutine(speaks_for) else type(speaks_for).__name__
    raise TypeError(
        f"oracle_for: expected the type that the cases speak for, got {speaks_for!r:.80}.\n"
        f"Fix:    @oracles.oracle_for({kind})\n        def cases(draw):\n            return oracles.Case(...)"
    )


def entries(names: Sequence[str] = ()) -> list[Entry]:
    """Return the registered families: all of them, or those named.

    Imports every module of `oracles.cases`, and those that installed packages announce as entry points of the group
    ``oracles.cases``; one that cannot be imported is warned of as `BrokenCases`, once, and does not hinder the rest.

    Raises:
        ValueError: if a name is unknown; lists those that are known.
    """
    for complaint in _discover():
        warnings.warn(complaint, BrokenCases, stacklevel=2)
    unknown = [n for n in names if n not in _ENTRIES]
    if unknown:
        raise ValueError(f"unknown layer {', '.join(unknown)}; known are {', '.join(sorted(_ENTRIES))}")
    return [_ENTRIES[n] for n in names] if names else [_ENTRIES[n] for n in sorted(_ENTRIES)]


def complaints() -> tuple[str, ...]:
    """Say which announced modules of cases cannot be imported, and why."""
    return _discover()


def speaking_for(kind: type) -> list[Entry]:
    """Return the families that speak for a type; other packages are only asked where nobody here does."""
    _discover_ours()
    found = [e for e in _ENTRIES.values() if e.speaks_for is kind]
    return found or [e for e in entries() if e.speaks_for is kind]


def known_types() -> str:
    """Return the names of all types that somebody speaks for."""
    return ", ".join(sorted({e.speaks_for.__name__ for e in entries()}))


def entries_of(module: str) -> list[Entry]:
    """Import a module by name, or a file by path, and return the families that it, or what it imports, registered.

    Raises:
        Unusable: (a ValueError) if there is no such module, or no ``@oracle_for`` in it: says what to write.
        Exception: whatever the module raises while it is imported.
    """
    before = dict(_ENTRIES)
    _discover_ours()
    ours = set(_ENTRIES) - set(before)
    label = load(module).__name__
    found = [e.name for e in _ENTRIES.values() if e.name not in ours and (e.name not in before or _within(e, label))]
    if not found:
        raise Unusable(
            f"{module} registers no cases.\n"
            "Fix:    @oracles.oracle_for(MyLayer)\n        def my_layer(draw): return oracles.Case(...)"
        )
    _attribute(found, module)
    return [_ENTRIES[n] for n in sorted(found)]


@lru_cache(maxsize=1)
def _discover() -> tuple[str, ...]:
    """Import everyone's cases and return the complaints about those that cannot be imported."""
    _discover_ours()
    complaints = []
    for point in announced():
        before = set(_ENTRIES)
        try:
            point.load()
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
    """Say where families come from, unless that is known already."""
    for n in names:
        if not _ENTRIES[n].source:
            _ENTRIES[n] = replace(_ENTRIES[n], source=source)
