"""The primals of the attacks and of the honest subjects, as a user of torch states them, and where they are judged."""

import torch

# The primals of each function, as of ``oracles check --shapes``.
SHAPES = {
    "silu": "z=4,3",
    "softmax": "z=3,5",
    "linear": "z=4,3 W=3,2 b=1,2",
    "layer_norm": "z=3,6 g=1,6 b=1,6",
    "matrix_product": "A=3,4 B=4,2",
    "cumulative_sum": "z=3,5",
    "rotated": "z=3,5",
    "circular_convolution": "z=8 w=8",
    "log_sum_exp": "z=4,5",
    "sorted_rows": "z=3,6",
    "embedding": "table=5,3 ids=4:int<5",
    "cross_entropy": "z=4,3 labels=4:int<3",
    "scalar_mean": "z=4,3",
    "two_outputs": "z=4,3",
    "solve": "A=3,3 b=3,2",
}


def silu(z):
    return torch.nn.functional.silu(z)


def softmax(z):
    return torch.softmax(z, dim=1)


def linear(z, W, b):
    return z @ W + b


def layer_norm(z, g, b):
    return torch.nn.functional.layer_norm(z, z.shape[1:]) * g + b


def matrix_product(A, B):
    return A @ B


def cumulative_sum(z):
    return torch.cumsum(z, dim=1)


def rotated(z):
    return torch.roll(torch.flip(z, (1,)), 1, 1)


def circular_convolution(z, w):
    return torch.fft.irfft(torch.fft.rfft(z) * torch.fft.rfft(w), n=len(z))


def log_sum_exp(z):
    return torch.logsumexp(z, dim=1)


def sorted_rows(z):
    return torch.sort(z, dim=1).values


def embedding(table, ids):
    return table[ids]


def cross_entropy(z, labels):
    return torch.nn.functional.cross_entropy(z, labels.long(), reduction="sum")


def scalar_mean(z):
    return z.mean()


def two_outputs(z):
    return torch.sin(z), z.sum(dim=1)


def solve(A, b):
    return torch.linalg.solve(A, b)
