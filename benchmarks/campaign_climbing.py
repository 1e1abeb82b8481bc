"""Compare points that climb towards the worst error / tolerance with as many that do not.

    python benchmarks/campaign_climbing.py [--layers Linear Tanh Softmax LayerNorm] [--seeds 5] [--points 60]

For each layer, dtype and seed: the worst error / tolerance at so many points, all drawn by the schedule of a search;
and at as many points of which half climb. Up to 1 is rounding.
"""

import argparse
import sys
from math import log10
from pathlib import Path
from statistics import median

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be a benchmark

from oracles.options import SearchOptions  # noqa: E402
from oracles.registry import entries  # noqa: E402
from oracles.search import Search  # noqa: E402


def worst(entry, dtype, seed, points, climb):
    """Return the worst error / tolerance of one search."""
    options = SearchOptions(("torch",), points, seed, climb=climb)
    search = Search(entry.cases, "cotangents_agree", dtype, entry.name, options=options)
    error = search.attempt()
    if error is not None:
        raise error
    return search.tally.worst_ratio["torch"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", default=["Linear", "Tanh", "Softmax", "LayerNorm"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--points", type=int, default=60)
    args = parser.parse_args()
    print("layer       dtype    drawn, median  climbing, median  climbing is higher")
    gains = []
    for entry in entries(args.layers):
        for dtype in ("float64", "float32"):
            half, seeds = args.points // 2, range(args.seeds)
            pairs = [
                (worst(entry, dtype, seed, args.points, 0), worst(entry, dtype, seed, half, half)) for seed in seeds
            ]
            gains += [log10(climbing / drawn) for drawn, climbing in pairs if drawn and climbing]
            higher = sum(climbing > drawn for drawn, climbing in pairs)
            medians = (median(pair[i] for pair in pairs) for i in (0, 1))
            cells = "".join(f"{value:<{width}.3g}" for value, width in zip(medians, (15, 18), strict=True))
            print(f"{entry.name:<11} {dtype:<8} {cells}{higher} of {len(pairs)}", flush=True)
    print(f"all: the ratio is {10 ** median(gains):.2f} times as high, by the median of {len(gains)} searches")


if __name__ == "__main__":
    main()
