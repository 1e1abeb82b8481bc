"""All layers, losses, networks and optimizers of manual_bp, under every property, in both precisions."""

from dataclasses import replace

import pytest
from hypothesis import settings

from oracles.registry import entries
from oracles.search import searches_of

# Each takes more than a second.
LONG = {
    *("SequenceNetwork", "StatefulNetwork", "LSTM", "GRU", "MultiHeadAttention", "AdamW"),
    *("Conv2d", "ConvTranspose2d", "MaxPool2d", "CrossEntropy", "LogSoftmax", "LayerNorm", "BatchNorm"),
    *("DigitsNetwork", "BinaryCrossEntropyWithLogits", "Parallel", "Rowwise", "Adam"),
}


def marks(entry, search):
    """Return the marks that leave half a minute of short searches in one dtype."""
    return [pytest.mark.slow] if search.dtype == "float32" or entry.name in LONG else []


SEARCHES = [
    pytest.param(search, id=f"{entry.name}-{name}", marks=marks(entry, search))
    for entry in entries()
    for name, search in searches_of(entry).items()
]


@pytest.mark.parametrize("search", SEARCHES)
def test_conforms(search):
    # Half of the points: README's install command ends with `oracles verify`, which judges the same layers at all.
    assert replace(search, max_examples=settings().max_examples // 2)().points > 0
