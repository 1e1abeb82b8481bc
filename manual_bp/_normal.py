"""The normal distribution: Φ, including its upper tail up to the last few ulp, and its density φ.

NumPy has no erf. With S(x) = e^{x²/2} Φ(−x), which falls from ½ to 1/(x√2π) and never under- or overflows,
Φ(−x) = e^{−x²/2} S(x) keeps its digits down to the smallest positive number, where 1 − Φ(x) or ½ + ½ erf would keep
none.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ._precision import at_least_float64
from ._validation import OBJECT
from .protocol import Array, DType, Number

# (x + 4) S(x) in powers of t = (x − 4)/(x + 4), which maps 0 … ∞ to −1 … 1: the Chebyshev series of
# that function up to T_30, whose remainder is below a tenth of longdouble's u; and, for float32 computed in
# float64, up to T_13, whose remainder is below a hundredth of float32's u.
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
SCALED_TAIL_OF_FLOAT32 = (
    "0.755285130403779656377987", "-0.607896641472443905669445", "0.387137401983317726515256",
    "-0.186521876865797084783237", "0.0603965535041344246632795", "-0.00753998095291813913279225",
    "-0.00347955026892921240559944", "0.00162980168233245142128534", "0.000132873533531365027587904",
    "-0.000228509737626490900015417", "-1.03787913429649145519227e-6", "3.15317533272556918952106e-5",
    "-2.31067722392975490967799e-7", "-3.18423663754800916910879e-6",
)
# fmt: on

_HEIGHT = "0.3989422804014326779399461"  # 1/√2π
# e^{−x²/2} is 0 from here on in every floating type, and x² overflows in none.
_BEYOND = 160


def cumulative(x: Array) -> Array:
    """Return Φ(x) = ½ erfc(−x/√2) within 4 ulp; of an object array, by the numbers' method `ndtr`."""
    return normal(x)[0].astype(x.dtype, copy=False)


def density(x: Array) -> Array:
    """Return φ(x) = e^{−x²/2}/√2π."""
    return normal(x)[1].astype(x.dtype, copy=False)


def normal(x: Array) -> tuple[Array, Array]:
    """Return Φ(x) and φ(x), of float16 and float32 in float64."""
    if x.dtype == OBJECT:
        return _NDTR(x), np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    wide = at_least_float64(x)
    is_widened = wide.dtype != x.dtype
    # Of |x|: the tail formula holds for x >= 0, and Φ(x) = 1 − Φ(−x) gives the other side.
    far = np.minimum(np.abs(wide), _BEYOND)
    bell = np.exp(-far * far / 2) if is_widened else _gaussian(far)
    # For x < 0 the tail is Φ itself, down to the smallest number; for x >= 0 Φ is 1 minus the tail, which is at most ½.
    tail = bell * _scaled_tail(far, _coefficients(wide.dtype, is_widened))
    return np.abs((wide >= 0) - tail), bell * wide.dtype.type(_HEIGHT)


def _gaussian(x: Array) -> Array:
    """Return e^{−x²/2}, x split into m/16 and a remainder: m² is exact, so no rounding is multiplied by x²."""
    m = np.rint(16 * x) / 16
    result: Array = np.exp(-m * m / 2) * np.exp((m - x) * (m + x) / 2)
    return result


def _scaled_tail(x: Array, coefficients: tuple[Number, ...]) -> Array:
    """Return S(x) for x >= 0, by Horner's rule in place."""
    t = (x - 4) / (x + 4)
    result = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        result *= t
        result += c
    result /= x + 4
    return result


@lru_cache
def _coefficients(dtype: DType, for_float32: bool) -> tuple[Number, ...]:
    """Return a table in a precision; from text, since longdouble has more digits than a literal."""
    return tuple(map(dtype.type, SCALED_TAIL_OF_FLOAT32 if for_float32 else SCALED_TAIL))


_NDTR = np.frompyfunc(lambda number: number.ndtr(), 1, 1)
