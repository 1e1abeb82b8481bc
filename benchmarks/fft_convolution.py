"""Reference cases of a circular convolution by FFT: complex intermediates, and errors of one size for a whole array.

Its references compute directly and by FFT. manual_bp has no such layer, so it is registered for the benchmarks alone.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from oracles import Case, Rule, declared, manual
from oracles.lazy_modules import JaxArray, Tensor, jnp, torch
from oracles.registry import oracle_for
from oracles.rule import Array, Cotangents
from oracles.strategies import real, rows, widths


class FFTConvolution:
    """Names the cases; the subject is a pair of functions."""


def forward(z: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    """Return y_k = Σ_j z_j w_{k−j}, the indices modulo n."""
    return _convolved(z, w), (z, w)


def backward(cache: tuple[Array, Array], delta: Array) -> Cotangents:
    """Return the correlations of delta with w and with z."""
    z, w = cache
    # The rows are summed as spectra: each alone may be too large a number for float16.
    spectrum = (np.fft.rfft(delta) * np.fft.rfft(_reversed(z))).sum(0)
    return {"z": _convolved(delta, _reversed(w)), "w": np.fft.irfft(spectrum, w.shape[-1]).astype(w.dtype)}


def _convolved(x: Array, y: Array) -> Array:
    return np.fft.irfft(np.fft.rfft(x) * np.fft.rfft(y), x.shape[-1]).astype(x.dtype)


def _reversed(x: Array) -> Array:
    return np.roll(x[..., ::-1], 1, -1)


def direct_torch(z: Tensor, w: Tensor) -> Tensor:
    """Σ_j z_j w_{k−j}, by the matrix of all w_{k−j}."""
    k = torch.arange(w.shape[0])
    return z @ w[(k[None, :] - k[:, None]) % w.shape[0]]


def by_fft_jax(z: JaxArray, w: JaxArray) -> JaxArray:
    """The same by FFT, of float16 in float32."""
    x, y = (a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in (z, w))
    return jnp.fft.irfft(jnp.fft.rfft(x) * jnp.fft.rfft(y), z.shape[-1]).astype(z.dtype)


def subject() -> Rule:
    """Return the convolution, whose accuracy is that of norms."""
    return declared(manual(forward, backward, name="FFT convolution"), accuracy="normwise")


@oracle_for(FFTConvolution)
def fft_convolution(draw: st.DrawFn) -> Case:
    """Rows of any length, and one filter of that length."""
    n_rows, n = draw(rows()), draw(widths())
    return Case(subject(), {"z": real(n_rows, n), "w": real(n)}, direct_torch, by_fft_jax)
