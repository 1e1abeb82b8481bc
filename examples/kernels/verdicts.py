"""What the examples of this folder share: primals in bfloat16, and a line for each verdict."""

import numpy as np
import torch

import oracles


def require_shapes(**shapes):
    """Raise a ValueError unless (shape, expected) are equal for each name.

    A kernel reads and writes by address, and nothing else stops it at the end of an array. The judge tries smaller
    shapes, to show a mistake at few numbers, and takes an exception as the answer that a shape has none.
    """
    for name, (shape, expected) in shapes.items():
        if tuple(shape) != tuple(expected):
            raise ValueError(f"{name}: expected shape {tuple(expected)}, got {tuple(shape)}")


def stored(dtype, **shapes):
    """Draw standard normal tensors of these shapes, as a dtype stores them."""
    rng = np.random.default_rng(0)
    return {name: torch.from_numpy(rng.standard_normal(shape)).to(dtype) for name, shape in shapes.items()}


def show(subjects, primals, reference, **options):
    """Check each subject against what torch derives from the reference, and print its verdict."""
    for subject in subjects:
        try:
            result = oracles.check(subject, primals, against=[oracles.torch_autograd(reference)], **options)
            print(f"{subject.name}: {result.verdict}", flush=True)
        except oracles.Disagreement as disagreement:
            print(str(disagreement).splitlines()[0].removesuffix("  [check]"), flush=True)
