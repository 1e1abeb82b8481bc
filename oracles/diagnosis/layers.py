"""The first wrong layer on the way back: each layer of a refused network, judged alone at the call that it got.

A network is an object that holds others with a forward and a backward of their own: a `Sequential` of manual_bp, a
class with a list of layers or with layers as attributes, an nn.Module with children. One evaluation of the network
tells each layer's inputs and the delta that it received. With these, finite differences of the layer's own forward
judge what it returned: that is right or wrong whatever the layers after it did. So no reference is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from oracles.constants import LAYER_ENTRIES, LAYER_RESOLUTION, MOST_LAYERS
from oracles.decision.judge import judge
from oracles.decision.reduced_point import count_inputs
from oracles.diagnosis.experiments import result_or_none
from oracles.diagnosis.layer_calls import LayerCall, Recording, recorded_calls
from oracles.diagnosis.module_calls import ModuleCall, module_calls
from oracles.finite_differences import directional_derivative, finite_difference
from oracles.numerics import Numerics, confidence, unit_roundoff
from oracles.rule import Array, Output, Primals, Rule, Runtime, as_tuple, is_differentiable, is_real, with_dtype
from oracles.time_budget import require_time
from oracles.tolerance import values_of
from oracles.verdict import SELF_CONSISTENCY, Result, Setting

Judged: TypeAlias = Result | None


LAYER = "the first wrong layer on the way back"


@dataclass(frozen=True)
class WrongLayer:
    """A layer whose backward is wrong, all those that come before it on the way back being right.

    Attributes:
        location: where it is in the network: "layers[2]".
        kind: the name of its class.
        result: the refusal of the layer alone; ``None`` if the gradient of one of its parameters is refused.
    """

    location: str
    kind: str
    result: Result | None = None

    def __str__(self) -> str:
        return f"{LAYER}: {self.location} ({self.kind})"


def first_wrong_layer(result: Result) -> WrongLayer | None:
    """Return the first wrong layer on the way back; ``None`` if there are no layers, or no single one is wrong."""
    setting = result.setting
    refused = {f.quantity for f in result.findings if f.refuses and f.oracle != SELF_CONSISTENCY}
    if setting is None or not refused or any(n.split("[")[0] == "output" for n in refused):
        return None
    if setting.subject.implementation is None:
        return None
    if setting.subject.runtime is Runtime.TORCH:
        return result_or_none(partial(_first_module, setting))
    if setting.subject.runtime is not Runtime.NUMPY:
        return None
    recording = result_or_none(partial(recorded_calls, setting.subject, setting.primals, setting.delta))
    return _first_layer(recording, setting, refused) if recording is not None else None


def _first_layer(recording: Recording, setting: Setting, refused: Collection[str]) -> WrongLayer | None:
    inner = [call for call in recording.calls if not recording.is_root(call)]
    if len(inner) > MOST_LAYERS:
        return None
    for number, call in enumerate(inner):
        require_time()
        location = recording.location(call) or f"number {number + 1} of {len(inner)} on the way back"
        wrong = WrongLayer(location, type(call.layer).__name__)
        judged = result_or_none(partial(_judged_layer, call, setting.numerics))
        if judged is not None and judged.refuses:
            return WrongLayer(wrong.location, wrong.kind, judged)
        # The delta of this layer is right, so a wrong gradient of its parameter is its own.
        if any(_holds(call, setting.primals[n]) for n in refused if n in setting.primals):
            return wrong
        if judged is None:
            return None  # it could not be judged, and a later one need not be the first
    return None


def _judged_layer(call: LayerCall, numerics: Numerics) -> Result | None:
    """Judge a layer at the call that it got; ``None`` if it does not answer alone what it answered in the network."""
    rule, primals = call.rule(), call.primals
    y, pullback = rule(**primals)
    again = pullback(call.delta)
    before = call.named(call.returned, primals)
    if not primals or not _equal(as_tuple(y), as_tuple(call.output)) or again.keys() != before.keys():
        return None
    if not again or not all(_equal((again[n],), (before[n],)) for n in again):
        return None
    return _judged(rule, primals, call.delta, numerics)


def _judged(rule: Rule, primals: Primals, delta: Output, numerics: Numerics) -> Result:
    # Every entry that is measured takes twenty evaluations, and most layers of a wrong network are right.
    if _is_right_along_a_direction(rule, primals, delta, numerics.store):
        return Result(rule.name, "layer", ())
    oracle = finite_difference(rule, most=LAYER_ENTRIES)
    return judge(rule, primals, delta, (oracle,), numerics=numerics, property_name="layer")


def _is_right_along_a_direction(rule: Rule, primals: Primals, delta: Output, precision: str) -> bool:
    """Return whether ⟨g, v⟩ is the slope along v, a random direction of all primals, up to rounding."""
    rng = np.random.default_rng(0)
    wide, wide_delta = with_dtype(dict(primals), np.float64), with_dtype(delta, np.float64)
    direction = {n: rng.standard_normal(a.shape) for n, a in wide.items() if is_differentiable(a)}
    cotangents = values_of(rule, primals, delta)
    g = {n: np.asarray(cotangents[n], np.float64) for n in direction if is_real(cotangents.get(n))}
    if {n: a.shape for n, a in g.items()} != {n: v.shape for n, v in direction.items()}:
        return False
    # For an error e of the gradient, a random direction gives about the size ‖e‖.
    size = float(np.sqrt(sum(np.sum(a * a) for a in g.values())))
    slope, radius = directional_derivative(rule, wide, wide_delta, direction, narrow=True)
    error = abs(sum(float(np.sum(g[n] * v)) for n, v in direction.items()) - slope)
    rounding = confidence(precision) * unit_roundoff(precision) * np.sqrt(count_inputs(primals)) * size
    return bool(radius <= LAYER_RESOLUTION * size and error <= radius + rounding)


def _equal(first: Sequence[Array], second: Sequence[Array]) -> bool:
    pairs = list(zip(first, second, strict=False))
    return len(first) == len(second) and all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _holds(call: LayerCall, array: Array) -> bool:
    """Return whether an array is one of the layer's own, or was given to it as a parameter."""
    own = [v for v in _arrays_of(call.before) if v.shape == np.shape(array)]
    return np.size(array) > 1 and any(np.array_equal(v, array) for v in own)


def _arrays_of(layer: object) -> list[Array]:
    """Return the arrays that a layer holds, in dicts and lists too, and not those of layers inside."""
    pending: list[object] = list(getattr(layer, "__dict__", {}).values())
    found: list[Array] = []
    while pending:
        value = pending.pop()
        if isinstance(value, np.ndarray):
            found.append(value)
        elif isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list | tuple):
            pending += value
    return found


def _first_module(setting: Setting) -> WrongLayer | None:
    calls = _inner_first(module_calls(setting.subject, setting.primals, setting.delta))
    for call in calls if len(calls) <= MOST_LAYERS else ():
        require_time()
        judged = result_or_none(partial(_judged, call.rule(), call.primals, call.delta, setting.numerics))
        if judged is None:
            return None
        if judged.refuses:
            return WrongLayer(call.location, type(call.module).__name__, judged)
    return None


def _inner_first(calls: Sequence[ModuleCall]) -> list[ModuleCall]:
    """Move every module behind those inside it: its delta is that of its last one, and comes before the others."""
    ends = {
        call.location: max(i for i, c in enumerate(calls) if f"{c.location}.".startswith(f"{call.location}."))
        for call in calls
    }
    return sorted(calls, key=lambda call: (ends[call.location], -len(call.location)))
