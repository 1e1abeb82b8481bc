"""Write the gallery: run every bug, and write its code, its report and its picture: `python docs/gallery/make.py`.

A bug is a script in docs/gallery/bugs that ends in a refused `oracles.check`. The pages are docs/gallery/*.md, the
pictures docs/gallery/pictures/*.svg.
"""

import ast
import re
import runpy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

GALLERY = Path(__file__).resolve().parent
sys.path[:0] = [str(GALLERY.parent / "figures"), str(GALLERY.parent.parent)]

from drawing import BACKWARD, FAINT, INK, box, text, whole  # noqa: E402

import oracles  # noqa: E402

FAMILIES = {
    "sums": "Sums, means and factors",
    "activations": "Derivatives of activations",
    "shapes": "Axes, transposes and indices",
    "delta": "What is done with delta",
    "memory": "State and memory",
    "special": "Kinks, zeros and large values",
    "precision": "Precision and blocks",
}
# From negative to positive; the middle one is zero.
HUES = ("#2166ac", "#5b9bd0", "#9cc5e4", "#d6e7f4", "#ffffff", "#fbdccb", "#f2a98c", "#d9694f", "#b2182b")
NOT_A_NUMBER, BLANK, RIGHT, REFUSED = "#444b54", "#eceff2", "#e3f1e6", "#ffd9d6"
PANEL, LEFT = 240, 30


@dataclass(frozen=True)
class Bug:
    """A script, and the disagreement that it raises."""

    name: str
    code: str
    refused: oracles.Disagreement

    @property
    def family(self) -> str:
        """The key of its page."""
        return self.name.split("_")[0]

    @property
    def words(self) -> tuple[str, str]:
        """The heading and the rest of its docstring."""
        words = ast.get_docstring(ast.parse(self.code)) or ""
        heading, rest = re.match(r"(.*?)(?:[.:] (.*)|\.)$", words).groups()
        return heading, (rest[0].upper() + rest[1:]) if rest else ""

    @property
    def snippet(self) -> str:
        """The code without its docstring."""
        return self.code.split('"""\n\n', 1)[1]


def run(path: Path) -> Bug:
    """Run a script that must be refused."""
    try:
        runpy.run_path(str(path))
    except oracles.Disagreement as refused:
        return Bug(path.stem, path.read_text(encoding="utf-8"), refused)
    raise AssertionError(f"{path.name} is not refused")


def _panel(x: float, title: str, array: np.ndarray, fills: np.ndarray, marks: np.ndarray) -> tuple[list[str], float]:
    """Return the grid of an array, and where it ends."""
    rows, columns = array.shape
    size = min(36, PANEL / columns, 140 / rows)
    body = [text(x, 34, [title], 15, INK, "bold", anchor="start")]
    for (i, j), fill in np.ndenumerate(fills):
        body.append(box(x + j * size, 50 + i * size, size - 1, size - 1, str(fill), FAINT))
        if marks[i, j]:
            middle = x + (j + 0.5) * size, 50 + (i + 0.5) * size + 0.16 * size
            ink = "#ffffff" if fill == NOT_A_NUMBER else BACKWARD
            body.append(text(*middle, [str(marks[i, j])], max(int(size * 0.36), 8), ink, "bold"))
    return body, 50 + rows * size


def _colours(array: np.ndarray, scale: float) -> np.ndarray:
    """Return the colour of each entry: nine steps from −scale to scale."""
    filled = np.where(np.isfinite(array), array, 0)
    steps = np.clip(np.round(4 * np.sign(filled) * np.sqrt(np.abs(filled) / scale)), -4, 4).astype(int)
    return np.where(np.isnan(array), NOT_A_NUMBER, np.array(HUES, dtype=object)[steps + 4])


def _grid(array: object) -> np.ndarray:
    """Return an array with two axes."""
    values = np.asarray(array, dtype=np.float64)
    return values.reshape(1, -1) if values.ndim < 2 else values.reshape(-1, values.shape[-1])


