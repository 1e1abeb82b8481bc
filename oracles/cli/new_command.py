"""``oracles new layer NAME`` and ``oracles new test FILE:CLASS``: write the files to start from."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from oracles.environment import write_atomically
from oracles.scaffolds.layer import DERIVATION, EXPORTS, file_name, layer_files


def new(args: argparse.Namespace) -> int:
    """Write the files of a new layer of manual_bp, or a test of a user's own code; return 0.

    Raises:
        ValueError: if a file exists already, or it is not known what to write.
    """
    if args.what == "layer":
        return _new_layer(args.name)
    from oracles.scaffolds.own_test import write_test  # the adapters, which need NumPy

    path, line = write_test(args.name)
    print(f"wrote {path}: {line}\nrun     pytest {path}")
    return 0


def _new_layer(name: str) -> int:
    texts = layer_files(Path.cwd(), name)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    changed = (EXPORTS, DERIVATION)
    for path in texts:
        shown = os.path.relpath(path)
        print(f"{'added a line to' if shown in changed else 'wrote'} {shown}")
    print(
        f"\nEvery place that is missing raises NotImplementedError with a sentence. Fill in, in this order:\n"
        f"  1. the equations in {DERIVATION}, with the reason why they hold, and in the class\n"
        f"  2. _value and _cotangents in manual_bp/{file_name(name)}.py\n"
        f"  3. the forward in torch and JAX in oracles/references/{file_name(name)}.py\n"
        f"  4. the mistakes that somebody would make, in tests/planted_bugs/{file_name(name)}.py\n"
        f"then run  oracles verify {name}  and  pytest -k {name}"
    )
    return 0
