"""What `oracles verify` prints of its results: tables at every width, refusals, and the last line."""

import io
import re

import pytest
from rich.console import Console

from oracles.cli.markdown import markdown
from oracles.cli.verify_report import Failure, Report, Row, counted
from oracles.cli.verify_tables import NO_LIMIT, make_console, print_report
from oracles.coverage import Coverage
from oracles.missing import Missing
from oracles.report.disagreement import REPRODUCE
from oracles.tally import exceeds_vacuous_limit, most_inconclusive
from oracles.verdict import Verdict

LAYERS = ("Linear", "A" * 30, "Tanh")
ORACLES = ("exact", "finite difference", "jax", "torch", "self-consistency")


def row(layer, oracle="torch", dtype="float32", verdict="agrees", vacuous=0, examples=30):
    return Row(layer, "cotangents_agree", oracle, dtype, verdict, examples, 0.5, 1.0, vacuous, 1e-6, 1e-3)


def report(*, failures=(), missing=(), vacuous=0, layers=LAYERS):
    rows = [row(n, o, d, vacuous=vacuous) for n in layers for o in ORACLES for d in ("float64", "float32")]
    coverage = {name: Coverage(points=30, shapes={1, 2, 3}) for name in layers}
    return Report(rows, list(failures), missing, coverage=coverage)


def printed(result, width=NO_LIMIT, **options):
    stream = io.StringIO()
    print_report(result, Console(file=stream, width=width), **options)
    return stream.getvalue()


CONFLICT = Failure("Linear", "oracles_conflict", "Linear: ORACLES_CONFLICT in the cotangent of W\n  the details")


def test_a_layer_is_one_line():
    lines = [line.split("  ") for line in printed(report()).splitlines() if line.startswith(LAYERS)]
    assert [line[0] for line in lines] == list(LAYERS)
    cells = [cell.strip() for cell in lines[0] if cell.strip()]
    oracles = "exact, finite difference, jax, self-consistency, torch"
    assert cells == ["Linear", oracles, "float64, float32", "300", "3", "0.5", "1e-06", "0%", "agrees"]


def test_titles_are_those_of_the_documentation():
    text = printed(report())
    titles = " ".join(" ".join(pair) for pair in zip(*(line.split() for line in text.splitlines()[:2]), strict=False))
    assert {"error", "tolerance", "detects", "above", "inconclusive"} <= {*titles.split(), *text.split()}
    assert "distinct" not in text
    assert "drawn for the oracles" not in text


