"""Let the attacks of tests/red_team run: in the verifier's process, and in processes of their own."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder, where "oracles" would be a benchmark
sys.path.insert(1, str(ROOT / "tests" / "red_team"))

from oracles.environment import pin_threads  # noqa: E402

pin_threads()

from described import FOLDER, Described, all_in  # noqa: E402
from rich.box import SIMPLE_HEAD  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import oracles  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402
from oracles.untrusted.remote import Sandbox  # noqa: E402

GUIDE = """\
Each attack of tests/red_team/attacks has a wrong gradient, or does what is forbidden, and hides it from the verifier.
  naive      a verifier in the same process: two points, the gradient of the sum, a comparison that is usual
  check      oracles.check in the same process
  untrusted  oracles.judge_untrusted

"passes" in the first two columns means that the process ends with status 0 after the attack. What would harm the
machine runs under oracles.judge_untrusted alone: "not run".

examples:
  python benchmarks/red_team.py                         the table
  python benchmarks/red_team.py --only patched          the attacks with "patched" in their names
  python benchmarks/red_team.py --honest                the honest subjects: what is no attack must pass
  python benchmarks/red_team.py --json red_team.json    the figures, for a machine"""
SECONDS_IN_PROCESS = 20.0
MEMORY_IN_PROCESS = 8 * 2**30


@dataclass(frozen=True)
class Outcome:
    """What became of one attack."""

    attack: str
    kind: str
    does: str
    naive: str
    check: str
    untrusted: str
    expected: tuple[str, ...]
    seconds: float
    reason: str


def in_process(which: str, attack: Described, folder: Path) -> str:
    """Return what a verifier in the attack's process says: "passes", "refused", "hangs", or "not run"."""
    if attack.harmful:
        return "not run"
    if which == "naive" and attack.subject not in ("forward,backward", "Silu"):
        return "not run"
    copied(folder)
    reference = f"{folder / 'references.py'}:{attack.function}"
    case = attack.cases[0]
    arguments = [
        which, f"{folder / 'attacks' / attack.path.name}:{attack.subject}", reference, case["shapes"],
        case.get("dtypes", ["float64"])[0], attack.comparison,
    ]  # fmt: skip
    command = [sys.executable, str(ROOT / "benchmarks" / "red_team_in_process.py"), *arguments]
    environment = {**os.environ, "RED_TEAM_REFERENCE": str(folder / "references.py"), "TMPDIR": str(folder)}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=limit,
    )  # fmt: skip
    try:
        return "passes" if process.wait(SECONDS_IN_PROCESS) == 0 else "refused"
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "hangs"


def limit() -> None:
    """Limit the memory and the files of a verifier with an attack in its process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_IN_PROCESS, MEMORY_IN_PROCESS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**24, 2**24))
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))


def copied(folder: Path) -> Path:
    """Copy the red team with the references compiled, since its attacks write over files."""
    compiled = folder.with_name("compiled")
    if not compiled.exists():
        shutil.copytree(FOLDER, compiled, ignore=shutil.ignore_patterns("__pycache__", "test_*"))
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(compiled / "references.py")], check=True)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(compiled, folder)
    return folder


def judged(attack: Described, folder: Path, sandbox: Sandbox) -> tuple[str, str, float]:
    """Return the status of an attack, the reason, and the seconds."""
    judgement = oracles.judge_untrusted(
        f"{folder / attack.path.parent.name / attack.path.name}:{attack.subject}",
        f"torch:{folder / 'references.py'}:{attack.function}",
        list(attack.cases),
        seconds=attack.seconds,
        memory_mb=attack.memory_mb,
        forbid=attack.forbid,
        diagnosis=False,
        sandbox=sandbox,
    )
    return str(judgement.status), judgement.reason, judgement.seconds


def measured(attacks: list[Described]) -> list[Outcome]:
    """Let every attack run three times."""
    outcomes = []
    with tempfile.TemporaryDirectory() as name, Sandbox() as sandbox:
        copied(Path(name, "judged"))
        pool = ThreadPoolExecutor(2)
        for attack in attacks:
            verifiers = [pool.submit(in_process, which, attack, Path(name, which)) for which in ("naive", "check")]
            naive, check = (verifier.result() for verifier in verifiers)
            status, reason, seconds = judged(attack, copied(Path(name, "judged")), sandbox)
            expected = tuple(sorted(attack.expected))
            outcomes.append(
                Outcome(attack.name, attack.kind, attack.does, naive, check, status, expected, seconds, reason)
            )
            print(f"\r{len(outcomes)} of {len(attacks)}", end="", file=sys.stderr, flush=True)
    print("\r", end="", file=sys.stderr)
    return outcomes


def show(outcomes: list[Outcome]) -> None:
    table = Table(box=SIMPLE_HEAD)
    for column in ("attack", "naive", "check", "untrusted", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for each in outcomes:
        mark = "" if each.untrusted in each.expected else "  !"
        table.add_row(each.attack, each.naive, each.check, each.untrusted + mark, f"{each.seconds:.2f}")
    Console(width=120, highlight=False).print(table)
    show_kinds(outcomes)
    for column in ("naive", "check"):
        print(f"{column}: {passed(outcomes, column)} pass")
    others = sum(o.untrusted not in o.expected for o in outcomes)
    print(f"untrusted: {passed(outcomes, 'untrusted')} pass, {others} with another status than expected")


def show_kinds(outcomes: list[Outcome]) -> None:
    """Print of how many attacks of each kind each verifier is fooled."""
    table = Table(box=SIMPLE_HEAD)
    for column in ("kind", "attacks", "naive", "check", "untrusted"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind in sorted({o.kind for o in outcomes}):
        own = [o for o in outcomes if o.kind == kind]
        table.add_row(kind, str(len(own)), passed(own, "naive"), passed(own, "check"), passed(own, "untrusted"))
    Console(width=120, highlight=False).print(table)


def passed(outcomes: list[Outcome], column: str) -> str:
    run = [value for o in outcomes if (value := getattr(o, column)) != "not run"]
    return f"{sum(value in ('passes', 'PASSED') for value in run)} of {len(run)}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=GUIDE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="the attacks with this in their names")
    parser.add_argument("--honest", action="store_true", help="the honest subjects instead")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    found = [each for each in all_in("honest" if options.honest else "attacks") if options.only in each.name]
    if not found:
        parser.error(f"--only: nothing has {options.only!r} in its name")
    outcomes = measured(found)
    show(outcomes)
    if options.json:
        write_atomically(options.json, json.dumps([asdict(o) for o in outcomes], indent=1) + "\n")
    return int(any(o.untrusted not in o.expected for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
