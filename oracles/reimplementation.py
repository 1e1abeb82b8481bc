"""Run the cases of a known layer on another implementation: ``conformance_of(MyLinear, like=manual_bp.Linear)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from types import TracebackType
from typing import Any, TypeAlias

from hypothesis import Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample, Unsatisfiable

from oracles.constants import DRAWS_FOR_ONE_CASE
from oracles.decorators import Test, parametrize
from oracles.derivatives import require_derivatives
from oracles.options import DTYPE_NAMES, Mode, derivative_properties
from oracles.properties import FORWARD_PROPERTIES, PROPERTIES
from oracles.registry import FRAMEWORKS, Case, Entry, entries_for, known_types
from oracles.rule import Array, InvalidInput, Output, Pullback, Rule
from oracles.search import Search
from oracles.signatures import VARIADIC
from oracles.user_code import Raised, attempt

# A layer, loss or optimizer: an instance of whatever class is known or under test.
Instance: TypeAlias = Any

_FIX = "Fix:    pass adapt=lambda {like}: oracles.manual_layer({subject}(...)), which makes it of a drawn {Like}"


def conformance_of(
    subject: Callable[..., Instance],
    like: type,
    adapt: Callable[[Any], Rule] | None = None,
    *,
    dtypes: Sequence[str] = DTYPE_NAMES,
    against: Sequence[str] = tuple(FRAMEWORKS),
    max_examples: int | None = None,
    order: int = 1,
    mode: Mode = "vjp",
) -> Callable[[Test], Test]:
    """Decorate a test so that every case known for a layer runs on another implementation of it.

        @oracles.conformance_of(MyLinear, like=manual_bp.Linear)
        def test_my_linear(search):
            search()

    At points without a derivative, the cases of ``like`` may demand its convention. That demand is kept if the subject
    declares the same ``kink_convention``; otherwise every subgradient is accepted.

    Args:
        subject: the class under test, or a function that makes an instance.
        like: the layer, loss or optimizer whose cases are drawn.
        adapt: ``adapt(drawn) -> Rule`` makes the subject that corresponds to a drawn instance of ``like``. Without it,
            the subject follows `manual_bp.protocol`, with the same parameter names, and is built from the fields of the
            drawn instance. If it does not take all of them, only cases with the others at their defaults are drawn.
        dtypes, against, max_examples, order, mode: as in `conformance`.

    Raises:
        InvalidInput: (a TypeError and a ValueError) at once, for a type without cases, a subject that cannot be built
            in this way, or an ``adapt`` that returns no Rule; states what was expected, what was given, and what to
            write.
    """
    entries = _entries_of(like)
    label = str(getattr(subject, "__name__", subject))
    construction = match_constructor(subject, like, label) if adapt is None else None
    left_out = construction.left_out if construction else {}

    def substitute(case: Case) -> Case:
        drawn = _drawn_instance(case, like)
        return (
            _with_built(case, drawn, construction, label) if construction else _with_adapted(case, drawn, adapt, label)
        )

    cases = st.one_of([entry.cases for entry in entries])
    if left_out:
        cases = cases.filter(lambda case: _at_defaults(_drawn_instance(case, like), left_out))
    cases = cases.map(substitute)
    only = ", ".join(f"{name}={value!r}" for name, value in left_out.items())
    _require_one(cases, f"conformance_of: {label} leaves out fields, and no case of {like.__name__} has {only}")
    note = f"takes no {', '.join(left_out)}: only cases with {only} were drawn" if left_out else ""
    template = Search(cases, "", "", label, against, max_examples, bool(left_out), note)
    require_derivatives("conformance_of", order, mode)
    of_pullback = PROPERTIES if all(entry.pullback for entry in entries) else FORWARD_PROPERTIES
    properties = (*(of_pullback if mode != "jvp" else ()), *derivative_properties(order, mode))
    return parametrize("conformance_of", template, properties, dtypes)


def _entries_of(like: object) -> list[Entry]:
    if not isinstance(like, type):
        raise InvalidInput(
            f"conformance_of: like: expected a type, got {like!r:.80} ({type(like).__name__}).\n"
            f"Fix:    like={type(like).__name__}"
        )
    entries = entries_for(like)
    if not entries:
        raise InvalidInput(
            f"conformance_of: like={like.__name__}: no cases are registered for it; there are some for "
            f"{known_types()}.\n"
            f"Fix:    register them with @oracles.oracle_for({like.__name__}), or take one of those"
        )
    return entries


def _drawn_instance(case: Case, like: type) -> Instance:
    """Return the instance of ``like`` that a drawn case has adapted, alone or in a pair with its loss."""
    implementation = case.subject.implementation
    parts = implementation if isinstance(implementation, tuple) else (implementation,)
    drawn = next((part for part in parts if isinstance(part, like)), None)
    if drawn is None:
        raise InvalidInput(
            f"conformance_of: the cases of {like.__name__} do not say which instance they adapt.\n"
            "Fix:    adapt it by oracles.manual_layer, or\n"
            "        dataclasses.replace(rule, implementation=instance, adapt=...)"
        )
    return drawn


def _at_defaults(drawn: Instance, left_out: Mapping[str, object]) -> bool:
    return all(getattr(drawn, name) == value for name, value in left_out.items())


def _with_built(case: Case, drawn: Instance, construction: Construction, label: str) -> Case:
    """Return the case with the subject, built from the configuration of the drawn instance, in place of the latter."""
    instance = construction.build(drawn)
    implementation, adapt = case.subject.implementation, case.subject.adapt
    assert adapt is not None
    rule = adapt(
        tuple(instance if part is drawn else part for part in implementation)
        if isinstance(implementation, tuple)
        else instance
    )
    if " at 0x" in repr(instance):  # the default repr says nothing but an address
        rule = replace(rule, name=f"{label} like {drawn!r}")

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        with _NoteOnError(rule.name, primals):
            return rule(**primals)

    derived = rule.derivatives.wrapped(evaluate, lambda made: made)
    return _with_subject(case, replace(rule, evaluate=evaluate, derived=derived), instance, drawn)


class _NoteOnError:
    """Add the primals to whatever a subject raises: a subject with other names or shapes needs an ``adapt``."""

    def __init__(self, name: str, primals: Mapping[str, Array]) -> None:
        self.name, self.primals = name, primals

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            arguments = ", ".join(f"{n} {a.dtype}{list(a.shape)}" for n, a in self.primals.items())
            error.add_note(f"{self.name} was given {arguments}; for other names or shapes than these pass adapt=")


def _with_adapted(case: Case, drawn: Instance, adapt: Any, label: str) -> Case:
    """Return the case with the Rule that the user's ``adapt`` makes of the drawn instance."""
    rule = adapt(drawn)
    if not isinstance(rule, Rule):
        kind = type(drawn).__name__
        raise InvalidInput(
            f"conformance_of: adapt returned {rule!r:.80} ({type(rule).__name__}) for {drawn!r}, expected a Rule.\n"
            f"Fix:    adapt=lambda {kind.lower()}: oracles.manual_layer({label}(...))"
        )
    return _with_subject(case, rule, rule.implementation, drawn)


