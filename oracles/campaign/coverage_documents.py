"""Coverage as JSON that can be added up again: a campaign's is the sum of that of its units."""

from __future__ import annotations

from collections import Counter
from zlib import crc32

from oracles.campaign.units import Json
from oracles.coverage import Coverage


def coverage_document(coverage: Coverage) -> Json:
    """Return the coverage in JSON's types; of each shape a number of 32 bits, by which it is known again."""
    shapes = sorted({each if isinstance(each, int) else crc32(repr(each).encode()) for each in coverage.shapes})
    return {**coverage.to_json(), "shapes": shapes}


def coverage_of(document: Json) -> Coverage:
    """Return the coverage that `coverage_document` wrote."""
    coverage = Coverage(points=document["points"], shapes=set(document["shapes"]), layouts=set(document["layouts"]))
    coverage.largest = document["largest"]
    coverage.counts |= document["counts"]
    for name in ("magnitudes", "deltas"):
        if document[name]:
            setattr(coverage, name, tuple(document[name]))
    coverage.extents = Counter({int(extent): n for extent, n in document["extents"].items()})
    coverage.decades = Counter({int(power): n for power, n in document["decades"].items()})
    return coverage
