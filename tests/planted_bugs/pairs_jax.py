"""Pairs judged against references in JAX: Fourier transforms, sums, small relative errors, singular rows, orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

from oracles import Rule, jax_vjp, manual
from oracles.lazy_modules import jax

from .pairs import at_point

Array = Any
RNG = np.random.default_rng(20)


def by_hand(forward: Callable[..., Array], backward: Callable[..., Array], name: str) -> Rule:
    """Return the rule of a function of its primals by name, whose backward takes primals and delta."""
    return manual(
        lambda **primals: (forward(**primals), primals), lambda primals, delta: backward(delta, **primals), name=name
    )


# --- A spectrum, by pairs of real numbers ---


def spectrum_reference(z: Array) -> Array:
    """Return the real and the imaginary part of the Fourier transform."""
    y = jax.numpy.fft.fft(z)
    return y.real, y.imag


def spectrum(z: Array) -> Array:
    """Return the real and the imaginary part of the Fourier transform."""
    y = np.fft.fft(z)
    return y.real, y.imag


def spectrum_backward(inverse: Callable[[Array], Array]) -> Callable[..., Array]:
    """Return the backward that applies an inverse transform to delta."""
    return lambda delta, z: {"z": inverse(delta[0] + 1j * delta[1]).real}


SIGNAL = {"z": RNG.standard_normal((2, 24))}
SPECTRUM = by_hand(spectrum, spectrum_backward(lambda d: np.fft.ifft(d) * d.shape[-1]), "spectrum")
for label, inverse in (("conjugated", np.fft.fft), ("unscaled", np.fft.ifft)):
    at_point(
        f"Fourier transform, backward {label}",
        by_hand(spectrum, spectrum_backward(inverse), "spectrum"),
        SPECTRUM,
        SIGNAL,
        [jax_vjp(spectrum_reference)],
    )


# --- A long convolution by Fourier transforms ---


def filtered_reference(u: Array, k: Array) -> Array:
    """Convolve causally."""
    n = 2 * u.shape[-1]
    rfft, irfft = jax.numpy.fft.rfft, jax.numpy.fft.irfft
    return irfft(rfft(u, n=n) * rfft(k, n=n), n=n)[..., : n // 2]


def filtered(u: Array, k: Array) -> Array:
    """Convolve causally."""
    n = 2 * u.shape[-1]
    return np.fft.irfft(np.fft.rfft(u, n=n) * np.fft.rfft(k, n=n), n=n)[..., : n // 2]


def filtered_backward(turn: Callable[[Array], Array]) -> Callable[..., Array]:
    """Return the backward that multiplies by ``turn`` of a spectrum."""

    def backward(delta: Array, u: Array, k: Array) -> Array:
        m = u.shape[-1]
        d, fu, fk = (np.fft.rfft(x, n=2 * m) for x in (delta, u, k))
        return {
            "u": np.fft.irfft(d * turn(fk), n=2 * m)[..., :m],
            "k": np.fft.irfft((d * turn(fu)).sum(0), n=2 * m)[..., :m],
        }

    return backward


at_point(
    "convolution by Fourier transforms, spectrum not conjugated",
    by_hand(filtered, filtered_backward(np.array), "filtered"),
    by_hand(filtered, filtered_backward(np.conj), "filtered"),
    {"u": RNG.standard_normal((3, 16)), "k": RNG.standard_normal(16)},
    [jax_vjp(filtered_reference)],
)


# --- Running sums and segments ---


def running(z: Array) -> Array:
    """Sum up along the rows."""
    return np.cumsum(z, axis=1) ** 2


def running_backward(turned: bool) -> Callable[..., Array]:
    """Return the backward that sums from the end, or, wrongly, from the start."""

    def backward(delta: Array, z: Array) -> Array:
        g = 2 * delta * np.cumsum(z, axis=1)
        return {"z": np.cumsum(g[:, ::-1], axis=1)[:, ::-1] if turned else np.cumsum(g, axis=1)}

    return backward


at_point(
    "cumulative sum, summed from the wrong end",
    by_hand(running, running_backward(turned=False), "running"),
    by_hand(running, running_backward(turned=True), "running"),
    {"z": RNG.standard_normal((3, 7))},
    [jax_vjp(lambda z: jax.numpy.cumsum(z, axis=1) ** 2)],
)

SEGMENTS = np.array([0, 2, 2, 0, 2, 1])


def by_segment(z: Array, segments: Array) -> Array:
    """Sum rows by segment, and square."""
    y = np.zeros((3, z.shape[1]))
    np.add.at(y, segments, z)
    return y**2


def segment_sums(z: Array, segments: Array) -> Array:
    """Sum rows by segment, and square, in JAX."""
    return jax.ops.segment_sum(z, segments, 3) ** 2


def segment_backward(repeats: bool) -> Callable[..., Array]:
    """Return the backward; without ``repeats`` the residual has the last row of each segment only."""

    def backward(delta: Array, z: Array, segments: Array) -> Array:
        y = np.zeros((3, z.shape[1]))
        if repeats:
            np.add.at(y, segments, z)
        else:
            y[segments] += z
        return {"z": (2 * delta * y)[segments]}

    return backward


at_point(
    "segment sum, repeated segments written over",
    by_hand(by_segment, segment_backward(repeats=False), "by_segment"),
    by_hand(by_segment, segment_backward(repeats=True), "by_segment"),
    {"z": RNG.standard_normal((6, 4)), "segments": SEGMENTS},
    [jax_vjp(segment_sums)],
)


# --- A small relative error where nothing is summed ---


def squared_backward(factor: float) -> Callable[..., Array]:
    """Return the backward of z · z, off by a factor."""
    return lambda delta, z: {"z": (2 * z.astype(float) * delta * factor).astype(z.dtype)}


for n in (100, 1000):
    at_point(
        f"square, every entry off by 3e-6 in float32 at n = {n}",
        by_hand(lambda z: z * z, squared_backward(1 + 3e-6), "square"),
        by_hand(lambda z: z * z, squared_backward(1.0), "square"),
        {"z": RNG.standard_normal(n).astype(np.float32)},
        [jax_vjp(lambda z: z * z)],
    )


# --- A norm that is safe at zero ---


def safe_norm_reference(z: Array) -> Array:
    """Return the norms of rows; a row of zeros has the gradient zero."""
    some = (z != 0).any(-1, keepdims=True)
    return jax.numpy.where(some[:, 0], jax.numpy.linalg.norm(jax.numpy.where(some, z, 1.0), axis=-1), 0.0)


def norm_backward(scale: float) -> Callable[..., Array]:
    """Return the backward; the rows beside a row of zeros are scaled."""

    def backward(delta: Array, z: Array) -> Array:
        y = np.linalg.norm(z, axis=-1, keepdims=True)
        g = delta[:, None] * z / np.where(y > 0, y, 1.0)
        beside = np.roll(y[:, 0] == 0, 1)
        g[beside] *= scale
        return {"z": g}

    return backward


ROWS = RNG.standard_normal((4, 3))
ROWS[1] = 0.0
at_point(
    "norm masked at zero, twice as large in the row after it",
    by_hand(lambda z: np.linalg.norm(z, axis=-1), norm_backward(2.0), "norm"),
    by_hand(lambda z: np.linalg.norm(z, axis=-1), norm_backward(1.0), "norm"),
    {"z": ROWS},
    [jax_vjp(safe_norm_reference)],
)


# --- A function of integer order ---


def order_backward(order: int, factor: float = 1.0) -> Callable[..., Array]:
    """Return the backward of the trigamma function: polygamma of an order, times a factor."""
    return lambda delta, x: {"x": delta * scipy.special.polygamma(order, x) * factor}


def trigamma(x: Array) -> Array:
    """Return the second derivative of the logarithm of the gamma function."""
    return scipy.special.polygamma(1, x)


for label, wrong in (("of its own order", order_backward(1)), ("off by 1e-9", order_backward(2, 1 + 1e-9))):
    at_point(
        f"trigamma, derivative {label}",
        by_hand(trigamma, wrong, "trigamma"),
        by_hand(trigamma, order_backward(2), "trigamma"),
        {"x": np.array([0.5, 1.0, 2.25, 7.5])},
        [jax_vjp(lambda x: jax.scipy.special.polygamma(1, x))],
    )


# --- An integer beside a floating output ---


def greatest(z: Array) -> Array:
    """Return the maxima of rows and where they are."""
    return z.max(1), z.argmax(1)


def greatest_backward(z_at: Callable[[Array], Array]) -> Callable[..., Array]:
    """Return the backward that puts delta where ``z_at`` says."""

    def backward(delta: Array, z: Array) -> Array:
        g = np.zeros_like(z)
        g[np.arange(len(z)), z_at(z)] = delta[0]
        return {"z": g}

    return backward


at_point(
    "maximum with its index, gradient at the minimum",
    by_hand(greatest, greatest_backward(lambda z: z.argmin(1)), "greatest"),
    by_hand(greatest, greatest_backward(lambda z: z.argmax(1)), "greatest"),
    {"z": RNG.standard_normal((3, 4))},
    [jax_vjp(lambda z: (z.max(1), z.argmax(1)))],
)
