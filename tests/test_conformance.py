"""All layers, losses, networks and optimizers of manual_bp, under every check, in both precisions."""

import pytest

from oracles.conformance import runs_of
from oracles.registry import entries

RUNS = {f"{entry.name}-{name}": run for entry in entries() for name, run in runs_of(entry).items()}


@pytest.mark.parametrize("check", list(RUNS.values()), ids=list(RUNS))
def test_conforms(check):
    assert check().points > 0
