"""One function of a package: how to call it, where, and what torch and JAX call it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import oracles

ANY, POSITIVE, UNIT, SIGNED_UNIT, ABOVE_ONE = "any", "positive", "unit", "signed unit", "above one"
# What makes an array of the domain of one of numbers.
DOMAINS = {
    ANY: lambda x: x,
    POSITIVE: lambda x: np.abs(x) + 2.0**-4,
    UNIT: lambda x: 0.02 + 0.96 / (1 + np.exp(-x)),
    SIGNED_UNIT: lambda x: 0.98 * np.tanh(x),
    ABOVE_ONE: lambda x: 1 + 2.0**-4 + np.abs(x),
}


@dataclass(frozen=True)
class Package:
    """A function of a package, and where it is judged.

    Attributes:
        name: its name, for the test's id and the list of refusals.
        function: takes the package's arrays.
        shapes: of its primals.
        domains: of its primals; the first one for all if there are no others.
        torch, jax: the references; without any, finite differences judge.
        declares: arguments of `oracles.declared`.
        make: makes the primals of a generator, in the place of shapes and domains.
    """

    name: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...] = ((3, 4),)
    domains: tuple[str, ...] = (ANY,)
    torch: Callable[..., Any] | None = None
    jax: Callable[..., Any] | None = None
    declares: Any = None
    make: Callable[[np.random.Generator], dict[str, np.ndarray]] | None = None

    def primals(self, point: str) -> dict[str, np.ndarray]:
        """Return the primals at one of POINTS."""
        rng = np.random.default_rng(POINTS.index(point))
        if self.make is not None:
            return self.make(rng)
        domains = self.domains * (len(self.shapes) if len(self.domains) == 1 else 1)
        arrays = {}
        for i, (shape, domain) in enumerate(zip(self.shapes, domains, strict=True)):
            x = rng.standard_normal(shape)
            if point == "small":
                x = x * 2.0**-20
            elif point == "large":
                x = x * 24.0
            elif point == "ties":
                x = rng.integers(-1, 2, shape).astype(float)
            arrays["xyzuvw"[i]] = np.asarray(DOMAINS[domain](x))
        return arrays

    def against(self) -> list[oracles.Rule]:
        """Return the oracles."""
        found = [] if self.torch is None else [oracles.torch_autograd(positional(self.torch))]
        return found + ([] if self.jax is None else [oracles.jax_vjp(positional(self.jax))])


def positional(function):
    """Return a function that takes its arguments by name in their order, whatever it calls them."""
    return lambda **arrays: function(*arrays.values())


POINTS = ("ordinary", "small", "large", "ties")
