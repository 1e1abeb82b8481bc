"""Outputs in a structure of the user's: their names, which of them carry a gradient, and which are judged."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from oracles.notes import note
from oracles.options import did_you_mean
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Derived,
    Evaluate,
    InvalidInput,
    Output,
    Perturbation,
    Primals,
    Pullback,
    Rule,
    as_tuple,
    describe,
    is_discrete,
    with_dtype,
)
from oracles.structure import Tree, WithAuxiliary, flatten, node_of
from oracles.user_code import Raised, attempt
from oracles.verdict import Finding, Result

Value: TypeAlias = Any
OUTPUT, AUX = "output", "aux"
# Why an output carries no gradient.
INTEGERS, AUXILIARY, MARKED, DETACHED = "integers", "has_aux", "mark_non_differentiable", "detached"


class Outputs(tuple[Any, ...]):
    """The outputs of a rule whose user returns them in a structure, or without a gradient.

    Attributes:
        names: what each is called: ``output["loss"]``.
        without: why an output carries no gradient, by its position.
        tree: the structure that the user returned, if it is known.
    """

    names: tuple[str, ...]
    without: Mapping[int, str]
    tree: Tree | None

    def __new__(
        cls,
        parts: Sequence[Any] = (),
        names: Sequence[str] = (),
        without: Mapping[int, str] | None = None,
        tree: Tree | None = None,
    ) -> Outputs:
        """Make outputs of their parts."""
        made = super().__new__(cls, parts)
        made.names = tuple(names) or names_of(tuple(parts))
        made.without, made.tree = dict(without or {}), tree
        return made

    def like(self, parts: Sequence[Any]) -> Outputs:
        """Return other parts in the same structure."""
        return Outputs(parts, self.names, self.without, self.tree)

    def but_without(self, without: Mapping[int, str]) -> Outputs:
        """Return the same outputs, of which some more carry no gradient."""
        return Outputs(self, self.names, {**without, **self.without}, self.tree)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what another process makes them of; the structure stays here, since its classes may be local."""
        return Outputs, (tuple(self), self.names, dict(self.without))


def like(y: Value, parts: Sequence[Any]) -> Any:
    """Return parts in the structure of an output: one array, a tuple, or `Outputs`."""
    if isinstance(y, Outputs):
        return y.like(parts)
    return tuple(parts) if isinstance(y, tuple | list) else parts[0]


def form_of(y: Value) -> Any:
    """Return an output without its arrays, for `like`: arrays of a trace must not outlive it."""
    nothing = [None] * len(as_tuple(y))
    return Outputs(nothing, y.names, y.without) if isinstance(y, Outputs) else like(y, nothing)


def names_of(y: Value) -> tuple[str, ...]:
    """Return what the outputs are called: "output" is a single one, "output[0]" the first of several."""
    if isinstance(y, Outputs):
        return y.names
    return core_names(len(y)) if isinstance(y, tuple | list) else (OUTPUT,)


def core_names(count: int) -> tuple[str, ...]:
    """Return what the judge calls outputs, whatever their structure, see `oracles.tolerance.named_outputs`."""
    return (OUTPUT,) if count == 1 else tuple(f"{OUTPUT}[{i}]" for i in range(count))


def without_gradient(y: Value) -> Mapping[int, str]:
    """Return why an output carries no gradient, by its position: integers and booleans never do."""
    integers = {i: INTEGERS for i, part in enumerate(as_tuple(y)) if _is_discrete(part)}
    return {**integers, **(y.without if isinstance(y, Outputs) else {})}


def _is_discrete(part: Value) -> bool:
    return isinstance(part, np.ndarray | np.generic) and is_discrete(part)


