"""The exception that carries a refusal: verdict, evidence, diagnosis, a report, JSON and a script to reproduce it.

The report is text that reads like a good bug report. The JSON document has the point to the last bit.
"""

from __future__ import annotations

import json
import re
import textwrap
import warnings
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from oracles.constants import DIAGNOSIS_SECONDS, DIAGNOSIS_TIMES, DOCUMENT_SCRIPT, LEAST_DIAGNOSIS_SECONDS
from oracles.decision.type_errors import CALL
from oracles.diagnosis.experiments import result_or_none
from oracles.lazy_modules import LazyModule
from oracles.outputs import in_core, in_words
from oracles.process_state import judging
from oracles.report.compared import Compared, compared_at, entries_document
from oracles.report.compared import Json as Json
from oracles.report.compared import number as number
from oracles.report.fixes import with_own_fixes
from oracles.report.reproduction import script
from oracles.rule import Array, as_tuple
from oracles.stages import announce
from oracles.time_budget import OutOfTime, time_budget
from oracles.verdict import SELF_CONSISTENCY, Evidence, Finding, Result, Setting, Verdict

if TYPE_CHECKING:
    from oracles.diagnosis import diagnose
else:  # what agrees has no diagnosis
    diagnose = LazyModule("oracles.diagnosis.diagnose")
html = LazyModule("oracles.report.html")  # a page is written on request


class _ResultError(AssertionError):
    """The result at one point is no pass.

    Attributes:
        result: all findings at the point.
    """

    def __init__(self, result: Result) -> None:
        result = with_own_fixes(result)
        super().__init__(result)
        self.result = result


