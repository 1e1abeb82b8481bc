"""Takes float32, accumulates in float64, and returns float32."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "layer_norm"
CASES = [{"shapes": "z=3,6 g=1,6 b=1,6", "dtypes": ["float32", "float64"], "points": 1}]


def forward(z, g, b):
    wide = z.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    n = centred * scale
    return (n * g + b).astype(z.dtype), (n, scale, g)


def backward(cache, delta):
    n, scale, g = cache
    e = delta.astype(np.float64) * g
    dz = scale * (e - e.mean(axis=1, keepdims=True) - n * (e * n).mean(axis=1, keepdims=True))
    wide = {"z": dz, "g": (delta * n).sum(axis=0, keepdims=True), "b": delta.sum(axis=0, keepdims=True)}
    return {name: gradient.astype(delta.dtype) for name, gradient in wide.items()}