def taken_apart(y: Value) -> Value:
    """Return the arrays of an output: as they are where it is one or a plain tuple of them, else as `Outputs`.

    ``None`` is no output, and a number of Python's becomes an array where it stands in a structure.
    """
    if isinstance(y, WithAuxiliary):
        (of_y, arrays), (of_aux, others) = flatten(y.y, OUTPUT), flatten(y.aux, AUX)
        pair = Tree(OUTPUT, "", AUXILIARY, (of_y, of_aux), _first)
        without = dict.fromkeys(range(len(arrays), len(arrays) + len(others)), AUXILIARY)
        return _outputs(pair, {**arrays, **others}, without)
    if y is None or node_of(y) is None:
        return y
    if _is_plain(y):
        return y if type(y) in (tuple, list) else tuple(y)
    return _outputs(*flatten(y, OUTPUT), {})


def _first(children: Sequence[Value]) -> Value:
    return children[0]


def _outputs(tree: Tree, leaves: Mapping[str, Value], without: Mapping[int, str]) -> Outputs:
    names = [leaf.name for leaf in tree.leaves()]
    parts = [leaves[n] for n in names]
    return Outputs([np.asarray(v) if isinstance(v, bool | int) else v for v in parts], names, without, tree)


def _is_plain(y: Value) -> bool:
    """Return whether an output is a tuple or a list of arrays, or of what the judge reports as none."""
    is_sequence = isinstance(y, tuple | list) and not hasattr(y, "_fields")
    return is_sequence and not any(isinstance(v, bool | int) or node_of(v) is not None for v in y)


def delta_in_structure(y: Value, delta: Delta, *, whole: bool = False) -> Value:
    """Return a cotangent in the structure of an output, ``None`` where that has ``None``; of (y, aux) that of y.

    Args:
        y: what `taken_apart` returned.
        delta: one array for each output, or a tuple of them.
        whole: of (y, aux), whether to return the pair of both cotangents.
    """
    if not isinstance(y, Outputs) or y.tree is None:
        return delta
    values = dict(zip(y.names, as_tuple(delta), strict=True))
    if whole and y.tree.kind == AUXILIARY:
        return tuple(child.rebuild(values) for child in y.tree.children)
    return y.tree.rebuild(values)


def flat_delta(delta: Value, y: Value) -> Value:
    """Return a cotangent that a user gives in the structure of the output as one array for each output.

    ``None`` stands for zeros. A plain tuple has one array for each output.

    Raises:
        InvalidInput: if its structure is another one.
    """
    if delta is None or not isinstance(y, Outputs):
        return delta
    tree, parts = y.tree, dict[str, Any]()
    if tree is None and isinstance(delta, Mapping):
        parts = {y.names[i]: d for n, d in delta.items() for i in positions_of(n, y)}
        return tuple(parts.get(n, _zeros_like(part)) for n, part in zip(y.names, y, strict=True))
    is_flat = type(delta) in (tuple, list) and len(delta) == len(y) and not any(map(node_of, delta))
    if tree is None or is_flat or node_of(delta) is None:
        plain = tuple(delta) if type(delta) in (tuple, list) else (delta,)
        carrying = [n for i, n in enumerate(y.names) if i not in without_gradient(y)]
        names = y.names if len(plain) == len(y) else carrying
        if len(plain) != len(names):
            raise InvalidInput(f"delta: expected one array for each of {', '.join(carrying)}, got {describe(delta)}")
        parts = dict(zip(names, plain, strict=True))
    else:
        parts = (tree.children[0] if tree.kind == AUXILIARY else tree).cotangents(delta, "delta")
    return tuple(_zeros_like(part) if parts.get(n) is None else parts[n] for n, part in zip(y.names, y, strict=True))


def masked(delta: Delta, without: Sequence[int]) -> Delta:
    """Return a cotangent with zeros for the outputs that carry no gradient; as it is if none carries one.

    Under zeros alone nothing of the primals' cotangents would be judged.
    """
    if not without or len(without) == len(as_tuple(delta)):
        return delta
    parts = [np.zeros_like(np.asarray(d)) if i in without else d for i, d in enumerate(as_tuple(delta))]
    return tuple(parts) if isinstance(delta, tuple | list) else parts[0]


