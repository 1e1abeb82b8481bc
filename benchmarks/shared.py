"""What the benchmarks share that count in several processes: their options and how a process is prepared."""

from __future__ import annotations

import argparse
import math
import signal


def prepare_process() -> None:
    """Prepare a process: Ctrl-C is for the parent, and torch runs on one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)


def whole_number(text: str, least: int = 0) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return value


def positive_count(text: str) -> int:
    return whole_number(text, 1)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {text!r}")
    return value
