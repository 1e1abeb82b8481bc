"""Measure how many small jobs a second ``oracles judge --batch`` judges with warm processes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from benchmarks.shared import Row, positive_count  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402

GUIDE = """\
A job is SiLU in NumPy at three points of shape (4, 3) in float32, judged by torch; or SiLU with a wrong sign.
"start" is the time until the first judgement, "jobs a second" counts those after the first 20.
"""
SOURCE = """\
import numpy as np


def forward(z):
    a = 1 / (1 + np.exp(-z))
    return z * a, (z, a)


def backward(cache, delta):
    z, a = cache
    return {"z": delta * (a + z * a * (1 - a))}
"""
WRONG = SOURCE.replace("(1 - a)", "(1 + a)")
REFERENCE = "import torch\n\n\ndef silu(z):\n    return torch.nn.functional.silu(z)\n"
WARM = 20


def measure(share: str, source: str, jobs: int, processes: int) -> Row:
    """Return the row of so many jobs of one source."""
    with tempfile.TemporaryDirectory() as folder:
        reference, file = Path(folder, "reference.py"), Path(folder, "jobs.jsonl")
        reference.write_text(REFERENCE)
        job = {
            "subject": "forward,backward", "source": source, "reference": f"torch:{reference}:silu",
            "cases": [{"shapes": "z=4,3", "dtypes": ["float32"], "points": 3}],
        }  # fmt: skip
        file.write_text("".join(json.dumps({"id": i, **job}) + "\n" for i in range(jobs)))
        out = Path(folder, "out.jsonl")
        command = [sys.executable, "-m", "oracles", "judge", "--batch", str(file), "--json", str(out)]
        began, times = time.monotonic(), []
        process = subprocess.Popen(
            [*command, "--jobs", str(processes)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None:
            count = out.read_text().count("\n") if out.exists() else 0
            times += [time.monotonic() - began] * (count - len(times))
            time.sleep(0.01)
        documents = [json.loads(line) for line in out.read_text().splitlines()]
        times += [time.monotonic() - began] * (len(documents) - len(times))
    rate = (jobs - WARM) / (times[-1] - times[WARM - 1])
    statuses = Counter(document["status"] for document in documents)
    return {"subject": share, "processes": processes, "jobs": jobs, "start": times[0], "rate": rate, **statuses}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=GUIDE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=positive_count, default=400, metavar="N", help="jobs of each kind (400)")
    parser.add_argument("--json", metavar="FILE", help="write the rows to FILE")
    args = parser.parse_args()
    rows = [
        measure(name, source, max(args.jobs, WARM + 1), processes)
        for name, source in (("right", SOURCE), ("wrong", WRONG))
        for processes in (1, 2)
    ]
    print("subject  processes  jobs  start  jobs a second  statuses")
    for row in rows:
        statuses = ", ".join(f"{name} {count}" for name, count in row.items() if name.isupper())
        start = f"{row['start']:.1f} s"
        print(f"{row['subject']:7}  {row['processes']:9}  {row['jobs']:4}  {start:>5}  {row['rate']:13.1f}  {statuses}")
    print(GUIDE, end="")
    if args.json:
        write_atomically(args.json, json.dumps({"rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
