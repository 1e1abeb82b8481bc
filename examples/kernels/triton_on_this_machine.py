"""Import Triton, on a GPU or with its interpreter on the CPU, and round to the stored dtype.

Import this module before triton. Without a GPU it sets TRITON_INTERPRET=1: the kernels then run as NumPy code, block by
block, with the same masks, indices and dtypes.
"""

import os

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

import triton  # noqa: E402
import triton.language as tl  # noqa: E402

HALF = ("bfloat16", "float16", "float32")  # the kernels compute in float32, so that they refuse float64


@triton.jit
def rounded(a, pointer):
    """Round float32 numbers to the dtype that a pointer points to.

    Triton 3.9's interpreter cuts a float32 off where a GPU rounds it to the nearest bfloat16. So the last 16 bits are
    rounded here, as integers; what is then cut off is zero. On a GPU the result is the same.
    """
    if pointer.dtype.element_ty == tl.bfloat16:
        bits = a.to(tl.int32, bitcast=True)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        a = tl.where(a == a, nearest.to(tl.float32, bitcast=True), a)  # a NaN stays as it is
    return a.to(pointer.dtype.element_ty)
