"""Measure what ``pytest --oracles-audit`` costs: a suite of comparisons, run without it and with it."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder, where "audit" would be a benchmark

from benchmarks.shared import Row, positive_count  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402

GUIDE = """\
"cpu" is the median time of a core for a whole run of pytest, with its start; "ratio" is that with the audit over that
without it; "asked" is the share of the comparisons that were asked again: the others had no time left.
"""
SUITE = """\
import numpy as np
import pytest


@pytest.mark.parametrize("seed", range({tests}))
def test_it(seed):
    z = np.random.default_rng(seed).standard_normal({shape})
    for _ in range({calls}):
        np.testing.assert_allclose(np.tanh(z), np.sinh(z) / np.cosh(z), rtol=1e-6)
"""
SUITES = {
    "300 tests of one small comparison": {"tests": 300, "shape": (4, 3), "calls": 1},
    "10 tests of 1,000 small comparisons": {"tests": 10, "shape": (4, 3), "calls": 1000},
    "100 tests of 10^5 entries": {"tests": 100, "shape": (1000, 100), "calls": 1},
    "10 tests of 10^7 entries": {"tests": 10, "shape": (1000, 10000), "calls": 1},
}


def cpu_seconds(folder: Path, *options: str) -> float:
    """Run pytest in a folder, and return the time of a core that it takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(name: str, rounds: int) -> Row:
    """Return the row of one suite."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_suite.py").write_text(SUITE.format(**SUITES[name]), encoding="utf-8")
        (Path(folder) / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        without, with_ = [], []
        for _ in range(rounds):
            without.append(cpu_seconds(Path(folder)))
            with_.append(cpu_seconds(Path(folder), "--oracles-audit-json=audit.json"))
        lines = json.loads((Path(folder) / "audit.json").read_text(encoding="utf-8"))["lines"]
    asked = sum(line["asked"] for line in lines) / sum(line["calls"] for line in lines)
    return {
        "suite": name,
        "cpu": median(without),
        "audited": median(with_),
        "ratio": median(with_) / median(without),
        "asked": asked,
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=GUIDE)
    parser.add_argument("--rounds", type=positive_count, default=3, help="runs of each suite (default: 3)")
    parser.add_argument("--only", default="", help="the suites whose names contain this text")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args(arguments)
    rows = [measure(name, options.rounds) for name in SUITES if options.only in name]
    print("| suite | cpu | audited | ratio | asked |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        cells = (f"{row['cpu']:.1f} s", f"{row['audited']:.1f} s", f"{row['ratio']:.2f}", f"{row['asked']:.0%}")
        print("| " + " | ".join([row["suite"], *cells]) + " |")
    if options.json:
        write_atomically(options.json, json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
