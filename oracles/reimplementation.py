"""Every case that is known for a layer, run on somebody else's: ``conformance_of(MyLinear, like=manual_bp.Linear)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample, Unsatisfiable

from oracles.construction import Construction, construction
from oracles.properties import FORWARD_PROPERTIES, PROPERTIES
from oracles.registry import FRAMEWORKS, Case, Entry, entries_for, known_types
from oracles.rule import Array, Pullback, Rule
from oracles.search import DTYPES, Run, decorator


def conformance_of(
    subject: Callable[..., Any],
    like: type,
    lift: Callable[[Any], Rule] | None = None,
    *,
    dtypes: Sequence[str] = DTYPES,
    against: Sequence[str] = tuple(FRAMEWORKS),
    max_examples: int | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a test so that every case known for a layer runs on another implementation of it.

        @oracles.conformance_of(MyLinear, like=manual_bp.Linear)
        def test_my_linear(check):
            check()

    Where there is no derivative, the cases of ``like`` may demand its convention: that is kept where the subject
    declares the same ``kink_convention``; otherwise every subgradient is accepted.

    Args:
        subject: the class under test, or a function that makes an instance.
        like: the layer, loss or optimizer whose cases are drawn.
        lift: ``lift(drawn) -> Rule`` makes the subject that stands for a drawn instance of ``like``. Without it the
            subject follows `manual_bp.protocol`, with the same names of parameters: it is built from the drawn
            instance's fields. Where it takes not all of them, only cases with the others at their defaults are drawn.
        dtypes, against, max_examples: as in `conformance`.

    Raises:
        TypeError, ValueError: at once, for a type without cases, a subject that cannot be built so, a lift that
            returns no Rule; says what came, what was expected, and what to write.
    """
    matches = _spoken_for(like)
    label = str(getattr(subject, "__name__", subject))
    built = construction(subject, like, label) if lift is None else None
    left_out = built.left_out if built else {}

    def retold(case: Case) -> Case:
        drawn = _drawn_instance(case, like)
        return _made(case, drawn, built, label) if built else _lifted(case, drawn, lift, label)

    cases = st.one_of([entry.cases for entry in matches])
    if left_out:
        cases = cases.filter(lambda case: _at_defaults(_drawn_instance(case, like), left_out))
    cases = cases.map(retold)
    only = ", ".join(f"{name}={value!r}" for name, value in left_out.items())
    _require_one(cases, f"conformance_of: {label} leaves out fields, and no case of {like.__name__} has {only}")
    note = f"takes no {', '.join(left_out)}: only cases with {only} were drawn" if left_out else ""
    run = Run(cases, "", "", label, against, max_examples, bool(left_out), note)
    checks = PROPERTIES if all(entry.pullback for entry in matches) else FORWARD_PROPERTIES
    return decorator("conformance_of", run, checks, dtypes)


def _spoken_for(like: object) -> list[Entry]:
    if not isinstance(like, type):
        raise TypeError(
            f"conformance_of: like: expected a type, got {like!r:.80} ({type(like).__name__}).\n"
            f"Fix:    like={type(like).__name__}"
        )
    found = entries_for(like)
    if not found:
        raise ValueError(
            f"conformance_of: like={like.__name__}: no cases speak for it; there are some for {known_types()}.\n"
            f"Fix:    register them with @oracles.oracle_for({like.__name__}), or take one of those"
        )
    return found


def _drawn_instance(case: Case, like: type) -> Any:
    """Return the instance of ``like`` that a drawn case has adapted, alone or in a pair with its loss."""
    implementation = case.subject.implementation
    parts = implementation if isinstance(implementation, tuple) else (implementation,)
    drawn = next((part for part in parts if isinstance(part, like)), None)
    if drawn is None:
        raise ValueError(
            f"conformance_of: the cases of {like.__name__} do not say which instance they adapt.\n"
            "Fix:    adapt it by oracles.manual_layer, or\n"
            "        dataclasses.replace(rule, implementation=instance, adapt=...)"
        )
    return drawn


def _at_defaults(drawn: Any, left_out: Mapping[str, Any]) -> bool:
    return all(getattr(drawn, name) == value for name, value in left_out.items())


def _made(case: Case, drawn: Any, built: Construction, label: str) -> Case:
    """Put an instance of the subject, built as the drawn one is configured, in its place."""
    mine = built.build(drawn)
    implementation, adapt = case.subject.implementation, case.subject.adapt
    assert adapt is not None
    rule = adapt(
        tuple(mine if part is drawn else part for part in implementation) if isinstance(implementation, tuple) else mine
    )
    if " at 0x" in repr(mine):
        rule = replace(rule, name=f"{label} like {drawn!r}")

    def evaluate(**primals: Array) -> tuple[Any, Pullback]:
        try:
            return rule(**primals)
        except Exception as error:
            fed = ", ".join(f"{n} {a.dtype}{list(a.shape)}" for n, a in primals.items())
            error.add_note(f"{rule.name} was fed {fed}; for other names or shapes than these pass lift=")
            raise

    return _posed(case, replace(rule, evaluate=evaluate), mine, drawn)


def _lifted(case: Case, drawn: Any, lift: Any, label: str) -> Case:
    """Put the Rule that the user's lift makes of the drawn instance in its place."""
    rule = lift(drawn)
    if not isinstance(rule, Rule):
        kind = type(drawn).__name__
        raise TypeError(
            f"conformance_of: lift returned {rule!r:.80} ({type(rule).__name__}) for {drawn!r}, expected a Rule.\n"
            f"Fix:    lift=lambda {kind.lower()}: oracles.manual_layer({label}(...))"
        )
    return _posed(case, rule, rule.implementation, drawn)


def _posed(case: Case, rule: Rule, mine: Any, drawn: Any) -> Case:
    same = getattr(mine, "kink_convention", None) == getattr(drawn, "kink_convention", None)
    return replace(case, subject=rule, kinks=case.kinks if same else "any")


def _require_one(cases: st.SearchStrategy[Case], complaint: str) -> None:
    """Draw one case, so that what cannot work is said when the test is collected, and once."""
    once = settings(max_examples=200, database=None, derandomize=True, phases=[Phase.generate], deadline=None)
    try:
        find(cases, lambda _: True, settings=once)
    except (NoSuchExample, Unsatisfiable):
        raise ValueError(f"{complaint}.\nFix:    let it take these fields, or pass lift=") from None