def _arrays(refused: oracles.Disagreement) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Return the arrays to draw by their titles, and which entries are refused."""
    finding, setting = refused.result.worst, refused.result.setting
    assert finding
    assert setting
    primals: Mapping[str, np.ndarray] = setting.primals
    y, pullback = setting.subject(**primals)
    if finding.quantity.startswith("delta"):
        delta = np.array(setting.delta)
        pullback(delta)
        return {"delta before": _grid(setting.delta), "delta after": _grid(delta)}, _grid(delta != setting.delta) > 0
    yours = _grid(y if finding.quantity == "output" else pullback(setting.delta)[finding.quantity])
    oracle = next((o for o in setting.oracles if o.name == finding.oracle), setting.oracles[0])
    output, oracle_pullback = oracle(**primals)
    answer = output if finding.quantity == "output" else oracle_pullback(setting.delta)[finding.quantity]
    if isinstance(answer, oracles.Enclosure):  # an entry with an infinite radius is not known
        answer = np.where(np.isfinite(answer.radius), answer.mid, np.inf)
    theirs = _grid(answer)
    titles = {f"yours, {finding.quantity}": yours, f"{oracle.name}'s": theirs}
    if yours.shape != theirs.shape:
        shaped = [f"{title}, shape {array.shape}" for title, array in titles.items()]
        return dict(zip(shaped, titles.values(), strict=True)), None
    if "contiguous arrays" in finding.evidence.oracles:
        gapped = np.full((*setting.delta.shape[:-1], setting.delta.shape[-1] + 1), np.nan)
        gapped[..., :-1] = setting.delta
        strided = _grid(pullback(gapped[..., :-1])[finding.quantity])
        with np.errstate(invalid="ignore"):
            return {"delta contiguous": yours, "delta with gaps of NaN": strided}, ~(yours == strided)
    if finding.oracle == "self-consistency":
        other = np.full_like(yours, np.nan)
        index = np.ravel_multi_index(finding.evidence.index, np.shape(primals[finding.quantity]))
        values = [finding.evidence.subject, *finding.evidence.oracles.values()]
        other.flat[index] = max(values, key=lambda value: abs(value - theirs.flat[index]))
        return {"a fresh call": theirs, "another call, one entry": other}, None
    with np.errstate(invalid="ignore"):
        off = np.abs(yours - theirs) > (finding.evidence.tolerance or 0)
    return titles, off | (np.isnan(yours) != np.isnan(theirs))


def picture(bug: Bug) -> str:
    """Return the SVG of a bug: the subject's gradient, the oracle's, and the refused entries."""
    arrays, refused = _arrays(bug.refused)
    finite = np.concatenate([a[np.isfinite(a)] for a in arrays.values()])
    scale = float(np.abs(finite).max()) or 1.0
    body, bottom = [], 0.0
    for i, (title, array) in enumerate(arrays.items()):
        marks = np.where(np.isnan(array) & (title != "another call, one entry"), "NaN", "")
        fills = _colours(array, scale)
        if title == "another call, one entry":
            fills = np.where(np.isnan(array), BLANK, fills)
        fills, marks = np.where(np.isinf(array), BLANK, fills), np.where(np.isinf(array), "?", marks)
        drawn, end = _panel(LEFT + i * (PANEL + 40), title, array, fills, marks)
        body += drawn
        bottom = max(bottom, end)
    if refused is not None:
        fills, marks = np.where(refused, REFUSED, RIGHT), np.where(refused, "×", "")
        count = f"refused: {refused.sum()} of {refused.size}"
        drawn, end = _panel(LEFT + 2 * (PANEL + 40), count, refused, fills, marks)
        body += drawn
        bottom = max(bottom, end)
    legend = ["blue is negative, red positive, the stronger the larger"]
    body.append(text(LEFT, bottom + 26, legend, 13, INK, anchor="start"))
    return whole(860, int(bottom + 44), bug.words[0].replace("&", "&amp;"), body)


def page(family: str, bugs: list[Bug]) -> str:
    """Return the page of a family."""
    parts = [f"# {FAMILIES[family]}\n"]
    for bug in bugs:
        heading, rest = bug.words
        parts.append(
            f"## {heading}\n\n{rest}\n\n```python\n{bug.snippet}```\n\n"
            f"The report:\n\n```text\n{bug.refused}\n```\n\n"
            f"![{heading}: the gradient, the oracle's, and the refused entries](pictures/{bug.name}.svg)\n"
        )
    return "\n".join(parts).replace("\n\n\n\n", "\n\n")


def index(bugs: list[Bug]) -> str:
    """Return the first page: a row for each bug."""
    rows = []
    for bug in bugs:
        heading, _ = bug.words
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        line = str(bug.refused).splitlines()[0]
        verdict, where = re.match(r".*?: (\w+) in (.*?)  \[", line).groups()
        rows.append(f"| [{heading}]({bug.family}.md#{anchor}) | `{verdict.lower()}` in {where} |")
    table = "\n".join(rows)
    toctree = "\n".join(FAMILIES)
    return f"""# Gallery of bugs

{len(bugs)} mistakes that people make in backward passes: the code, the report of `oracles.check`, and a picture of the
gradient beside the right one. `python docs/gallery/make.py` runs the scripts in `docs/gallery/bugs`, and writes these
pages; a test compares them with a fresh run. The [diagnosis](../how_it_works/diagnosis.md) knows more kinds.

| mistake | verdict |
| --- | --- |
{table}

```{{toctree}}
:hidden:

{toctree}
```
"""


def files() -> dict[str, str]:
    """Return the text of every file of the gallery, by its path from this folder."""
    bugs = [run(path) for path in sorted((GALLERY / "bugs").glob("*.py"))]
    bugs.sort(key=lambda bug: list(FAMILIES).index(bug.family))
    written = {"index.md": index(bugs)}
    for family in FAMILIES:
        written[f"{family}.md"] = page(family, [bug for bug in bugs if bug.family == family])
    return written | {f"pictures/{bug.name}.svg": picture(bug) for bug in bugs}


if __name__ == "__main__":
    (GALLERY / "pictures").mkdir(exist_ok=True)
    for name, content in files().items():
        (GALLERY / name).write_text(content, encoding="utf-8")
