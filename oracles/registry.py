"""Which cases speak for which layer: ``@oracle_for(MyLayer)`` makes a layer type known to every face of the judge."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from hypothesis import strategies as st

from oracles.jax_vjp import jax_family, jax_vjp
from oracles.rule import Rule
from oracles.strategies import Drawn
from oracles.torch_autograd import torch_autograd, torch_family

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
    """A registered family of cases: the type it speaks for, the strategy that draws them, whether they pull back."""

    name: str
    speaks_for: type
    cases: st.SearchStrategy[Case]
    module: str
    pullback: bool = True


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
        ValueError: if another module has taken the name.
    """

    def register(cases: Callable[..., Case]) -> Callable[..., Case]:
        label = name or speaks_for.__name__
        taken = _ENTRIES.get(label)
        if taken and taken.module != cases.__module__:
            raise ValueError(f"oracle_for: name {label!r} is taken by {taken.module}; pass another name=")
        _ENTRIES[label] = Entry(label, speaks_for, st.composite(cases)(), cases.__module__, pullback)
        return cases

    return register


def entries(names: Sequence[str] = ()) -> list[Entry]:
    """Return the registered families, after importing every module of `oracles.cases`; all of them, or those named.

    Raises:
        ValueError: if a name is unknown; lists those that are known.
    """
    _discover()
    unknown = [n for n in names if n not in _ENTRIES]
    if unknown:
        raise ValueError(f"unknown layer {', '.join(unknown)}; known are {', '.join(sorted(_ENTRIES))}")
    return [_ENTRIES[n] for n in names] if names else [_ENTRIES[n] for n in sorted(_ENTRIES)]


@lru_cache(maxsize=1)
def _discover() -> None:
    import oracles.cases

    for module in pkgutil.walk_packages(oracles.cases.__path__, "oracles.cases."):
        importlib.import_module(module.name)
