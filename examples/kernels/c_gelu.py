"""GELU in C, called through ctypes: compiled by the C compiler of this machine, for float32 alone.

python examples/kernels/c_gelu.py
"""

import atexit
import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from verdicts import show, stored

import oracles

SOURCE = r"""
#include <math.h>
#include <stddef.h>

/* z * Phi(z), and its derivative Phi(z) + z * phi(z). */
static float Phi(float z) { return 0.5f * erfcf(-0.70710678f * z); }
static float phi(float z) { return 0.39894228f * expf(-0.5f * z * z); }

void gelu(const float *z, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = z[i] * Phi(z[i]);
}

void right(const float *z, const float *dy, float *dz, size_t n)
{
    for (size_t i = 0; i < n; i++) dz[i] = dy[i] * (Phi(z[i]) + z[i] * phi(z[i]));
}

/* The second term lacks z. */
void without_z(const float *z, const float *dy, float *dz, size_t n)
{
    for (size_t i = 0; i < n; i++) dz[i] = dy[i] * (Phi(z[i]) + phi(z[i]));
}

/* The derivative of the approximation with tanh, by a forward with erf. */
void of_tanh(const float *z, const float *dy, float *dz, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float t = tanhf(0.79788456f * (z[i] + 0.044715f * z[i] * z[i] * z[i]));
        float inner = 0.79788456f * (1 + 3 * 0.044715f * z[i] * z[i]);
        dz[i] = dy[i] * (0.5f * (1 + t) + 0.5f * z[i] * (1 - t * t) * inner);
    }
}

/* A loop unrolled by four, without the rest. */
void no_rest(const float *z, const float *dy, float *dz, size_t n)
{
    right(z, dy, dz, n / 4 * 4);
}
"""
WRONG = {
    "without_z": "z forgotten",
    "of_tanh": "derivative of the form with tanh",
    "no_rest": "rest of a loop forgotten",
}


def compiled():
    """Compile the source into a folder that is removed at the end, and load the library.

    Raises:
        FileNotFoundError: if there is no C compiler: the variable CC names one.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise FileNotFoundError("no C compiler: set the environment variable CC")
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "gelu.c").write_text(SOURCE, encoding="utf-8")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(folder / "gelu.so"), str(folder / "gelu.c"), "-lm"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(folder / "gelu.so"))


def call(function, *arrays):
    """Call a function of the library on contiguous arrays of float32; the last one is written."""
    pointers = [a.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for a in arrays]
    function(*pointers, ctypes.c_size_t(arrays[0].size))
    return arrays[-1]


def subjects():
    """Return the right backward and three wrong ones."""
    library = compiled()

    def forward(z):
        z = np.ascontiguousarray(z)
        return call(library.gelu, z, np.empty_like(z)), z

    def backward_with(function):
        def backward(z, delta):
            return {"z": call(function, z, np.ascontiguousarray(delta), np.zeros_like(z))}

        return backward

    functions = {"right": "right", **WRONG}
    return [
        oracles.manual(forward, backward_with(getattr(library, symbol)), dtypes=("float32",), name=f"gelu, {name}")
        for symbol, name in functions.items()
    ]


def reference(z):
    """The same in torch."""
    return torch.nn.functional.gelu(z)


def primals():
    """Draw 45 numbers in float32: one more than a multiple of four."""
    return stored(torch.float32, z=(5, 9))


if __name__ == "__main__":
    show(subjects(), primals(), reference)
