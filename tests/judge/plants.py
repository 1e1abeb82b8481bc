"""Wrong backwards as public bug reports show them, each with the check that must kill it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from manual_bp import HalfSquaredError, Linear, SoftmaxCrossEntropy
from oracles import Case, Rule, manual, manual_layer, manual_loss
from oracles.cases.activations import relu as relu_twin
from oracles.cases.activations import sigmoid as sigmoid_twin
from oracles.cases.activations import softmax as softmax_twin
from oracles.cases.layers import linear as linear_twin
from oracles.cases.losses import half_squared_error as half_twin
from oracles.cases.losses import softmax_cross_entropy as cross_twin
from oracles.strategies import nonnegative, real, rows, widths


@dataclass(frozen=True)
class Plant:
    """A wrong subject, the case it poses as, and the name of the check that must refuse it."""

    name: str
    killer: str
    cases: Callable[[st.DrawFn], Case]
    subject: Callable[[], Rule]

    def planted(self) -> st.SearchStrategy[Case]:
        @st.composite
        def draw_case(draw: st.DrawFn) -> Case:
            return replace(self.cases(draw), subject=self.subject())

        return draw_case()

    def sound(self) -> st.SearchStrategy[Case]:
        return st.composite(self.cases)()


PLANTS: list[Plant] = []


def plant(killer: str, cases: Callable[[st.DrawFn], Case]) -> Callable[[Callable[[], Rule]], Callable[[], Rule]]:
    def add(subject: Callable[[], Rule]) -> Callable[[], Rule]:
        PLANTS.append(Plant(subject.__name__, killer, cases, subject))
        return subject

    return add


def linear(draw: st.DrawFn) -> Case:
    n, n_in, n_out = draw(rows()), draw(widths(5)), draw(widths(5))
    primals = {"z": real(n, n_in), "W": real(n_in, n_out), "b": real(1, n_out)}
    subject = manual_layer(Linear(n_in, n_out))
    return Case(subject, primals, linear_twin.torch_reference, linear_twin.jax_reference, batched=("z",))


def on_rows(twin: Any) -> Callable[[st.DrawFn], Case]:
    def cases(draw: st.DrawFn) -> Case:
        case: Case = next(getattr(twin, n) for n in dir(twin) if n == twin.__name__.rsplit(".", 1)[1])(draw)
        return case

    return cases


def half(draw: st.DrawFn) -> Case:
    shape = draw(rows()), draw(widths(4))
    return Case(
        manual_loss(HalfSquaredError("sum")),
        {"y": real(*shape), "target": real(*shape)},
        half_twin.torch_reference,
        half_twin.jax_reference,
        {"reduction": "sum"},
        ("y", "target"),
    )


def cross(draw: st.DrawFn) -> Case:
    shape = draw(rows()), draw(widths(4))
    return Case(
        manual_loss(SoftmaxCrossEntropy("sum")),
        {"y": real(*shape), "target": nonnegative(*shape)},
        cross_twin.torch_reference,
        cross_twin.jax_reference,
        {"reduction": "sum"},
        ("y", "target"),
    )


def of_linear(backward: Callable[..., Any], forward: Callable[..., Any] | None = None) -> Rule:
    return manual(forward or (lambda z, W, b: (z @ W + b, (z, W))), backward)


def right(cache: Any, delta: Any) -> dict[str, Any]:
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": delta.sum(0, keepdims=True)}


def but(**wrong: Callable[..., Any]) -> Rule:
    """The right backward of a Linear with some cotangents replaced."""
    return of_linear(lambda c, d: {**right(c, d), **{n: f(*c, d) for n, f in wrong.items()}})


@plant("cotangents_agree", linear)
def bias_gradient_not_summed_over_the_batch() -> Rule:
    return but(b=lambda z, W, d: d.copy())


@plant("batch_is_a_sum", linear)
def mean_where_a_sum_belongs() -> Rule:
    return but(W=lambda z, W, d: z.T @ d / z.dtype.type(max(len(z), 1)))


@plant("pullback_is_linear", linear)
def delta_assumed_to_be_ones() -> Rule:
    return but(W=lambda z, W, d: z.T @ np.ones_like(d))


@plant("pullback_is_linear", linear)
def magnitude_of_delta() -> Rule:
    return but(z=lambda z, W, d: np.abs(d) @ W.T)


@plant("cotangents_agree", linear)
def only_the_first_row_of_delta() -> Rule:
    return but(b=lambda z, W, d: d[:1].copy() if len(d) else d.sum(0, keepdims=True))


@plant("cotangents_agree", linear)
def weight_not_transposed_right_for_square_symmetric() -> Rule:
    return but(z=lambda z, W, d: d @ W if W.shape[0] == W.shape[1] else d @ W.T)


@plant("cotangents_agree", linear)
def pullback_that_fits_square_weights_alone() -> Rule:
    return but(z=lambda z, W, d: d @ W)


@plant("cotangents_agree", linear)
def half_precision_inside() -> Rule:
    return but(W=lambda z, W, d: (z.astype(np.float16).T @ d.astype(np.float16)).astype(z.dtype))


@plant("cotangents_agree", linear)
def one_entry_off_by_a_billionth() -> Rule:
    def slightly(z: Any, W: Any, d: Any) -> Any:
        g = z.T @ d
        g[-1, -1] *= g.dtype.type(1 + 1e-9 if g.dtype == np.float64 else 1 + 1e-4)
        return g

    return but(W=slightly)


@plant("nothing_mutated_or_aliased", linear)
def delta_scaled_in_place() -> Rule:
    def backward(cache: Any, delta: Any) -> Any:
        if delta.flags.writeable:
            delta *= delta.dtype.type(2)
        return right(cache, delta / 2)

    return of_linear(backward)


@plant("nothing_mutated_or_aliased", linear)
def bias_gradient_is_a_view_of_delta() -> Rule:
    return but(b=lambda z, W, d: d[:1] if len(d) == 1 else d.sum(0, keepdims=True))


@plant("layout_blind", linear)
def delta_read_in_memory_order() -> Rule:
    return but(z=lambda z, W, d: d.ravel(order="K").reshape(d.shape) @ W.T)


@plant("shapes_and_dtypes_exact", linear)
def gradient_always_in_float64() -> Rule:
    return but(W=lambda z, W, d: (z.T @ d).astype(np.float64))


@plant("same_every_time", linear)
def cache_kept_on_the_object_and_overwritten() -> Rule:
    kept: dict[str, Any] = {}

    def forward(z: Any, W: Any, b: Any) -> Any:
        kept["cache"] = z, W
        return z @ W + b, None

    return of_linear(lambda cache, delta: right(kept["cache"], delta), forward)


@plant("same_every_time", linear)
def gradient_accumulates_over_calls() -> Rule:
    def forward(z: Any, W: Any, b: Any) -> Any:
        return z @ W + b, (z, W, [np.zeros_like(W)])

    def backward(cache: Any, delta: Any) -> Any:
        z, W, total = cache
        total[0] = total[0] + z.T @ delta
        return {**right((z, W), delta), "W": total[0].copy()}

    return of_linear(backward, forward)


@plant("primal_agrees", linear)
def bias_forgotten_in_forward() -> Rule:
    return of_linear(right, lambda z, W, b: (z @ W, (z, W)))


@plant("batch_is_a_sum", linear)
def rows_leak_into_each_other() -> Rule:
    return but(z=lambda z, W, d: (d - d.mean(0, keepdims=True) if len(d) else d) @ W.T)


@plant("adjoint_of_own_primal", half)
def factor_two_between_loss_and_delta() -> Rule:
    def forward(y: Any, target: Any) -> Any:
        return np.square(y - target).sum() / 2, y - target

    return manual(forward, lambda error, delta: {"y": 2 * error * delta})


@plant("cotangents_agree", cross)
def softmax_gradient_right_only_where_targets_sum_to_one() -> Rule:
    def forward(y: Any, target: Any) -> Any:
        value, _ = SoftmaxCrossEntropy("sum").forward(y, target)
        e = np.exp(y - y.max(1, keepdims=True))
        return value, e / e.sum(1, keepdims=True) - target

    return manual(forward, lambda error, delta: {"y": error * delta})


def _softmax(z: Any) -> Any:
    e = np.exp(z - z.max(-1, keepdims=True, initial=-np.inf))
    return e / e.sum(-1, keepdims=True)


@plant("cotangents_agree", on_rows(softmax_twin))
def softmax_jacobian_without_its_off_diagonal() -> Rule:
    return manual(lambda z: (_softmax(z), _softmax(z)), lambda a, delta: {"z": delta * a * (1 - a)})


@plant("cotangents_agree", on_rows(softmax_twin))
def softmax_gradient_all_zero() -> Rule:
    return manual(lambda z: (_softmax(z), z), lambda z, delta: {"z": np.zeros_like(z)})


@plant("primal_agrees", on_rows(sigmoid_twin))
def sigmoid_overflows_to_nan() -> Rule:
    def forward(z: Any) -> Any:
        with np.errstate(all="ignore"):
            y = np.exp(z) / (1 + np.exp(z))
        return y, y

    return manual(forward, lambda y, delta: {"z": delta * y * (1 - y)})


@plant("cotangents_agree", on_rows(relu_twin))
def relu_passes_delta_at_zero() -> Rule:
    return manual(lambda z: (np.maximum(z, 0), z), lambda z, delta: {"z": delta * (z >= 0)})
