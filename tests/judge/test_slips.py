"""Every slip in an operation is refused and diagnosed as its table says; as configured by default, some are silent."""

from collections import Counter

import pytest
import slips_images as _images  # noqa: F401
import slips_losses as _losses  # noqa: F401
import slips_norms as _norms  # noqa: F401
import slips_optimizers as _optimizers  # noqa: F401
import slips_pointwise as _pointwise  # noqa: F401
from slips import SLIPS

from oracles import Disagreement
from oracles.conformance import search

EXAMPLES = 240


@pytest.mark.deep
@pytest.mark.parametrize("slip", SLIPS, ids=lambda s: f"{s.right.__name__}-{s.wrong.__name__}")
def test_it_is_refused(slip):
    with pytest.raises(Disagreement) as refused:
        search(slip.planted(), slip.check, "float64", max_examples=EXAMPLES, seed=0)
    assert refused.value.verdict in ("wrong", "kink", "unstable", "oracles_conflict")


@pytest.mark.slow
@pytest.mark.parametrize("slip", SLIPS, ids=lambda s: f"{s.right.__name__}-{s.wrong.__name__}")
def test_it_is_diagnosed(slip, monkeypatch):
    assert slip.diagnosed(monkeypatch, seed=5) == slip.pattern


@pytest.mark.parametrize("slip", [s for s in SLIPS if s.silent], ids=lambda s: s.wrong.__name__)
def test_it_is_silent_as_it_comes(slip):
    """What only the default configuration is tested in, passes."""
    assert not any(slip.at(seed, slip.silent).refuses for seed in range(1, 6))


def test_every_operation_has_three_slips():
    assert min(Counter(s.right for s in SLIPS).values()) >= 3