@pytest.mark.parametrize("width", [30, 40, 50, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("verbose", [False, True])
def test_verdict_and_dtype_are_never_cut(width, verbose):
    text = printed(report(failures=[CONFLICT]), width, verbose=verbose).split("\n\n")[0]
    if width >= 40:  # below, a table is wider than the terminal
        assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert "…" not in text
    assert ("oracles_conflict" in text) != verbose  # the detailed table has the verdicts of rows
    assert text.count("float32") == len(LAYERS) * (len(ORACLES) if verbose else 1)
    assert text.count("agrees") >= len(LAYERS) - 1


def test_names_are_shortened_before_columns_go():
    first = printed(report(layers=("Linear",)), 100).splitlines()
    assert "EFJST" in first[3]
    assert any("E exact, F finite difference, J jax, S self-consistency, T torch" in line for line in first)


def test_off_a_terminal_nothing_limits_the_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert make_console().width == NO_LIMIT


def test_details_on_request():
    text = printed(report(), verbose=True)
    assert len(re.findall("^.* float(64|32) .*agrees", text, re.MULTILINE)) == len(LAYERS) * len(ORACLES) * 2
    assert "drawn for the oracles\nLinear: 3 shapes" in text


def test_refusals_come_last_in_colour_with_their_headlines():
    stream = io.StringIO()
    more = Failure("Linear", "wrong", "Linear: WRONG in b\n  other details")
    console = Console(file=stream, width=NO_LIMIT, force_terminal=True, color_system="standard", legacy_windows=False)
    print_report(report(failures=[CONFLICT, more]), console)
    *_, first, details, second, empty, last = stream.getvalue().splitlines()
    assert "\x1b[1;31mLinear: ORACLES_CONFLICT in the cotangent of W\x1b[0m" in first
    assert (details, empty) == ("  the details", "")
    assert second == "\x1b[1;31mLinear: WRONG in b\x1b[0m"
    assert "1 layer refused (Linear); exit status 1" in last
    assert "other details" in printed(report(failures=[CONFLICT, more]), verbose=True)


def test_what_several_searches_have_in_common_is_printed_once():
    raised = [Failure("Linear", "wrong", f"Linear, {name}, float64: KeyError: 'W'", "KeyError: 'W'") for name in "abc"]
    text = printed(report(failures=[*raised, CONFLICT, CONFLICT]))
    assert text.count("KeyError") == text.count("ORACLES_CONFLICT") == 1
    assert "Linear, a, float64: KeyError: 'W'\n  the same in 2 other searches\n" in text
    assert "Linear: ORACLES_CONFLICT in the cotangent of W\n  the same in 1 other search\n" in text
    assert printed(report(failures=raised), verbose=True).count("KeyError") == 3


def test_a_refusal_is_named_without_addresses_and_reproduced_by_a_command():
    refused = [
        Failure("My Layer", "wrong", f"<mine.Layer object at 0x{i}a>: WRONG in g\n{REPRODUCE}", "") for i in (1, 2)
    ]
    result = report(failures=refused)
    result.options = " --seed 3"
    lines = printed(result).splitlines()
    assert (
        lines[lines.index("<mine.Layer object>: WRONG in g") + 1] == "  reproduce: oracles verify 'My Layer' --seed 3"
    )
    assert "\n".join(lines).count("WRONG in g") == 1


def test_quiet_is_headlines_and_the_last_line():
    assert printed(report(failures=[CONFLICT]), quiet=True).splitlines() == [
        "Linear: ORACLES_CONFLICT in the cotangent of W",
        "3 layers, 900 verdicts in 0 s: 1 layer refused (Linear); exit status 1",
    ]
    assert printed(report(), quiet=True) == "3 layers, 900 verdicts in 0 s: all agree\n"


NOT_JUDGED = Failure("Gone", "not judged", "Gone, cotangents_agree, float64: NotImplementedError: backward")


@pytest.mark.parametrize(
    ("result", "status", "outcome"),
    [
        (report(), 0, "all agree"),
        (report(layers=["Tanh"]), 0, "1 layer, 300 verdicts in 0 s: all agree"),
        (report(failures=[CONFLICT]), 1, "1 layer refused (Linear)"),
        (report(failures=[CONFLICT, NOT_JUDGED]), 1, "1 layer refused (Linear), 1 layer not judged (Gone)"),
        (report(vacuous=8, layers=["Tanh"]), 1, "1 layer inconclusive (Tanh)"),
        (report(vacuous=7, layers=["Tanh"]), 0, "all agree"),
        (report(missing=["gone"]), 1, "1 module of cases cannot be imported"),
        (Report([], [], ()), 1, "nothing judged"),
        (Report([row("Tanh")], [], (), interrupted=True), 130, "interrupted, these are the results until then"),
        (Report([], [], (), interrupted=True), 130, "interrupted, these are the results until then"),
    ],
)
def test_the_last_line_and_the_exit_status_agree(result, status, outcome):
    last = printed(result).splitlines()[-1]
    assert result.status == status == result.document(0)["status"]
    assert outcome in last
    assert ("all agree" in last) == (status == 0)
    assert last.endswith(f"exit status {status}") == (status != 0)
    assert printed(result, quiet=True).splitlines()[-1] == last


@pytest.mark.parametrize("points", range(1, 200))
def test_a_short_run_has_its_own_number_of_inconclusive_points(points):
    most = most_inconclusive(points)
    assert most == min(points // 10 + 4, points - 1)
    assert not exceeds_vacuous_limit(most, points)
    assert exceeds_vacuous_limit(most + 1, points)


def test_the_numbers_that_the_page_shows():
    assert [most_inconclusive(points) for points in (0, 3, 15, 30, 100)] == [0, 2, 5, 7, 14]


def test_a_verdict_says_more_than_that_nothing_is_known():
    result = Report([row("Gone")], [NOT_JUDGED, Failure("Gone", str(Verdict.WRONG), "x")], ())
    assert result.verdict("Gone") == "wrong"


@pytest.mark.parametrize(("count", "text"), [(0, "0 layers"), (1, "1 layer"), (2, "2 layers")])
def test_one_layer_two_layers(count, text):
    assert counted(count, "layer") == text


def test_markdown_has_a_line_for_each_layer_and_reports_to_unfold():
    lines = markdown(report(failures=[CONFLICT])).splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == 2 + len(LAYERS)
    assert len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| Linear | exact, finite difference, ")
    assert table[2].endswith("❌ oracles_conflict |")
    assert table[3].endswith("✅ agrees |")
    assert lines[0] == "### Gradients: ❌ refused or not judged"
    assert "<summary>Linear: ORACLES_CONFLICT in the cotangent of W</summary>" in lines
    assert lines[lines.index("````text") + 1] == "  the details"
    assert markdown(report()).startswith("### Gradients: ✅ all agree")
    lack = Missing("jax", "jax is not installed", "pip install 'manual-bp[jax]'")
    skipped = Report([], [], (), skipped={"Tanh": {"jax": lack}})
    assert markdown(skipped).startswith("### Gradients: ⏭️ something was skipped")
    assert skipped.status == 3