class Disagreement(_ResultError):
    """The subject is refused. ``str()`` reads like a bug report.

    Attributes:
        result: all findings at the point.
        reproduce: the last line of the report: how to have the same refusal again.
    """

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.reproduce = REPRODUCE

    def __str__(self) -> str:
        text = report_text(self.result, self.diagnosis)
        if REPRODUCE in text or self.reproduce == REPRODUCE:
            return text.replace(REPRODUCE, self.reproduce)
        return f"{text}\n{self.reproduce}"  # it was cut, since it stands last

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict."""
        return self.result.worst.verdict if self.result.worst else Verdict.VACUOUS

    @property
    def evidence(self) -> Evidence:
        """The evidence of the gravest finding."""
        return self.result.worst.evidence if self.result.worst else Evidence()

    @cached_property
    def diagnosis(self) -> str:
        """The defect in words, or "no pattern found".

        Computed when it is first read, since it takes many evaluations and a search refuses many points.
        """
        seconds = _diagnosis_seconds(self.result)
        with judging(), time_budget(seconds), warnings.catch_warnings():
            # The experiments may divide by zero. Under pytest's "error" filter that would raise inside the subject.
            warnings.simplefilter("ignore")
            announce("diagnosing")
            try:
                return in_words(str(diagnose.diagnosis_of(in_core(self.result))), self.result.shown)
            except OutOfTime:
                return f"none was found within {seconds:.0f} s; then the experiments were cut short"

    def to_json(self) -> str:
        """Return the report as JSON: verdict, evidence, diagnosis, findings, and the point as exact hex floats."""
        return to_text(self.document())

    def document(self) -> Json:
        """Return what `to_json` writes: the report, the refused array entry by entry, and the script.

        The script is left out where it is longer than `DOCUMENT_SCRIPT`.
        """
        try:
            text = self.script()
        except (OSError, TypeError, ValueError):  # a result without its point
            text = ""
        return document(self.result, self.diagnosis) | {
            "text": str(self),
            "entries": self._entries(),
            "script": text if len(text) <= DOCUMENT_SCRIPT else "",
        }

    def _entries(self) -> Json | None:
        entries, shown = entries_document(self._compared), self.result.shown
        return entries and {**entries, "quantity": shown.get(entries["quantity"], entries["quantity"])}

    def script(self) -> str:
        """Return a stand-alone Python file that shows the disagreement without Hypothesis and without this package."""
        with judging():  # where the array is not known, the subject is called again, and may try to end the process
            return script(self.result, str(self), self._compared)

    @cached_property
    def _compared(self) -> Compared | None:
        """The refused array and the oracle's; ``None`` if the subject does not return one."""
        worst, setting = in_core(self.result).worst, self.result.setting
        if worst is None or setting is None:
            return None
        with judging(), time_budget(DIAGNOSIS_SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return result_or_none(lambda: compared_at(worst, setting))
            except OutOfTime:
                return None

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the report with pictures, or as text without Jinja2."""
        return str(html.refusal_fragment(self))


def _diagnosis_seconds(result: Result) -> float:
    """Return the time for a diagnosis: a few times that of the judgement, within bounds."""
    return min(DIAGNOSIS_SECONDS, max(LEAST_DIAGNOSIS_SECONDS, DIAGNOSIS_TIMES * result.seconds))


def require(result: Result) -> Result:
    """Return the result, or raise a `Disagreement` if it refuses the subject.

    Raises:
        Disagreement: with what the subject raised as its cause, if it raised.
    """
    if result.refuses:
        raise Disagreement(result) from result.cause
    return result


class Inconclusive(_ResultError):
    """Nothing bounds a whole cotangent of the subject, so that any numbers would pass. It is no refusal.

    Attributes:
        result: all findings at the point.
    """

    def __str__(self) -> str:
        names = ", ".join(self.result.inconclusive)
        unbounded = [f for f in self.result.findings if f.unbounded and f.quantity in self.result.inconclusive]
        reasons = dict.fromkeys(f.evidence.reason for f in unbounded if f.evidence.reason)
        # Finite differences that were cut short know nothing of the other entries.
        about = tuple(f"{n}: " for n in self.result.inconclusive)
        notes = [text for text in self.result.notes if text.startswith(about) and text.endswith("out of time")]
        reason = "; ".join([*reasons, *notes]) or "no oracle has a finite value and a finite tolerance there"
        fix = (
            "give it more `seconds`, or a smaller point"
            if reasons or notes
            else "judge at another point, or against another reference"
        )
        title = f"{self.result.subject}: nothing is known of the cotangent of {names}: {reason}."
        return f"{title}\n{self.result}\nFix: {fix}."

    @property
    def verdict(self) -> Verdict:
        """`Verdict.VACUOUS`."""
        return self.result.verdict


class InconclusiveWarning(UserWarning):
    """A whole cotangent, or most of an array, passed a comparison that would have let an error of its own size pass."""


def require_conclusive(result: Result) -> Result:
    """Return the result of `require`, and report a cotangent of which nothing was judged.

    Rounding alone may move every entry by its own size, or the delta is zero: then the result is returned with an
    `InconclusiveWarning`. So it is where most entries of an array, or a whole output, could be any numbers.

    Raises:
        Disagreement: as `require` does.
        Inconclusive: if no oracle bounds an entry of a cotangent at all.
    """
    require(result)
    if any(f.unbounded for f in result.findings if f.quantity in result.inconclusive):
        raise Inconclusive(result)
    if result.inconclusive:
        names, reasons = ", ".join(result.inconclusive), "; ".join(dict.fromkeys(result.inconclusive_because.values()))
        because = f": {reasons}" if reasons else ""
        text = f"{result.subject}: nothing of the cotangent of {names} was judged{because}"
        warnings.warn(text, InconclusiveWarning, 3)
    elif result.mostly_open:
        warnings.warn(f"{result.subject}: {result.open_text}", InconclusiveWarning, 3)
    return result


# A report fits a terminal of 100 columns, and one screen above the prompt.
WIDTH = 100
MOST_LINES = 25
LINES_PER_PARAGRAPH = 4
NAME_WIDTH = 60
MOST_FINDINGS = 6  # in one list
# The last line. The command line and the pytest plugin replace it by their own way to reproduce a refusal.
REPRODUCE = "  reproduce: this exception's script() is a stand-alone file; to_json() has every number"


def report_text(result: Result, diagnosis: str) -> str:
    """Return the report of a result: subject, verdict, location, values, who agrees, the defect, the point."""
    worst = result.worst
    if worst is None:
        return f"{result.subject}: nothing was judged"
    title = f"{_shorten(result.subject)}: {worst.verdict.upper()} in {_quantity_text(worst.quantity, worst.is_output)}"
    lines = [f"{title}  [{result.property_name}]"]
    lines += _evidence_lines(worst)
    lines += [f"  fix:    {line}" for line in worst.evidence.fix.splitlines()]
    # A subject that contradicts itself is described by the property; that no pattern was found adds nothing.
    if worst.oracle != SELF_CONSISTENCY or diagnosis != str(diagnose.NO_PATTERN_FOUND):
        lines += _paragraph("diagnosis: ", diagnosis)
    others = [f for f in result.findings if (f.quantity, f.oracle) != (worst.quantity, worst.oracle)]
    lines += _paragraph("also refused: ", _findings_text([f for f in others if f.refuses]))
    lines += _paragraph("accepted: ", _findings_text([f for f in others if not f.refuses]))
    lines += _paragraph("no gradient claimed, nothing judged: ", ", ".join(result.not_claimed))
    for note in result.notes:
        lines += _paragraph("note: ", note)
    if result.setting is not None:
        lines += _paragraph("at: ", _point_text(result.setting))
        smaller = result.reduced.get((in_core(result).worst or worst).quantity)
        if smaller is not None and smaller.setting is not None:
            lines += _paragraph("decided and diagnosed at a part of it: ", _point_text(smaller.setting))
        lines.append(REPRODUCE)
    # The lines stand in the order of their weight, so the last ones may be cut.
    return "\n".join(lines[:MOST_LINES])


def _evidence_lines(finding: Finding) -> list[str]:
    """Return the reason, and the entry with its values, tolerance and error."""
    evidence = finding.evidence
    lines = _paragraph("", evidence.reason)
    if evidence.subject is None:
        return lines
    index = f"[{', '.join(map(str, evidence.index))}]" if evidence.index else ""
    lines.append(f"  {finding.quantity}{index}")
    values = {"subject": repr(evidence.subject), **{name: repr(value) for name, value in evidence.oracles.items()}}
    if evidence.enclosure is not None and "exact" in values:
        values["exact"] = f"{evidence.enclosure[0]!r} ± {evidence.enclosure[1]:.1g}"
    width = max(map(len, values))
    lines += [f"    {name:<{width}}  {value}" for name, value in values.items()]
    if evidence.tolerance is not None:
        lines.append(f"  the tolerance here is {evidence.tolerance:.2g}; the error is {finding.ratio:.3g} times that")
        lines.append(f"  {evidence.refused[0]} of {evidence.refused[1]} entries refused by {finding.oracle}")
    return lines


def _point_text(setting: Setting) -> str:
    shapes = [f"{n} {np.asarray(a).dtype}{list(np.shape(a))}" for n, a in setting.primals.items()]
    return ", ".join(shapes) + f"; judged in {setting.precision}"


def _paragraph(label: str, body: str) -> list[str]:
    """Return a labelled text as indented lines; none if there is no text."""
    if not body:
        return []
    return textwrap.wrap(
        label + body, WIDTH - 4, initial_indent="  ", subsequent_indent="    ", max_lines=LINES_PER_PARAGRAPH
    )


def _findings_text(findings: list[Finding]) -> str:
    """List quantities, each with the oracles that refused or accepted it."""
    by_quantity: dict[str, list[str]] = {}
    for f in findings:
        note = f.oracle if f.verdict in (Verdict.AGREES, Verdict.WRONG) else f"{f.oracle} ({f.verdict})"
        if note not in by_quantity.setdefault(f.quantity, []):
            by_quantity[f.quantity].append(note)
    items = [f"{quantity} by {' and '.join(oracles)}" for quantity, oracles in by_quantity.items()]
    rest = len(items) - MOST_FINDINGS
    return ", ".join(items[:MOST_FINDINGS]) + (f" and {rest} more" if rest > 0 else "")


def _quantity_text(quantity: str, is_output: bool = False) -> str:
    """Return what a finding is about; a bare name of a primal means its cotangent."""
    is_complete = re.fullmatch(rf"(output|delta)(\[\d+\])?|cotangents|⟨.*|the primal .*|{CALL}", quantity)
    return quantity if is_complete or is_output else f"the cotangent of {quantity}"


def _shorten(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…"


# Raised whenever a key changes its name or meaning. 2: the points of each search, the refused array entry by entry, the
# script and the point of each refusal.
SCHEMA = 2


def document(result: Result, diagnosis: str) -> Json:
    """Return a result in the types of JSON; arrays as shape, dtype and hex floats, exact to the last bit."""
    worst = result.worst
    contents: Json = {
        "schema": SCHEMA,
        "subject": result.subject,
        "property": result.property_name,
        "verdict": str(worst.verdict if worst else result.verdict),
        "diagnosis": diagnosis,
        "not_claimed": list(result.not_claimed),
        "notes": list(result.notes),
        "findings": [_finding(finding) for finding in result.findings],
    }
    if result.setting is not None:
        contents["precision"] = result.setting.precision
        contents["primals"] = {n: _array(np.asarray(a)) for n, a in result.setting.primals.items()}
        contents["delta"] = [_array(np.asarray(d)) for d in as_tuple(result.setting.delta)]
    return contents


def _finding(finding: Finding) -> Json:
    evidence = finding.evidence
    return {
        "quantity": finding.quantity,
        "oracle": finding.oracle,
        "verdict": str(finding.verdict),
        "refuses": finding.refuses,
        "ratio": number(finding.ratio),
        "detects_above": number(finding.detects_above),
        "index": list(evidence.index),
        "subject": number(evidence.subject),
        "oracles": {name: number(value) for name, value in evidence.oracles.items()},
        "tolerance": number(evidence.tolerance),
        "enclosure": None if evidence.enclosure is None else [number(value) for value in evidence.enclosure],
        "refused": list(evidence.refused),
        "judged": list(finding.judged),
        "reason": evidence.reason,
        "fix": evidence.fix,
    }


def to_text(contents: Json) -> str:
    """Return JSON as text with indents, a list of numbers or words on one line."""
    text = json.dumps(contents, indent=2)
    # A line break never stands inside a string of JSON, so what these break is a list.
    return _FLAT_LIST.sub(lambda found: "[" + re.sub(r",\n\s*", ", ", found[1]) + "]", text)


_FLAT_LIST = re.compile(r"\[\n\s*([^\[\]{}]*?)\n\s*\]")


def _array(array: Array) -> Json:
    integers = array.dtype.kind in "iub"
    # Hex floats are exact, and JSON has no other exact form of a float64.
    values = array.ravel().tolist() if integers else [v.hex() for v in array.astype(np.float64).ravel().tolist()]
    return {"shape": list(array.shape), "dtype": array.dtype.name, "values": values}
