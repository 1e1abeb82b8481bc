"""All layers, losses, networks and optimizers of manual_bp, under every check, in both precisions."""

import pytest

from oracles.conformance import search, searches
from oracles.registry import entries

SEARCHES = {f"{entry.name}-{check}-{dtype}": (entry, check, dtype) for entry, check, dtype in searches(entries())}


@pytest.mark.parametrize(("entry", "check", "dtype"), list(SEARCHES.values()), ids=list(SEARCHES))
def test_conforms(entry, check, dtype):
    tally = search(entry.cases, check, dtype, label=entry.name)
    assert sum(tally.examples.values()) > 0