def _with_subject(case: Case, rule: Rule, subject: Instance, drawn: Instance) -> Case:
    same = getattr(subject, "kink_convention", None) == getattr(drawn, "kink_convention", None)
    return replace(case, subject=rule, kinks=case.kinks if same else "any")


def _require_one(cases: st.SearchStrategy[Case], complaint: str) -> None:
    """Draw one case, so that an impossible combination is reported once, when the test is collected."""
    once = settings(
        max_examples=DRAWS_FOR_ONE_CASE, database=None, derandomize=True, phases=[Phase.generate], deadline=None
    )
    try:
        find(cases, lambda _: True, settings=once)
    except (NoSuchExample, Unsatisfiable):
        raise InvalidInput(f"{complaint}.\nFix:    let it take these fields, or pass adapt=") from None


@dataclass(frozen=True)
class Construction:
    """How to build a subject from a configured instance of another class.

    Attributes:
        build: makes the subject, with the fields of an instance as its arguments.
        left_out: the fields that the subject does not take, with their defaults: it corresponds only to instances that
            have these values.
    """

    build: Callable[[Instance], Instance]
    left_out: Mapping[str, object]


def match_constructor(subject: Callable[..., Instance], like: type, label: str) -> Construction:
    """Match the parameters of a subject's constructor with the fields of a dataclass.

    Raises:
        InvalidInput: if the subject is neither a class nor a function, or cannot be built so; states what to write.
    """
    if not callable(subject) or (hasattr(subject, "forward") and not isinstance(subject, type)):
        raise InvalidInput(
            f"conformance_of: expected a class, or a function that makes an instance, got {subject!r:.80}.\n"
            f"Fix:    conformance_of({type(subject).__name__}, like={like.__name__})"
        )
    fix = _FIX.format(like=like.__name__.lower(), Like=like.__name__, subject=label)
    if not is_dataclass(like):
        raise InvalidInput(f"conformance_of: {like.__name__} is no dataclass, so its configuration is unknown.\n{fix}")
    configured = inspect.signature(like).parameters  # other fields are derived from these
    offered = {f.name: f for f in fields(like) if f.name in configured}
    try:
        parameters = inspect.signature(subject).parameters
    except (TypeError, ValueError):
        raise InvalidInput(f"conformance_of: the signature of {label} cannot be read.\n{fix}") from None
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    missing = [n for n, p in parameters.items() if n not in offered and p.default is p.empty and p.kind not in VARIADIC]
    left_out = {} if takes_any else {n: f for n, f in offered.items() if n not in parameters}
    required = [n for n, f in left_out.items() if _default(f) is MISSING]
    if missing or required:
        problem = (
            f"it needs {', '.join(missing)}, which {like.__name__} does not have"
            if missing
            else f"it takes no {', '.join(required)}"
        )
        raise InvalidInput(
            f"conformance_of: {label}{inspect.signature(subject)} cannot be built from the fields of "
            f"{like.__name__} ({', '.join(offered)}): {problem}.\n{fix}"
        )
    field_names = [n for n in offered if n not in left_out]
    return Construction(
        lambda drawn: _build(subject, label, parameters, {n: getattr(drawn, n) for n in field_names}, fix),
        {n: _default(f) for n, f in left_out.items()},
    )


def _default(field: Field[Any]) -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _build(
    subject: Callable[..., Instance],
    label: str,
    parameters: Mapping[str, inspect.Parameter],
    configuration: Mapping[str, Any],
    fix: str,
) -> Instance:
    positional: list[object] = []
    named = dict(configuration)
    for name, parameter in parameters.items():
        if name in named and parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(named.pop(name))
        elif name in named and parameter.kind is parameter.VAR_POSITIONAL:
            positional += named.pop(name)
    instance = attempt(lambda: subject(*positional, **named))
    if isinstance(instance, Raised):
        error = instance.error
        arguments = ", ".join(f"{n}={v!r}" for n, v in configuration.items())
        raise InvalidInput(
            f"conformance_of: {label}({arguments}) raised {type(error).__name__}: {error}\n{fix}"
        ) from error
    if not (hasattr(instance, "forward") and hasattr(instance, "backward")) and not hasattr(instance, "step"):
        raise InvalidInput(
            f"conformance_of: {label} has no forward(params, z) and backward(cache, delta), the contract of "
            f"manual_bp.protocol.\n{fix}"
        )
    return instance