def _zeros_like(part: Value) -> Array:
    a = np.asarray(part)
    return np.zeros(a.shape, np.float64 if a.dtype.kind in "iubO" else a.dtype)


@dataclass(frozen=True)
class Selected:
    """An evaluation of some of the outputs of a rule.

    Attributes:
        evaluate: the rule's.
        positions: the outputs that are judged, in their order.
    """

    evaluate: Evaluate
    positions: tuple[int, ...]

    def __call__(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate; the cotangents of the other outputs are zero."""
        y, pullback = self.evaluate(**primals)
        parts = as_tuple(y)

        def pull(delta: Delta) -> Cotangents:
            given = dict(zip(self.positions, as_tuple(delta), strict=True))
            whole = [given[i] if i in given else _zeros_like(part) for i, part in enumerate(parts)]
            return pullback(tuple(whole) if isinstance(y, tuple | list) else whole[0])

        return self.of(y), pull

    def of(self, y: Value) -> Outputs:
        """Return the outputs that are judged."""
        names, without, parts = names_of(y), without_gradient(y), as_tuple(y)
        kept = {k: without[i] for k, i in enumerate(self.positions) if i in without}
        tree = y.tree if isinstance(y, Outputs) and len(self.positions) == len(parts) else None
        return Outputs([parts[i] for i in self.positions], [names[i] for i in self.positions], kept, tree)


def selected(rule: Rule, positions: Sequence[int], y: Value) -> Rule:
    """Return a rule of some of the outputs of another one, in their order; the same rule if these are all.

    Args:
        rule: the rule.
        positions: the outputs.
        y: all outputs, for their number and shapes.
    """
    keep = tuple(positions)
    if keep == tuple(range(len(as_tuple(y)))):
        return rule
    perturbed = rule.evaluate_perturbed

    def evaluate_perturbed(
        primals: Primals, delta: Delta, perturbation: Perturbation
    ) -> tuple[tuple[Array, ...], Cotangents]:
        assert perturbed is not None
        given = dict(zip(keep, as_tuple(delta), strict=True))
        whole = tuple(given[i] if i in given else _zeros_like(part) for i, part in enumerate(as_tuple(y)))
        parts, cotangents = perturbed(primals, whole, perturbation)
        return tuple(parts[i] for i in keep), cotangents

    evaluate = Selected(rule.evaluate, keep)
    return replace(
        rule,
        evaluate=evaluate,
        evaluate_perturbed=evaluate_perturbed if perturbed is not None else None,
        call_patterns={n: Selected(other, keep) for n, other in rule.call_patterns.items()},
        derived=_selected_derivatives(rule, evaluate, y),
    )


def _selected_derivatives(rule: Rule, selection: Selected, y: Value) -> Derived:
    """Return how to make the rules of what a rule of selected outputs derives."""
    parts, keep = as_tuple(y), selection.positions
    second, tangent = rule.derivatives.second, rule.derivatives.tangent

    def selected_second(wrt: tuple[str, ...], deltas: tuple[str, ...]) -> Rule:
        assert second is not None
        given = dict(zip(keep, deltas, strict=True))
        hidden = {f"delta of output {i}": _zeros_like(part) for i, part in enumerate(parts) if i not in given}
        names = tuple(given.get(i, f"delta of output {i}") for i in range(len(parts)))
        return bound(second(wrt, names), hidden)

    def selected_tangent(tangents: Mapping[str, str]) -> Rule:
        assert tangent is not None
        floating = [i for i, part in enumerate(parts) if not _is_discrete(part)]
        kept = [floating.index(i) for i in keep if i in floating]
        both = [parts[i] for i in floating]
        return selected(tangent(tangents), [*kept, *(len(floating) + k for k in kept)], (*both, *both))

    return Derived(selection, second and selected_second, tangent and selected_tangent)


def bound(rule: Rule, values: Mapping[str, Array]) -> Rule:
    """Return a rule of which some primals have fixed values; their cotangents are left out."""
    if not values:
        return rule
    perturbed = rule.evaluate_perturbed

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        y, pullback = rule.evaluate(**primals, **values)
        return y, lambda delta: _without_names(pullback(delta), values)

    def evaluate_perturbed(
        primals: Primals, delta: Delta, perturbation: Perturbation
    ) -> tuple[tuple[Array, ...], Cotangents]:
        assert perturbed is not None
        y, cotangents = perturbed({**primals, **values}, delta, perturbation)
        return y, _without_names(cotangents, values)

    return replace(rule, evaluate=evaluate, evaluate_perturbed=evaluate_perturbed if perturbed else None, derived=None)


def _without_names(cotangents: Cotangents, names: Collection[str]) -> Cotangents:
    return {n: g for n, g in cotangents.items() if n not in names}


def positions_of(outputs: Value, y: Value) -> tuple[int, ...]:
    """Return the positions of the outputs that are named: by position, by name, or by the beginning of a name.

    Raises:
        InvalidInput: if there is no such output; lists those that there are.
    """
    names, positions = names_of(y), set[int]()
    for wanted in [outputs] if isinstance(outputs, str | int) else list(outputs):
        found = {i for i, name in enumerate(names) if _is_named(name, wanted)}
        if not found and isinstance(wanted, int) and 0 <= wanted < len(names):
            found = {wanted}
        if not found:
            hint = did_you_mean(str(wanted), [*names, *(name.removeprefix(OUTPUT).strip("[].\"'") for name in names)])
            raise InvalidInput(
                f"check: outputs: expected some of {', '.join(names)}, got {wanted!r}{hint}\n"
                f"Fix:    outputs=[{names[0]!r}]"
            )
        positions |= found
    if not positions:
        raise InvalidInput(f"check: outputs: expected some of {', '.join(names)}, got none")
    return tuple(sorted(positions))


def _is_named(name: str, wanted: Value) -> bool:
    forms = [f"{OUTPUT}[{wanted}]"]
    if not isinstance(wanted, int):
        forms = [str(wanted), f'{OUTPUT}["{wanted}"]', f"{OUTPUT}.{wanted}"]
    return any(name == form or (name.startswith(form) and name[len(form)] in "[.") for form in forms)


@dataclass(frozen=True)
class Plan:
    """What of the outputs is judged at one point, and how.

    Attributes:
        subject, oracles: the rules, of the judged outputs alone.
        changed: whether outputs were left out, so that the subject has to be called again.
        without: the positions that get a cotangent of zeros.
        names: what each output is called.
        unclaimed: the names of outputs of which the subject claims no gradient, though an oracle has one.
        positions: those of the judged outputs.
    """

    subject: Rule
    oracles: tuple[Rule, ...]
    changed: bool = False
    without: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    unclaimed: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()

    def delta_of(self, delta: Value, y: Value) -> Value:
        """Return the cotangents of the judged outputs, of one that a user gives for these or for all."""
        if delta is None or len(as_tuple(delta)) == len(self.names):
            return delta
        whole = as_tuple(flat_delta(delta, y))
        return tuple(whole[i] for i in self.positions) if len(whole) == len(as_tuple(y)) else delta


def plan_of(subject: Rule, y: Value, oracles: Sequence[Rule], primals: Primals, outputs: Value = None) -> Plan:
    """Return which outputs are judged, by what the subject returned and by what its references return.

    A reference is asked only if there are several outputs, or a structure of them.

    Args:
        subject: the subject.
        y: what it returned at the point.
        oracles: the oracles.
        primals: the point.
        outputs: the outputs that are judged; ``None`` for all.

    Raises:
        InvalidInput: if outputs of the subject and of a reference do not belong together; names them.
    """
    own = range(len(as_tuple(y))) if outputs is None else positions_of(outputs, y)
    if not isinstance(y, Outputs) and len(as_tuple(y)) == 1:
        return Plan(subject, tuple(oracles), names=names_of(y))
    answers = _answers(oracles, primals)
    # What carries no gradient is compared where a reference has it.
    matches = [_matched(own, y, theirs) for theirs in answers.values()]
    silent = without_gradient(y)
    keep = [i for i in own if i not in silent or not matches or any(i in pairs for pairs in matches)]
    if len(keep) < len(own):
        note(f"no oracle has {', '.join(names_of(y)[i] for i in own if i not in keep)}: not judged")
    rule = selected(subject, keep, y)
    judges, by_references = [], []
    for oracle in oracles:
        if oracle.name not in answers:
            judges.append(_of_subject(oracle, rule) if rule is not subject else oracle)
            continue
        theirs = answers[oracle.name]
        pairs = _matched(keep, y, theirs)
        _require_all(pairs, keep, y, theirs, oracle.name, outputs is not None)
        # Of plain tuples of other lengths the judge itself reports what is missing.
        positions = [pairs[i] for i in keep] if all(i in pairs for i in keep) else range(len(as_tuple(theirs)))
        judges.append(selected(oracle, positions, theirs))
        by_references.append(without_gradient(Selected(oracle.evaluate, tuple(positions)).of(theirs)))
    chosen = Selected(subject.evaluate, tuple(keep)).of(y)
    without, unclaimed = _without(without_gradient(chosen), by_references, chosen.names)
    return Plan(rule, tuple(judges), rule is not subject, without, chosen.names, unclaimed, tuple(keep))


def _answers(oracles: Sequence[Rule], primals: Primals) -> dict[str, Value]:
    """Return what each reference returns at the point; one that raises is left to the judge."""
    wide = with_dtype(dict(primals), np.float64)
    called = {o.name: attempt(partial(_output_of, o, wide)) for o in oracles if o.reference is not None}
    return {name: y for name, y in called.items() if not isinstance(y, Raised)}


def _output_of(rule: Rule, primals: Primals) -> Value:
    return rule(**primals)[0]


def _of_subject(oracle: Rule, subject: Rule) -> Rule:
    """Return the oracle that differentiates the subject's own primal for another subject."""
    is_own = oracle.adapt is not None and isinstance(oracle.implementation, Rule)
    return oracle.adapt(subject) if is_own and oracle.adapt is not None else oracle


def _without(
    own: Mapping[int, str], by_references: Sequence[Mapping[int, str]], names: Sequence[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the outputs that carry no gradient, and those of which only the subject says so.

    A reference says so by its own autograd. What the subject detaches without a word counts where there is no
    reference, and what it says does not count if no output were left.
    """
    theirs = {i: reason for each in by_references for i, reason in each.items()}
    claimed = {i: r for i, r in own.items() if r != DETACHED or not by_references}
    if by_references and len({*claimed, *theirs}) == len(names) > len(theirs):
        claimed = {}
    for i, reason in theirs.items():
        if reason == DETACHED:
            note(f"{names[i]} carries no gradient in the reference: compared as a value")
    unclaimed = [i for i, r in claimed.items() if i not in theirs and r != INTEGERS and by_references]
    return tuple(sorted({*claimed, *theirs})), tuple(names[i] for i in unclaimed)


def _matched(own: Sequence[int], y: Value, theirs: Value) -> dict[int, int]:
    """Return which output of a reference belongs to each output of the subject.

    By their names if both have names of the user's, else by position: of all outputs, of those that are wanted, or of
    those that carry a gradient.
    """
    names, other = list(map(_by_key, names_of(y))), list(map(_by_key, names_of(theirs)))
    by_name = {i: other.index(names[i]) for i in own if names[i] in other}
    count, carrying = len(other), [i for i in own if i not in without_gradient(y)]
    if _is_keyed(names) and _is_keyed(other):
        return by_name
    for candidates in (range(len(names)), own, carrying):
        if count == len(candidates):
            pairs = dict(zip(candidates, range(count), strict=True))
            return {i: pairs[i] for i in own if i in pairs}
    return by_name


def _by_key(name: str) -> str:
    """Return a name in which a field is a key: a namedtuple may stand for a dict."""
    return re.sub(r"\.(\w+)", r'["\1"]', name)


def _is_keyed(names: Sequence[str]) -> bool:
    """Return whether outputs have names of the user's, and not positions alone."""
    return any(not re.fullmatch(r"output(\[\d+\])*", name) for name in names)


def _require_all(
    pairs: Mapping[int, int], keep: Sequence[int], y: Value, theirs: Value, label: str, selects: bool
) -> None:
    """Require that subject and reference have the same outputs, if one of both names them.

    Raises:
        InvalidInput: if one has an output that the other lacks, or several are named by keys on one side alone.
    """
    names, other = names_of(y), names_of(theirs)
    by_keys = ['["' in "".join(n for n in each if n.startswith(OUTPUT)) for each in (names, other)]
    lacking = [names[i] for i in keep if i not in pairs]
    extra = [] if selects else [n for k, n in enumerate(other) if k not in pairs.values() and not n.startswith(AUX)]
    both = _is_keyed(names) and _is_keyed(other)
    ambiguous = by_keys[0] != by_keys[1] and not both and len(pairs) > 1
    if not (((lacking or extra) and (both or any(by_keys))) or ambiguous):
        return
    problem = f"{label} has no {', '.join(lacking)}" if lacking else f"the subject has no {', '.join(extra)}"
    if not (lacking or extra):
        problem = "which belongs to which is not known"
    raise InvalidInput(
        f"outputs: the subject returns {', '.join(names)}, and {label} {', '.join(other)}: {problem}.\n"
        f"Fix: return the same names, or select:    outputs=[{names[0]!r}]"
    )


def shown(result: Result, names: Sequence[str], unclaimed: Sequence[str] = ()) -> Result:
    """Return a result with the outputs called as their user does.

    Args:
        result: the result, in the judge's names.
        names: what each output is called.
        unclaimed: outputs of which the subject claims no gradient.
    """
    renamed = {core: name for core, name in zip(core_names(len(names)), names, strict=True) if core != name}
    not_claimed = tuple(dict.fromkeys((*result.not_claimed, *unclaimed)))
    if not renamed:
        return replace(result, not_claimed=not_claimed) if unclaimed else result
    findings = tuple(_shown_finding(f, renamed) for f in result.findings)
    notes = tuple(in_words(text, renamed) for text in result.notes)
    return replace(result, findings=findings, notes=notes, not_claimed=not_claimed, shown=renamed)


def _shown_finding(finding: Finding, renamed: Mapping[str, str]) -> Finding:
    evidence = finding.evidence
    evidence = replace(evidence, reason=in_words(evidence.reason, renamed), fix=in_words(evidence.fix, renamed))
    name = renamed.get(finding.quantity)
    if name is None:
        return replace(finding, evidence=evidence)
    return replace(finding, quantity=name, evidence=evidence, is_output=True)


def in_words(text: str, renamed: Mapping[str, str]) -> str:
    """Return a text with the outputs called as their user does; a lone "output" is a word, and stays."""
    parts = {core: name for core, name in renamed.items() if core != OUTPUT}
    return re.sub(r"(?<![\w.])output\[\d+\]", lambda found: parts.get(found[0], found[0]), text) if parts else text


def in_core(result: Result) -> Result:
    """Return a result with the outputs called as the judge does, to evaluate them again."""
    if not result.shown:
        return result
    core = {name: n for n, name in result.shown.items()}
    findings = tuple(
        replace(f, quantity=core[f.quantity]) if f.is_output and f.quantity in core else f for f in result.findings
    )
    return replace(result, findings=findings, shown={})
