"""All layers, losses, networks and optimizers of manual_bp, under every check, in both precisions."""

import pytest

from oracles.conformance import runs_of
from oracles.registry import entries

RUNS = [
    pytest.param(run, id=f"{entry.name}-{name}", marks=[pytest.mark.slow] if run.dtype == "float32" else [])
    for entry in entries()
    for name, run in runs_of(entry).items()
]


@pytest.mark.parametrize("check", RUNS)
def test_conforms(check):
    assert check().points > 0
