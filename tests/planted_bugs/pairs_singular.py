"""NaN, infinities and huge numbers at singular points; references that detach, or that are inaccurate."""

import numpy as np
import torch

from oracles import manual, torch_autograd
from planted_bugs.pairs import at_point


def sqrt_with(value):
    """Return √z, with this derivative at 0."""

    def backward(z, delta):
        positive = z > 0
        return {"z": delta * np.where(positive, 0.5 / np.sqrt(np.where(positive, z, 1.0)), value)}

    return manual(lambda z: (np.sqrt(z), z), backward, name=f"sqrt with {value} at 0")


def atan2_with(value):
    """Return atan2(y, x), with these derivatives at (0, 0)."""

    def backward(cache, delta):
        y, x = cache
        square = x * x + y * y
        safe = np.where(square > 0, square, 1.0)
        dy, dx = np.where(square > 0, x / safe, value), np.where(square > 0, -y / safe, value)
        return {"y": delta * dy, "x": delta * dx}

    return manual(lambda y, x: (np.arctan2(y, x), (y, x)), backward, name=f"atan2 with {value} at 0")


SQRT, ZEROS = [torch_autograd(torch.sqrt)], {"z": np.array([0.0, 1.0, 4.0])}
for value in (np.nan, -np.inf, 7.0, 1e30):
    at_point(f"sqrt_has_slope_{value}_at_zero", sqrt_with(value), sqrt_with(np.inf), ZEROS, SQRT)
at_point(
    "sqrt_has_slope_zero_though_infinity_is_declared", sqrt_with(0.0), sqrt_with(np.inf), ZEROS, SQRT,
    verdict="kink", options={"kinks": "declared"},
)  # fmt: skip
ATAN2 = [torch_autograd(lambda y, x: torch.atan2(y, x))]
ORIGIN = {"y": np.array([1.0, -2.0, 0.0, 0.0]), "x": np.array([0.5, -1.0, 0.0, -1.0])}
for value in (np.nan, np.inf):
    at_point(f"atan2_has_slope_{value}_at_the_origin", atan2_with(value), atan2_with(0.0), ORIGIN, ATAN2)


def deviation_with(spread_of_constant):
    """Return the standard deviation of each column; ``spread_of_constant`` divides where it is 0."""

    def forward(z):
        centred = z - z.mean(0)
        y = np.sqrt((centred**2).mean(0))
        return y, (centred, y)

    def backward(cache, delta):
        centred, y = cache
        with np.errstate(all="ignore"):
            return {"z": delta * centred / (len(centred) * np.where(y > 0, y, spread_of_constant))}

    return manual(forward, backward, name="deviation")


def torch_deviation(z):
    return (z - z.mean(0)).pow(2).mean(0).clamp_min(1e-300).sqrt()


CONSTANT_COLUMN = {"z": np.array([[1.0, 2.0, 0.5], [3.0, 2.0, -1.0], [-2.0, 2.0, 0.25]])}
at_point(
    "deviation_of_a_constant_column_is_nan", deviation_with(0.0), deviation_with(1.0), CONSTANT_COLUMN,
    [torch_autograd(torch_deviation)],
)  # fmt: skip


def clamped_log(least):
    return manual(
        lambda z: (np.log(np.maximum(z, least)), z),
        lambda z, delta: {"z": delta * np.where(z > least, 1 / np.where(z > 0, z, 1.0), np.inf)},
        name="log",
    )


def inverse(at_zero):
    def forward(z):
        with np.errstate(divide="ignore"):
            return np.where(z == 0, at_zero, 1 / z), z

    def backward(z, delta):
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"z": -delta / z**2}

    return manual(forward, backward, name="inverse")


def log_with_infinity(z):
    with np.errstate(divide="ignore"):
        return np.log(z), z


def log_backward(z, delta):
    with np.errstate(divide="ignore"):
        return {"z": delta / z}


at_point(
    "log_is_clamped_at_zero",
    clamped_log(1e-12),
    manual(log_with_infinity, log_backward),
    ZEROS,
    [torch_autograd(torch.log)],
)
at_point("inverse_of_zero_is_42", inverse(42.0), inverse(np.inf), ZEROS, [torch_autograd(lambda z: 1 / z)])


# References that detach a term define the gradient: the wrong subject differentiates through.
def straight_through(slope):
    return manual(lambda z: (np.round(z), z), lambda z, delta: {"z": slope * delta}, name="straight-through rounding")


def torch_straight_through(z):
    return z + (z.round() - z).detach()


def detached_norm(follows):
    """Return z times its norm, whose gradient treats the norm as a constant."""

    def forward(z):
        norm = np.sqrt((z * z).sum(-1, keepdims=True))
        return z * norm, (z, norm)

    def backward(cache, delta):
        z, norm = cache
        through = 0.0 if follows else z * ((delta * z).sum(-1, keepdims=True) / norm)
        return {"z": delta * norm + through}

    return manual(forward, backward, name="z times its detached norm")


def torch_detached_norm(z):
    return z * z.pow(2).sum(-1, keepdim=True).sqrt().detach()


class Reversal(torch.autograd.Function):
    """The identity, whose gradient is reversed."""

    @staticmethod
    def forward(ctx, z):
        return z * 1.0

    @staticmethod
    def backward(ctx, delta):
        return -delta


DETACHED, REVERSED = [torch_autograd(torch_detached_norm)], [torch_autograd(lambda z: Reversal.apply(z) * 2)]
for rows in (1, 2, 16, 256):
    point = {"z": np.random.default_rng(0).standard_normal((rows, 4))}
    at_point(f"detached_norm_is_differentiated_{rows}", detached_norm(False), detached_norm(True), point, DETACHED)
    doubled = [manual(lambda z: (z * 2.0, z), lambda z, d, s=s: {"z": s * d}, name="reversal") for s in (2.0, -2.0)]
    at_point(f"reversal_is_not_reversed_{rows}", *doubled, point, REVERSED)
    at_point(
        f"straight_through_has_slope_zero_{rows}", straight_through(0.0), straight_through(1.0), point,
        [torch_autograd(torch_straight_through)],
    )  # fmt: skip


def product(scale):
    return manual(lambda z: (z * z, z), lambda z, d: {"z": scale * 2 * z * d}, name="square")


at_point(
    "square_is_off_by_1e-9",
    product(1 + 1e-9),
    product(1.0),
    {"z": np.linspace(-2, 2, 7)},
    [torch_autograd(torch.square)],
)
