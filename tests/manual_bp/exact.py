"""Arrays of exact fractions, and what to fill a drawn case with: there is no rounding to tolerate."""

from fractions import Fraction
from math import isqrt

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
    primals = {name: fractions(rng, *specification.shape) for name, specification in case.primals.items()}
    return case.subject.implementation, primals, rng


class Roots(np.ndarray):
    """Fractions of which NumPy may take the root, where that is a fraction."""

    __array_priority__ = 1  # so that a product with plain fractions stays one of these

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [x.view(np.ndarray) if isinstance(x, Roots) else x for x in inputs]
        if out is not None:
            options["out"] = tuple(x.view(np.ndarray) for x in out)
        result = _ROOT(*plain) if ufunc is np.sqrt else getattr(ufunc, method)(*plain, **options)
        return out[0] if out is not None else np.asarray(result, object).view(Roots)


def root(x):
    root = Fraction(isqrt(x.numerator), isqrt(x.denominator))
    assert root * root == x
    return root


_ROOT = np.frompyfunc(root, 1, 1)
