"""What a composite around one layer takes from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from ..protocol import Layer, Params, inputs_of, outputs_of
from ..routing import require_layers, stated_width


@dataclass(frozen=True)
class Around:
    """A composite around one layer f: parameters and side arrays are f's, under f's names."""

    f: Layer

    def __post_init__(self) -> None:
        require_layers(type(self).__name__, (self.f,))

    @property
    def inputs(self) -> tuple[str, ...]:
        """z, and f's side inputs."""
        return ("z", *inputs_of(self.f)[1:])

    @property
    def outputs(self) -> tuple[str, ...]:
        """y, and f's side outputs."""
        return ("y", *outputs_of(self.f)[1:])

    @property
    def n_in(self) -> int | None:
        """The number of columns that f expects, where it says it."""
        return stated_width(self.f, "n_in")

    @property
    def n_out(self) -> int | None:
        """The number of columns that f gives, where it says it."""
        return stated_width(self.f, "n_out")

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw f's parameters."""
        return self.f.init(rng, dtype)
