"""Reference cases of functions of complex numbers: products, moduli, angles, Fourier transforms.

manual_bp has no such layers, so they are registered for the benchmarks alone. Gradients are ∂L/∂Re z + i ∂L/∂Im z.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from oracles import Case, declared, manual
from oracles.lazy_modules import jax, jnp, torch
from oracles.registry import oracle_for
from oracles.rule import Array
from oracles.strategies import complex_numbers, positive, real, rows, widths

Drawn: TypeAlias = Mapping[str, Any]
# forward(*primals) -> y, and pull(delta, *primals) -> the cotangents in the order of the primals.
Forward: TypeAlias = Callable[..., Any]
Pull: TypeAlias = Callable[..., tuple[Array, ...]]
Shapes: TypeAlias = Callable[[st.DrawFn], Drawn]


def one(draw: st.DrawFn) -> Drawn:
    return {"z": complex_numbers(draw(rows()), draw(widths()))}


def two(draw: st.DrawFn) -> Drawn:
    n_rows, n = draw(rows()), draw(widths())
    return {"z": complex_numbers(n_rows, n), "w": complex_numbers(n_rows, n)}


def factors(draw: st.DrawFn) -> Drawn:
    n_rows, n, m = draw(rows()), draw(widths()), draw(widths())
    return {"z": complex_numbers(n_rows, n), "W": complex_numbers(n, m)}


# torch's library of transforms takes no empty array.
def samples(draw: st.DrawFn) -> Drawn:
    return {"z": complex_numbers(max(1, draw(rows())), draw(widths()))}


def real_samples(draw: st.DrawFn) -> Drawn:
    return {"x": real(max(1, draw(rows())), draw(widths()))}


def spectrum(draw: st.DrawFn) -> Drawn:
    return {"z": complex_numbers(max(1, draw(rows())), draw(widths()) + 1)}


def radius_and_angle(draw: st.DrawFn) -> Drawn:
    n_rows, n = draw(rows()), draw(widths())
    return {"r": positive(n_rows, n), "t": real(n_rows, n)}


def register(
    name: str, shapes: Shapes, forward: Forward, pull: Pull, torch_f: Forward, jax_f: Forward, normwise: bool = False
) -> None:
    """Register the cases of a function under the name "complex NAME"."""

    def forward_with_cache(**primals: Array) -> tuple[Any, dict[str, Array]]:
        return forward(*primals.values()), primals

    def backward(cache: dict[str, Array], delta: Array) -> dict[str, Array]:
        return dict(zip(cache, pull(delta, *cache.values()), strict=True))

    # A Fourier transform spreads the rounding of large terms over all entries.
    accuracy: Any = "normwise" if normwise else "entrywise"
    subject = declared(manual(forward_with_cache, backward, name=f"complex {name}"), accuracy=accuracy)

    def cases(draw: st.DrawFn) -> Case:
        return Case(subject, shapes(draw), torch_f, jax_f)

    cases.__module__ = __name__
    oracle_for(type(name, (), {}), name=f"complex {name}")(cases)


def per_size(w: Array, z: Array) -> Array:
    """Return w/|z|, and 0 where z is 0: by parts, since NumPy's quotient of complex numbers is NaN at subnormal |z|."""
    size, parts = np.abs(z), np.stack([w.real, w.imag])
    x, y = np.divide(parts, size, out=np.zeros_like(parts), where=size > 0)
    result: Array = x + z.dtype.type(1j) * y
    return result


def of_angle(d: Array, z: Array) -> tuple[Array, ...]:
    # Not d · (1/|z|), which is NaN where d is 0 and 1/|z| overflows.
    return (per_size(1j * d * per_size(z, z), z),)


def of_rfft(d: Array, x: Array) -> tuple[Array, ...]:
    n = x.shape[-1]
    padded = np.concatenate([d, np.zeros((*d.shape[:-1], n - d.shape[-1]), d.dtype)], -1)
    return ((np.fft.ifft(padded).real * n).astype(x.dtype),)


def of_irfft(d: Array, z: Array) -> tuple[Array, ...]:
    n = 2 * (z.shape[-1] - 1)
    weights = np.full(z.shape[-1], 2, d.dtype)
    weights[[0, -1]] = 1
    return (np.fft.rfft(d) * weights / d.dtype.type(n),)


def of_polar(d: Array, r: Array, t: Array) -> tuple[Array, ...]:
    c, s = np.cos(t), np.sin(t)
    return d.real * c + d.imag * s, r * (d.imag * c - d.real * s)


def length(z: Any) -> int:
    return 2 * (int(z.shape[-1]) - 1)


register("multiply", two, np.multiply, lambda d, z, w: (d * w.conj(), d * z.conj()),
         lambda z, w: z * w, lambda z, w: z * w)  # fmt: skip
register("conjugate product", two, lambda z, w: z.conj() * w, lambda d, z, w: (d.conj() * w, d * z),
         lambda z, w: z.conj() * w, lambda z, w: z.conj() * w)  # fmt: skip
register("matmul", factors, np.matmul, lambda d, z, W: (d @ W.conj().T, z.conj().T @ d),
         lambda z, W: z @ W, lambda z, W: z @ W)  # fmt: skip
register("abs", one, np.abs, lambda d, z: (d * per_size(z, z),), lambda z: z.abs(), lambda z: jnp.abs(z))
register("squared modulus", one, lambda z: z.real**2 + z.imag**2, lambda d, z: (2 * d * z,),
         lambda z: z.real**2 + z.imag**2, lambda z: z.real**2 + z.imag**2)  # fmt: skip
register("angle", one, np.angle, of_angle,
         lambda z: z.angle(), lambda z: jnp.angle(z))  # fmt: skip
register("polar", radius_and_angle, lambda r, t: r * np.cos(t) + 1j * (r * np.sin(t)), of_polar,
         lambda r, t: torch.polar(r, t), lambda r, t: jax.lax.complex(r * jnp.cos(t), r * jnp.sin(t)))  # fmt: skip
register("exp", one, np.exp, lambda d, z: (d * np.exp(z).conj(),), lambda z: z.exp(), lambda z: jnp.exp(z))
register("fft", samples, np.fft.fft, lambda d, z: (np.fft.ifft(d) * d.real.dtype.type(z.shape[-1]),),
         lambda z: torch.fft.fft(z), lambda z: jnp.fft.fft(z), normwise=True)  # fmt: skip
register("ifft", samples, np.fft.ifft, lambda d, z: (np.fft.fft(d) / d.real.dtype.type(z.shape[-1]),),
         lambda z: torch.fft.ifft(z), lambda z: jnp.fft.ifft(z), normwise=True)  # fmt: skip
register("rfft", real_samples, np.fft.rfft, of_rfft, lambda x: torch.fft.rfft(x), lambda x: jnp.fft.rfft(x),
         normwise=True)  # fmt: skip
register("irfft", spectrum, lambda z: np.fft.irfft(z, length(z)), of_irfft,
         lambda z: torch.fft.irfft(z, length(z)), lambda z: jnp.fft.irfft(z, length(z)), normwise=True)  # fmt: skip
