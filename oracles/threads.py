"""One thread for every numerical library: small problems run several times slower on more, and results vary."""

from __future__ import annotations

import os


def pin_threads() -> None:
    """Ask BLAS, OpenMP, torch and XLA for one thread each; to be called before any of them is imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
