"""Layer normalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .row_norm import RowNorm


@dataclass(frozen=True)
class LayerNorm(RowNorm):
    """Each sample's last axes, of the given shape, are brought to mean 0 and variance 1.

    With μ and σ² = mean (z − μ)² over those axes, n entries, and z̃ = (z − μ)/√(σ² + ε),

        y = γ z̃ + β                                                                       (43)
        ∂L/∂z = (g − mean g − z̃ mean(g z̃))/√(σ² + ε), g = γ δ                             (44)
        ∂L/∂γ = Σ δ z̃, ∂L/∂β = Σ δ, over all samples                                       (45)

    The variance is that of the n entries, not an estimate over n − 1. `affine=False` leaves γ and β out.

    Shapes: z, y (…, *shape), at least one axis before those, any of which may be 0; gamma, beta `shape`; a number
    stands for one axis.
    Dtypes: z, gamma, beta share one of float16, float32, float64, longdouble, object; y and gradients have it too;
    float16 is computed in float32.
    Raises: ValueError for a wrong shape or parameter name, or an eps that is not positive; TypeError for a wrong or
    mixed dtype.
    Source: Ba, Kiros & Hinton 2016, "Layer Normalization".
    """

    centred: ClassVar[bool] = True
