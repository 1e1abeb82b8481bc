"""Root-mean-square normalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .row_norm import RowNorm


@dataclass(frozen=True)
class RMSNorm(RowNorm):
    """Each sample's last axes, of the given shape, are brought to mean square 1.

    With ρ² = mean z² over those axes, and z̃ = z/√(ρ² + ε),

        y = γ z̃                                                                           (46)
        ∂L/∂z = (g − z̃ mean(g z̃))/√(ρ² + ε), g = γ δ; ∂L/∂γ = Σ δ z̃ over all samples       (47)

    `affine=False` leaves γ out.

    Shapes: z, y (…, *shape), at least one axis before those, any of which may be 0; gamma `shape`; a number stands
    for one axis.
    Dtypes: z, gamma share one of float16, float32, float64, longdouble, object; y and gradients have it too; float16
    is computed in float32.
    Raises: ValueError for a wrong shape or parameter name, or an eps that is not positive; TypeError for a wrong or
    mixed dtype.
    Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization".
    Differs from torch's RMSNorm: eps is 1e-5 unless given, in every precision, because a layer's function should not
    depend on the dtype that it is fed; torch takes the dtype's machine epsilon.
    """

    centred: ClassVar[bool] = False
