"""The command line: ``oracles list``, ``oracles conventions`` and ``oracles verify``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from oracles.threads import pin_threads

pin_threads()

from oracles.verify import verify  # noqa: E402

EXAMPLES = """\
examples:
  oracles list                                  the layers that can be judged, and by what
  oracles conventions                           the derivatives at kinks, as each framework has them
  oracles verify                                every layer, both frameworks, float64 and float32
  oracles verify Linear Tanh --against torch    two layers, by PyTorch alone
  oracles verify --max-examples 2000 --seed 7   a deeper search, reproducible
  oracles verify --json verdicts.json           the results for a machine

exit status: 0 all agree, 1 a layer is refused, 2 wrong usage, 130 interrupted (what was seen is printed and saved)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        if args.command == "list":
            return _list()
        if args.command == "conventions":
            return _conventions()
        return verify(
            args.layers,
            against=_listed(args.against, ("torch", "jax"), "--against"),
            dtypes=_listed(args.dtype, ("float64", "float32"), "--dtype"),
            max_examples=args.max_examples,
            seed=args.seed,
            json_path=args.json,
        )
    except ValueError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oracles",
        description="Judge hand-written gradients by PyTorch, JAX and finite differences, with derived tolerances.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="list the layers that can be judged")
    commands.add_parser("conventions", help="what ours, torch and JAX take for a derivative where there is none")
    verify_ = commands.add_parser(
        "verify",
        help="search for a point at which a layer's gradient is wrong",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify_.add_argument("layers", nargs="*", metavar="LAYER", help="layers by name, see `oracles list`; default: all")
    verify_.add_argument("--against", default="torch,jax", help="frameworks, comma-separated (default: torch,jax)")
    verify_.add_argument("--dtype", default="float64,float32", help="dtypes, comma-separated (default: both)")
    verify_.add_argument(
        "--max-examples", type=_positive, default=100, metavar="N", help="points per check (default: 100)"
    )
    verify_.add_argument("--seed", type=int, default=0, metavar="S", help="of the search (default: 0)")
    verify_.add_argument("--json", metavar="FILE", help="write the results as JSON, atomically")
    return parser


def _list() -> int:
    from rich.console import Console
    from rich.table import Table

    from oracles.conformance import searches
    from oracles.registry import entries

    table = Table("layer", "implemented in", "judged by the cases of", "checks")
    for entry in entries():
        checks = {check for _, check, _ in searches([entry])}
        table.add_row(entry.name, entry.speaks_for.__module__, entry.module, str(len(checks)))
    Console(width=100 if not sys.stdout.isatty() else None).print(table)
    return 0


def _conventions() -> int:
    from rich.console import Console
    from rich.table import Table

    from oracles.conventions import conventions

    table = Table("layer", "at", "declared", "manual_bp", "torch's own", "JAX's own")
    for row in conventions():
        table.add_row(row.layer, *(f"{v:g}" for v in (row.kink, row.declared, row.manual_bp, row.torch, row.jax)))
    Console(width=100 if not sys.stdout.isatty() else None).print(table)
    return 0


def _listed(text: str, known: Sequence[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"{option}: expected some of {', '.join(known)}, separated by commas, got {text!r}")
    return names


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
