"""Arrays of exact fractions, and what to fill a drawn case with: there is no rounding to tolerate."""

from fractions import Fraction

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)
exactly = settings(max_examples=25, deadline=None)


def fractions(rng, *shape):
    result = np.empty(shape, object)
    for index in np.ndindex(*shape):
        result[index] = Fraction(int(rng.integers(-20, 21)), int(rng.integers(1, 8)))
    return result


def filled(case, seed):
    """A drawn case's layer, fractions for its primals, and the generator to draw more from."""
    rng = np.random.default_rng(seed)
    return case.subject.lifted, {name: fractions(rng, *drawn.shape) for name, drawn in case.primals.items()}, rng
