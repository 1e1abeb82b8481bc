"""Temporary projects with a folder and a site-packages of their own, in which this package is installed."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]

LAYER = """
from dataclasses import dataclass

import numpy as np

import oracles
from oracles.strategies import real, rows, widths


@dataclass(frozen=True)
class Scale:
    n: int

    def init(self, rng, dtype=np.float64):
        return {"g": np.ones((1, self.n), dtype)}

    def forward(self, params, z):
        return z * params["g"], (z, params["g"])

    def backward(self, cache, delta):
        z, g = cache
        return delta * g, {"g": (delta * z).sum(axis=0, keepdims=True)}


def reference(z, g):
    return z * g


@oracles.oracle_for(Scale)
def scale(draw):
    n_rows, n = draw(rows()), draw(widths())
    primals = {"z": real(n_rows, n), "g": real(1, n)}
    return oracles.Case(oracles.manual_layer(Scale(n)), primals, torch=reference, jax=reference, batched=("z",))
"""
BUG = ("(delta * z).sum(axis=0, keepdims=True)", "(delta * np.abs(z)).sum(axis=0, keepdims=True)")


SILU = """
import numpy as np
import torch

import oracles


def forward(z):
    a = 1 / (1 + np.exp(-z))
    return z * a, (z, a)


def backward(cache, delta):
    z, a = cache
    return {"z": delta * (a + z * a * (1 - a))}


def forgets_a_term(cache, delta):
    z, a = cache
    return {"z": delta * a}


def raises(cache, delta):
    raise ZeroDivisionError("in backward")


def nothing(cache, delta):
    return {"z": None}


def reference(z):
    return torch.nn.functional.silu(z)


def of_two(y, x):
    return y


def not_mine(z):
    raise RuntimeError("not mine")


rule = oracles.manual(forward, backward, name="my silu")
not_callable = 3
"""


PLAIN = ("-p", "no:randomly", "-p", "no:cacheprovider")
EACH = """
import json, sys
import pytest
sys.stderr = sys.stdout
for arguments in json.loads(sys.argv[1]):
    print(f"\\nexit status {int(pytest.main(arguments))}", flush=True)
"""


class Project:
    """Files, packages that are "installed" by their metadata, and commands that run in the folder."""

    def __init__(self, folder):
        self.folder, self.site = folder / "project", folder / "site"
        self.folder.mkdir()
        self.site.mkdir()
        declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
        self.install("manual-bp", **{group: dict(points) for group, points in declared.items()})

    def write(self, name, text, replacing=None):
        assert replacing is None or replacing[0] in text
        (self.folder / name).write_text(text.replace(*replacing) if replacing else text)

    def install(self, package, **groups):
        metadata = self.site / f"{package.replace('-', '_')}-0.1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n")
        lines = [line for group, points in groups.items() for line in (f"[{group}]", *map(" = ".join, points.items()))]
        (metadata / "entry_points.txt").write_text("\n".join(lines))

    def run(self, *command):
        path = os.pathsep.join(map(str, (self.site, ROOT)))
        env = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "COLUMNS": "120"}
        return subprocess.run(
            [sys.executable, "-P", *command], capture_output=True, encoding="utf-8", cwd=self.folder, env=env
        )

    def pytest(self, *arguments):
        return self.run("-m", "pytest", *PLAIN, *arguments)

    def pytests(self, *runs):
        """Run pytest several times in one process, which loads torch and JAX once; what goes to stderr is in stdout."""
        process = self.run("-c", EACH, json.dumps([[*PLAIN, *run] for run in runs]))
        assert process.returncode == 0, process.stdout + process.stderr
        *outputs, rest = re.split(r"\nexit status (\d+)\n", process.stdout)
        assert (len(outputs), rest) == (2 * len(runs), ""), process.stdout
        return [
            SimpleNamespace(stdout=out, returncode=int(code))
            for out, code in zip(outputs[::2], outputs[1::2], strict=True)
        ]

    def oracles(self, *arguments):
        return self.run("-m", "oracles", *arguments)


def outcomes(process):
    """The counts of pytest's last line; warnings are the layer's own."""
    counts = re.findall(r"(\d+) (\w+)", process.stdout.strip().splitlines()[-1])
    return {name: int(count) for count, name in counts if not name.startswith("warning")}
