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
# that function up to T_30, whose remainder is below a tenth of longdouble's u; up to T_24, below a fifth of float64's;
# and up to T_11, below a twentieth of float32's, each u times the function.
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
SCALED_TAIL_OF_FLOAT64 = (
    "0.755285130415751492050096", "-0.607896641971892299687365", "0.387137400742214917470878",
    "-0.186521857959636612150830", "0.0603965748909178722507993", "-0.00754018896738631255492143",
    "-0.00347969236704797363022069", "0.00163081846740990846130004", "0.000133344309411832543914658",
    "-0.000231095017362774257954203", "-1.90824635141457105279619e-6", "3.51451119028376512833960e-5",
    "7.16658764119512099083844e-7", "-5.92161104592397735672883e-6", "-6.29836733849236905103089e-7",
    "1.02478510165527734026375e-6", "2.72462969511458720794314e-7", "-1.59773961422392204877876e-7",
    "-8.68664701599789275953150e-8", "1.78449277729814162214145e-8", "2.14276038434523558842865e-8",
    "-5.87362676498719069770050e-10", "-3.73064508186837027859013e-9", "-1.19977820312530945922927e-10",
    "3.40331230864949464757206e-10",
)
SCALED_TAIL_OF_FLOAT32 = (
    "0.755285130516605692702682", "-0.607896631366224108764143", "0.387137393859843111137212",
    "-0.186522159839951398131708", "0.0603966482780049374071332", "-0.00753771715968363234502358",
    "-0.00347995463744340011270864", "0.00162204010552842814893563", "0.000133653387094441319869921",
    "-0.000215573776286452112765913", "-1.73108230147541792809567e-6", "2.11829842552246620956071e-5",
)
# fmt: on

_HEIGHT = "0.3989422804014326779399461"  # 1/√2π
# e^{−x²/2} is 0 from here on in every floating type, and x² overflows in none.
_BEYOND = 160


def cumulative(x: Array) -> Array:
    """Return Φ(x) = ½ erfc(−x/√2) within 4 ulp; of an object array, by the numbers' method `ndtr`."""
    return normal(at_least_float64(x))[0].astype(x.dtype, copy=False)


def density(x: Array) -> Array:
    """Return φ(x) = e^{−x²/2}/√2π."""
    return normal(at_least_float64(x))[1].astype(x.dtype, copy=False)


def normal(x: Array) -> tuple[Array, Array]:
    """Return Φ(x) and φ(x) within 4 ulp, of float32 or longer."""
    if x.dtype == OBJECT:
        return _NDTR(x), np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    # Of |x|: the tail formula holds for x >= 0, and Φ(x) = 1 − Φ(−x) gives the other side.
    far = x.clip(-_BEYOND, _BEYOND)
    np.abs(far, out=far)
    bell, tail = _gaussian(far), _scaled_tail(far)
    tail *= bell
    # For x < 0 the tail is Φ itself, down to the smallest number; for x >= 0 Φ is 1 minus the tail, which is at most ½.
    np.subtract(x >= 0, tail, out=tail)
    bell *= x.dtype.type(_HEIGHT)
    np.abs(tail, out=tail)
    return tail, bell


def _gaussian(x: Array) -> Array:
    """Return e^{−x²/2}, with what the rounding of x² lost: times e^{−lost/2}, which is 1 − lost/2."""
    square = x * x
    # Veltkamp's split: the upper half of x's digits, whose square is exact; and x² = high² + (x − high)(x + high).
    scaled = x * _splitter(x.dtype)
    high = scaled - x
    np.subtract(scaled, high, out=high)
    lost = high * high
    lost -= square
    low = x - high
    high += x
    low *= high
    lost += low
    square *= -0.5
    np.exp(square, out=square)
    lost *= -0.5
    lost *= square
    square += lost
    return square


def _scaled_tail(x: Array) -> Array:
    """Return S(x) for x >= 0, by Horner's rule in place."""
    shifted = x + 4
    t = x - 4
    t /= shifted
    first, second, *rest = _coefficients(x.dtype)
    result: Array = first * t
    result += second
    for c in rest:
        result *= t
        result += c
    result /= shifted
    return result


@lru_cache
def _coefficients(dtype: DType) -> tuple[Number, ...]:
    """Return a precision's table, highest power first; from text, since longdouble has more digits than a literal."""
    tables = {np.float32: SCALED_TAIL_OF_FLOAT32, np.float64: SCALED_TAIL_OF_FLOAT64}
    return tuple(map(dtype.type, reversed(tables.get(dtype.type, SCALED_TAIL))))


@lru_cache
def _splitter(dtype: DType) -> Number:
    """Return 2^k + 1, k half the number of digits, rounded up."""
    return dtype.type(2 ** ((np.finfo(dtype).nmant + 2) // 2) + 1)


_NDTR = np.frompyfunc(lambda number: number.ndtr(), 1, 1)
