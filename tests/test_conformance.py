"""All layers, losses, networks and optimizers of manual_bp, under every check, in both precisions."""

import pytest

from oracles.registry import entries
from oracles.search import runs_of

# More than a second of searching each.
LONG = {
    *("SequenceNetwork", "StatefulNetwork", "LSTM", "GRU", "MultiHeadAttention", "AdamW"),
    *("Conv2d", "ConvTranspose2d", "MaxPool2d", "CrossEntropy", "LogSoftmax", "LayerNorm", "BatchNorm"),
    *("DigitsNetwork", "BinaryCrossEntropyWithLogits", "Parallel", "Rowwise", "Adam"),
}


def marks(entry, run):
    """In half a minute, all that is short, in one precision."""
    return [pytest.mark.slow] if run.dtype == "float32" or entry.name in LONG else []


RUNS = [
    pytest.param(run, id=f"{entry.name}-{name}", marks=marks(entry, run))
    for entry in entries()
    for name, run in runs_of(entry).items()
]


@pytest.mark.parametrize("check", RUNS)
def test_conforms(check):
    assert check().points > 0
