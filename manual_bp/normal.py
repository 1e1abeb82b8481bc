"""The normal distribution: Φ, its upper tail included to the last few ulp, and its density φ.

NumPy has no erf. With S(x) = e^{x²/2} Φ(−x), which falls from ½ to 1/(x√2π) and never under- or
overflows, Φ(−x) = e^{−x²/2} S(x) keeps its digits as far as it can be represented, where 1 − Φ(x) or
½ + ½ erf would keep none.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .precision import carried
from .protocol import Array
from .validation import OBJECT

# (x + 4) S(x) in powers of t = (x − 4)/(x + 4), which maps 0 … ∞ to −1 … 1: the Chebyshev series of
# that function up to T_30, whose rest is below a tenth of longdouble's u.
# fmt: off
SCALED_TAIL = (
    "0.755285130415751493368028", "-0.607896641971892107061750", "0.387137400742214473579670",
    "-0.186521857959656966750312", "0.0603965748909426202116930", "-0.00754018896674748397832384",
    "-0.00347969236758934857976211", "0.00163081845807560697814390", "0.000133344315553187034480236",
    "-0.000231094940605913919691826", "-1.90828769725612668300124e-6", "3.51447190838884864740926e-5",
    "7.16836688765217789320018e-7", "-5.92028525183742749604492e-6", "-6.30346402885709273225606e-7",
    "1.02173571770512009424321e-6", "2.73451035402404130782340e-7", "-1.54921580645245472283255e-7",
    "-8.81539255021165354460249e-8", "1.25021082955592215096760e-8", "2.25087452420390366050164e-8",
    "3.42274333709921987685884e-9", "-4.24328977372341156937110e-9", "-2.10542841463777684044248e-9",
    "4.02725597753475015226904e-10", "6.13319603200707418321152e-10", "6.17730254661429032668914e-11",
    "-1.08490458009001175614174e-10", "-2.94711583316271435103601e-11", "9.32172955697055842449113e-12",
    "3.66245648340865960556081e-12",
)
# fmt: on

# e^{−x²/2} is 0 from here on in every floating type, and x² overflows in none.
_BEYOND = 160


def cumulative(x: Array) -> Array:
    """Return Φ(x) = ½ erfc(−x/√2) within 4 ulp; numbers in an object array are asked for their own `ndtr`."""
    if x.dtype == OBJECT:
        asked: Array = _NDTR(x)
        return asked
    wide = carried(x)
    far = np.minimum(np.abs(wide), _BEYOND)
    tail = _gaussian(far) * _scaled_tail(far)
    result: Array = np.where(wide < 0, tail, 1 - tail).astype(x.dtype, copy=False)
    return result


def density(x: Array) -> Array:
    """Return φ(x) = e^{−x²/2}/√2π."""
    if x.dtype == OBJECT:
        exact: Array = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
        return exact
    wide = carried(x)
    bell: Array = _gaussian(np.minimum(np.abs(wide), _BEYOND)) * _constants(wide.dtype)[0]
    return bell.astype(x.dtype, copy=False)


def _gaussian(x: Array) -> Array:
    """Return e^{−x²/2}, x split into m/16 and a rest: m² is exact, so that rounding x² is not blown up by x²."""
    m = np.rint(16 * x) / 16
    result: Array = np.exp(-m * m / 2) * np.exp((m - x) * (m + x) / 2)
    return result


def _scaled_tail(x: Array) -> Array:
    """Return S(x) for x >= 0, by Horner's rule in place."""
    _, coefficients = _constants(x.dtype)
    t = (x - 4) / (x + 4)
    result = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        result *= t
        result += c
    result /= x + 4
    return result


@lru_cache
def _constants(dtype: np.dtype[Any]) -> tuple[Any, tuple[Any, ...]]:
    """Return 1/√2π and the table in a precision; from text, since longdouble has more digits than a literal."""
    return dtype.type("0.3989422804014326779399461"), tuple(map(dtype.type, SCALED_TAIL))


_NDTR = np.frompyfunc(lambda number: number.ndtr(), 1, 1)
