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

    Triton 3.9's interpreter cuts a float32 off where a GPU rounds it to the nearest bfloat16, and gets subnormal
    numbers wrong. So the bits are rounded here, as integers, and taken as those of a bfloat16.
    """
    if pointer.dtype.element_ty == tl.bfloat16:
        bits = a.to(tl.int32, bitcast=True)
        nearest = tl.where(a == a, bits + 0x7FFF + ((bits >> 16) & 1), bits)  # a NaN stays as it is
        result = (nearest >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        result = a.to(pointer.dtype.element_ty)
    return result
