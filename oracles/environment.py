"""The environment of a run: one thread for each numerical library, and the versions that are installed."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

# The packages whose versions may change a verdict.
PACKAGES = ("manual-bp", "numpy", "torch", "jax", "python-flint", "hypothesis")


def pin_threads() -> None:
    """Ask BLAS, OpenMP, torch and XLA for one thread each. Call this before any of them is imported.

    Small problems run several times slower on more threads, and reductions in another order give other bits.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def installed_versions() -> dict[str, str]:
    """Return the version of each package that takes part in a verdict, or "not installed"."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def versions_line() -> str:
    """Return the installed versions in one line."""
    return ", ".join(f"{package} {installed}" for package, installed in installed_versions().items())
