"""Reference cases of `HalfSquaredError` and `Huber`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from hypothesis import strategies as st

from manual_bp import HalfSquaredError, Huber
from oracles.adapters.functions import manual_loss
from oracles.lazy_modules import F, JaxArray, Tensor, jnp
from oracles.references._reduction import reduced
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import real, rows, widths


def half_squared_error_options(loss: HalfSquaredError) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {"reduction": loss.reduction}


def half_squared_error_torch(y: Tensor, target: Tensor, reduction: str) -> Tensor:
    """torch's mse_loss has no ½, and its mean is over the entries, not the rows."""
    return reduced(F.mse_loss(y, target, reduction="none").sum(1) / 2, reduction)


def half_squared_error_jax(y: JaxArray, target: JaxArray, reduction: str) -> JaxArray:
    """½ Σ (y − y*)² by row."""
    return reduced(jnp.square(y - target).sum(axis=1) / 2, reduction)


HALF_SQUARED_ERROR_REFERENCE = Reference(
    half_squared_error_torch, half_squared_error_jax, options=half_squared_error_options
)


@oracle_for(HalfSquaredError, reference=HALF_SQUARED_ERROR_REFERENCE)
def half_squared_error(draw: st.DrawFn) -> Case:
    """Any rows and widths, every reduction. A mean is no sum over the rows, so it is not batched."""
    loss = HalfSquaredError(draw(st.sampled_from(("sum", "mean", "none"))))
    shape = draw(rows()), draw(widths())
    return HALF_SQUARED_ERROR_REFERENCE.case(
        manual_loss(loss),
        {"y": real(*shape), "target": real(*shape)},
        batched=() if loss.reduction == "mean" else ("y", "target"),
    )


def huber_options(loss: Huber) -> Mapping[str, Hashable]:
    """Return the configuration that the references need."""
    return {"reduction": loss.reduction, "threshold": loss.threshold}


def huber_torch(y: Tensor, target: Tensor, reduction: str = "mean", threshold: float = 1.0) -> Tensor:
    """torch's mean is over the entries, manual_bp's over the rows."""
    return reduced(F.huber_loss(y, target, reduction="none", delta=threshold).sum(1), reduction)


def huber_jax(y: JaxArray, target: JaxArray, reduction: str = "mean", threshold: float = 1.0) -> JaxArray:
    """By its two pieces."""
    error = jnp.abs(y - target)
    each = jnp.where(error <= threshold, error * error / 2, threshold * (error - threshold / 2))
    return reduced(each.sum(1), reduction)


HUBER_REFERENCE = Reference(huber_torch, huber_jax, options=huber_options)


@oracle_for(Huber, reference=HUBER_REFERENCE)
def huber(draw: st.DrawFn) -> Case:
    """Any rows and widths, every reduction, thresholds that all, some or no errors exceed."""
    loss = Huber(draw(st.sampled_from(("mean", "sum", "none"))), draw(st.sampled_from((1.0, 0.3, 1e-4, 1e6))))
    shape = draw(rows()), draw(widths())
    return HUBER_REFERENCE.case(
        manual_loss(loss),
        {"y": real(*shape), "target": real(*shape)},
        batched=() if loss.reduction == "mean" else ("y", "target"),
    )
