"""Reference cases of `SwiGLU`."""

from __future__ import annotations

from hypothesis import strategies as st

from manual_bp import SwiGLU
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import F, JaxArray, Tensor, jax, jnp
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import real, rows, widths


def swiglu_torch(z: Tensor) -> Tensor:
    """torch has silu, and no unit that it gates."""
    gates, units = z.chunk(2, dim=-1)
    return F.silu(gates) * units


def swiglu_jax(z: JaxArray) -> JaxArray:
    """The two halves by split."""
    gates, units = jnp.split(z, 2, axis=-1)
    return jax.nn.silu(gates) * units


SWIGLU_REFERENCE = Reference(swiglu_torch, swiglu_jax)


@oracle_for(SwiGLU, reference=SWIGLU_REFERENCE)
def swiglu(draw: st.DrawFn) -> Case:
    """Any even last axis of arrays of rank 1 to 3."""
    n = draw(rows())
    shape = *draw(st.sampled_from(((n,), (n, 2), (n,), ()))), 2 * draw(widths(4))
    return SWIGLU_REFERENCE.case(
        manual_layer(SwiGLU()),
        {"z": real(*shape)},
        batched=("z",) if len(shape) > 1 else (),
    )
