"""``oracles completion SHELL``: the script by which a shell completes the commands, made by shtab."""

from __future__ import annotations

import shtab

from oracles.cli.parser import make_parsers
from oracles.registry import entries


def print_completion(shell: str) -> int:
    """Print the script, with the layers that are registered now; return 0."""
    parser, _ = make_parsers(layers=[entry.name for entry in entries()])
    print(shtab.complete(parser, shell))
    return 0
