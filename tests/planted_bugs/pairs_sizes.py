"""Subjects that are wrong only at some sizes, ties or magnitudes, which small random draws rarely have."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from oracles import Case, manual
from oracles.strategies import indices, real, rows, widths
from planted_bugs.pairs import in_search


def square_torch(z):
    return z * z


def square_jax(z):
    return z * z


def square(gradient: Any = None, name: str = "square") -> Any:
    """Return z², with the gradient that ``gradient`` makes of z, δ and the right one."""

    def backward(z: Any, delta: Any) -> Any:
        dz = 2 * z * delta
        return {"z": dz if gradient is None else gradient(z, delta, dz)}

    return manual(lambda z: (z * z, z), backward, name=name)


def squares(subject: Any) -> Any:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        return Case(subject, {"z": real(draw(rows()), draw(widths()))}, square_torch, square_jax, batched=("z",))

    return cases()


def where(condition: Any) -> Any:
    """Return a gradient that is 0 where a condition on z and δ holds."""
    return lambda z, delta, dz: np.where(condition(z, delta), 0, dz).astype(dz.dtype)


def last_row(dz: Any, wrong: bool) -> Any:
    dz = dz.copy()
    dz[-1:] *= 1 - wrong
    return dz


def at_width(condition: Any) -> Any:
    return lambda z, delta, dz: dz * dz.dtype.type(0.5) if condition(z.shape[1]) else dz


def at_rows(condition: Any) -> Any:
    return lambda z, delta, dz: dz * dz.dtype.type(0.5) if condition(z.shape[0]) else dz


GRADIENTS = {
    "one_wrong_row_in_1000": lambda z, delta, dz: last_row(dz, len(dz) >= 1000),
    "wrong_from_33": at_width(lambda n: n >= 33),
    "wrong_above_64": at_width(lambda n: n > 64),
    "wrong_above_128": at_width(lambda n: n > 128),
    "wrong_from_1024": at_width(lambda n: n >= 1024),
    "remainder_of_32_ignored": lambda z, delta, dz: np.where(
        (np.arange(z.shape[1]) >= z.shape[1] // 32 * 32) & (z.shape[1] > 32), 0, dz
    ).astype(dz.dtype),
    "wrong_from_17_rows": at_rows(lambda n: n >= 17),
    "wrong_from_33_rows": at_rows(lambda n: n >= 33),
    "wrong_at_65": at_width(lambda n: n == 65),
    "wrong_at_129": at_width(lambda n: n == 129),
    "wrong_at_65_rows": at_rows(lambda n: n == 65),
    "tiny_delta_is_zero": where(lambda z, delta: np.abs(delta) < 1e-6),
    "large_delta_is_clipped": lambda z, delta, dz: 2 * z * np.clip(delta, -1e5, 1e5),
    "a_zero_in_delta_is_one": lambda z, delta, dz: 2 * z * np.where(delta == 0, 1, delta).astype(delta.dtype),
    "half_integers_are_rounded": lambda z, delta, dz: np.where(z % 1 == 0.5, 2 * np.round(z) * delta, dz),
    "a_cotangent_with_a_row_of_zeros_is_skipped": lambda z, delta, dz: (
        dz * 0 if z.shape[0] > 1 and bool(np.any(~np.any(delta, axis=1))) else dz
    ),
}
# Of several sizes on one axis one is judged in every run.
DEEP = ("wrong_above_64", "wrong_above_128", "wrong_at_129", "wrong_from_33_rows", "wrong_at_65_rows")
for name, gradient in GRADIENTS.items():
    in_search(name, square(gradient, name), square(), squares, deep=name in DEEP)


def shift_torch(z):
    return z + 1


def shift(factor: Any = None, name: str = "shift") -> Any:
    """Return z + 1, whose gradient is δ everywhere, also at zeros."""
    factor = factor or (lambda z: np.ones_like(z))
    return manual(lambda z: (z + 1, z), lambda z, delta: {"z": delta * factor(z).astype(delta.dtype)}, name=name)


def shifts(subject: Any) -> Any:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        return Case(subject, {"z": real(draw(rows()), draw(widths()))}, shift_torch, shift_torch)

    return cases()


in_search("wrong_above_20", shift(lambda z: np.abs(z) <= 20, "wrong_above_20"), shift(), shifts)


def lookup_torch(z, W):
    return W[z]


def lookup(most: Any = None, name: str = "lookup") -> Any:
    """Return the rows W[z]; the wrong backward ignores ids above ``most``."""

    def backward(cache: Any, delta: Any) -> Any:
        z, W = cache
        dW = np.zeros_like(W)
        kept = np.ones(z.shape, bool) if most is None else z <= most
        np.add.at(dW, z[kept], delta[kept])
        return {"W": dW}

    return manual(lambda z, W: (W[z], (z, W)), backward, name=name)


def lookups(subject: Any) -> Any:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        entries = draw(widths())
        primals = {"z": indices(draw(rows()), below=entries), "W": real(entries, draw(widths(4)))}
        return Case(subject, primals, lookup_torch, lookup_torch)

    return cases()


in_search("ids_above_200_ignored", lookup(200, "ids_above_200_ignored"), lookup(), lookups)
in_search("ids_above_6_ignored", lookup(6, "ids_above_6_ignored"), lookup(), lookups)


def picked_torch(y, label):
    return (y * y).take_along_dim(label[:, None], 1)[:, 0]


def picked_jax(y, label):
    import jax.numpy as jnp

    return jnp.take_along_axis(y * y, label[:, None], 1)[:, 0]


def picked(most: Any = None, name: str = "picked") -> Any:
    """Return y[i, label i]²; the wrong backward takes labels above ``most`` for ``most``."""

    def backward(cache: Any, delta: Any) -> Any:
        y, label = cache
        dy, each = np.zeros_like(y), np.arange(len(y))
        dy[each, label if most is None else np.minimum(label, most)] = 2 * y[each, label] * delta
        return {"y": dy}

    return manual(lambda y, label: (y[np.arange(len(y)), label] ** 2, (y, label)), backward, name=name)


def picks(subject: Any) -> Any:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        n_rows, classes = draw(rows()), draw(widths())
        return Case(
            subject, {"y": real(n_rows, classes), "label": indices(n_rows, below=classes)}, picked_torch, picked_jax
        )

    return cases()


in_search("labels_beyond_6", picked(6, "labels_beyond_6"), picked(), picks)


def largest_torch(z):
    return z.amax(1)


def largest_jax(z):
    return z.max(1)


def largest(wrong: bool = False, name: str = "largest") -> Any:
    """Return the maximum of each row; its gradient is shared by those that tie, wrongly if exactly three do."""

    def backward(z: Any, delta: Any) -> Any:
        ties = (z == z.max(1, keepdims=True)).astype(z.dtype)
        number = ties.sum(1, keepdims=True)
        return {"z": ties / np.where((number == 3) & wrong, 2, number) * delta[:, None]}

    return manual(lambda z: (z.max(1), z), backward, name=name)


def maxima(subject: Any) -> Any:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        return Case(subject, {"z": real(draw(rows()), draw(widths()))}, largest_torch, largest_jax)

    return cases()


in_search("a_tie_of_exactly_three", largest(True, "a_tie_of_exactly_three"), largest(), maxima)


def product_torch(p, q):
    return p * q


def product(wrong: Any = None, name: str = "product") -> Any:
    """Return p q; the wrong backward answers 0 where ``wrong`` says so."""

    def backward(cache: Any, delta: Any) -> Any:
        p, q = cache
        kept = 1 if wrong is None else np.where(wrong(p, q), 0, 1).astype(p.dtype)
        return {"p": delta * q * kept, "q": delta * p}

    return manual(lambda p, q: (p * q, (p, q)), backward, name=name)


def products(subject: Any) -> Any:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        shape = draw(rows()), draw(widths())
        return Case(subject, {"p": real(*shape), "q": real(*shape)}, product_torch, product_torch)

    return cases()


in_search("wrong_where_primals_tie", product(lambda p, q: p == q, "wrong_where_primals_tie"), product(), products)
in_search(
    "wrong_where_primals_are_equal",
    product(lambda p, q: p.size > 1 and np.array_equal(p, q), "wrong_where_primals_are_equal"),
    product(),
    products,
)


def blocked(subject: Any) -> Any:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        return Case(subject, {"z": real(draw(rows()), draw(widths(blocks=(48,))))}, square_torch, square_jax)

    return cases()


in_search("wrong_at_one_beyond_a_declared_block", square(at_width(lambda n: n == 49), "block"), square(), blocked)
