"""The decorator `conformance`, which makes one pytest test of each property and dtype of a search."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from hypothesis import strategies as st

from oracles.backends.devices import Device
from oracles.derivatives import require_derivatives
from oracles.extents import require_blocks
from oracles.invariance import require_properties
from oracles.options import ALL_DTYPES, DTYPE_NAMES, Mode, derivative_properties
from oracles.properties import PROPERTIES
from oracles.registry import FRAMEWORKS, Case
from oracles.search import Search
from oracles.tally import Tally

# A test function, undecorated or decorated: pytest's own mark decorator accepts and returns any callable.
Test: TypeAlias = Callable[..., Any]


def conformance(
    cases: st.SearchStrategy[Case],
    *,
    dtypes: Sequence[str] = DTYPE_NAMES,
    against: Sequence[str] = tuple(FRAMEWORKS),
    max_examples: int | None = None,
    blocks: Sequence[int] = (),
    properties: Sequence[str] = (),
    device: Device = None,
    order: int = 1,
    mode: Mode = "vjp",
) -> Callable[[Test], Test]:
    """Decorate a test so that every property is searched on a strategy of cases, one pytest id for each and dtype.

        @oracles.conformance(my_cases())
        def test_my_layer(search):
            search()

    pytest's ``--oracles-against``, ``--oracles-max-examples`` and ``--oracles-seed`` override these arguments, and
    these override ``--oracles-profile``. ``--oracles-dtype`` adds dtypes to a test that names none.

    Args:
        cases: draws the cases.
        dtypes: the dtypes of the floating primals: "float64", "float32", "float16", "bfloat16".
        against: the frameworks that judge.
        max_examples: how many points for each property and dtype.
        blocks: the sizes of the tiles that the subject works in, such as (64, 128): each axis that `rows` and `widths`
            draw gets sizes around their multiples too, one axis at a time.
        properties: what is judged besides, on request: "batch_invariant", "chunk_invariant", "deterministic". The
            first two need cases that say which primals are ``batched``.
        device: where the arrays lie, as in `oracles.check`; a case's own device overrides it.
        order: 2 searches the second order too: `second_order_agrees`, `hessian_is_symmetric`.
        mode: "vjp" searches the pullback, "jvp" the forward mode (`tangents_agree`), "both" both.

    Raises:
        TypeError, ValueError: at once, if an argument cannot be used; states what was expected and what to write.
    """
    _require_strategy(cases)
    if device is not None:
        cases = cases.map(partial(_on_device, device))
    template = Search(cases, "", "", "", against, max_examples, blocks=require_blocks("conformance", blocks))
    require_derivatives("conformance", order, mode)
    of_pullback = () if mode == "jvp" else PROPERTIES
    requested = (*require_properties("conformance", properties), *derivative_properties(order, mode))
    names = dict.fromkeys((*of_pullback, *requested))
    return parametrize("conformance", template, names, dtypes)


def _on_device(device: Device, case: Case) -> Case:
    """Return a case on a device; anything else as it is, which the search reports."""
    return replace(case, device=device) if isinstance(case, Case) and case.device is None else case


def parametrize(
    decorator: str, template: Search, properties: Iterable[str], dtypes: Sequence[str]
) -> Callable[[Test], Test]:
    """Return a decorator that passes a test ``(search)`` a search for every property and dtype.

    Args:
        decorator: the name of the public decorator, for error messages.
        template: the search, without its property and dtype.
        properties, dtypes: what to combine.

    Raises:
        TypeError, ValueError: at once, for an unknown framework or dtype, or an impossible number of examples.
    """
    import pytest  # only tests need it

    _require_some(decorator, "dtypes", dtypes, ALL_DTYPES)
    _require_some(decorator, "against", template.against, tuple(FRAMEWORKS))
    number = template.max_examples
    if number is not None and not (isinstance(number, int) and number >= 1):
        raise ValueError(f"{decorator}: max_examples: expected a whole number of at least 1, got {number!r}")

    of_any = dtypes is DTYPE_NAMES  # a test that names its dtypes, be it these two, is searched in no others

    def decorate(test: Test) -> Test:
        if "search" not in inspect.signature(test).parameters:
            raise TypeError(
                f"{decorator}: {test.__qualname__} takes no argument named search.\n"
                f"Fix:    def {test.__name__}(search):\n            search()"
            )
        label = template.label or test.__qualname__
        searches = {
            f"{name}-{dtype}": replace(
                template, property_name=name, dtype=dtype, label=label, tally=Tally(), any_dtype=of_any
            )
            for name in properties
            for dtype in dtypes
        }
        return pytest.mark.parametrize("search", list(searches.values()), ids=list(searches))(test)

    return decorate


def _require_strategy(cases: object) -> None:
    if not isinstance(cases, st.SearchStrategy):
        name = getattr(cases, "__name__", "cases")
        raise TypeError(
            f"conformance: expected a Hypothesis strategy of oracles.Case, got {cases!r:.80}.\n"
            f"Fix:    @st.composite\n        def {name}(draw):\n            return oracles.Case(...)\n\n"
            f"        @oracles.conformance({name}())"
        )


def _require_some(decorator: str, argument: str, names: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(names, str) or not names or set(names) - set(known):
        raise ValueError(
            f"{decorator}: {argument}: expected some of {', '.join(known)}, got {names!r}.\n"
            f"Fix:    {argument}=({known[0]!r},)"
        )
