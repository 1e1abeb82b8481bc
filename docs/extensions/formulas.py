"""Render formulas by KaTeX while the site is built: the pages need no script and no network.

KaTeX comes from npm, by `npm ci --ignore-scripts --prefix docs`. One Node process renders all formulas. A formula that
KaTeX does not understand ends the build.
"""

import json
import subprocess
from pathlib import Path
from shutil import copytree

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.writers.html5 import HTML5Translator

KATEX = Path(__file__).parent.parent / "node_modules" / "katex" / "dist"
# One line of JSON for each formula, in and out; JSON escapes line breaks.
RENDERER = """
const katex = require(process.argv[1]);
require("readline").createInterface({input: process.stdin}).on("line", line => {
  const {tex, display} = JSON.parse(line);
  let answer;
  try { answer = {html: katex.renderToString(tex, {displayMode: display, throwOnError: true, strict: "error"})}; }
  catch (error) { answer = {error: String(error)}; }
  console.log(JSON.stringify(answer));
});
"""
_process: list[subprocess.Popen[str]] = []


def _render(tex: str, display: bool) -> str:
    """Return the HTML of a formula."""
    if not _process:
        command = ["node", "-e", RENDERER, str(KATEX / "katex.min.js")]
        _process.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"))
    stdin, stdout = _process[0].stdin, _process[0].stdout
    assert stdin
    assert stdout
    stdin.write(json.dumps({"tex": tex, "display": display}) + "\n")
    stdin.flush()
    answer = json.loads(stdout.readline())
    if "error" in answer:
        raise ExtensionError(f"{answer['error']}\nin the formula {tex}")
    return str(answer["html"])


def _visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(f'<span class="math">{_render(node.astext(), False)}</span>')
    raise nodes.SkipNode


def _visit_display(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math", tabindex="0"))  # it may have to be scrolled
    self.body.append(_render(node.astext(), True) + "</div>\n")
    raise nodes.SkipNode


def _copy_fonts(app: Sphinx) -> None:
    if not KATEX.exists():
        raise ExtensionError("KaTeX is missing; run: npm ci --ignore-scripts --prefix docs")
    target = Path(app.outdir) / "_static" / "katex"
    target.mkdir(parents=True, exist_ok=True)
    (target / "katex.min.css").write_bytes((KATEX / "katex.min.css").read_bytes())
    copytree(KATEX / "fonts", target / "fonts", dirs_exist_ok=True)


def _end(app: Sphinx, exception: Exception | None) -> None:
    while _process:
        process = _process.pop()
        assert process.stdin
        process.stdin.close()
        process.wait()


def setup(app: Sphinx) -> dict[str, object]:
    """Register the renderer of formulas."""
    app.add_html_math_renderer("katex", (_visit_inline, None), (_visit_display, None))
    app.add_css_file("katex/katex.min.css")
    app.connect("builder-inited", _copy_fonts)
    app.connect("build-finished", _end)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
