"""Show files of the repository as pages of the site: their links are those of GitHub, from the repository's root."""

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent.parent
PAGES = {"contribute/contributing": "CONTRIBUTING.md", "contribute/changelog": "CHANGELOG.md"}
# What stands elsewhere in the repository, and is a page of the site.
NOTEBOOK, ITS_PAGE = "../../examples/find_a_mistake.ipynb", "/learn/find_a_mistake.ipynb"
_DOCNAMES = {file: docname for docname, file in PAGES.items()}


def _link(match: re.Match[str]) -> str:
    """Return a link from the folder contribute/."""
    text, target = match.groups()
    if target.startswith(("http", "#", "mailto:")):
        return match[0]
    if target in _DOCNAMES:
        return f"[{text}](/{_DOCNAMES[target]}.md)"
    if target.startswith("docs/"):
        return f"[{text}](/{target.removeprefix('docs/')})"
    return f"[{text}](../../{target})"


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname in PAGES:
        text = (ROOT / PAGES[docname]).read_text(encoding="utf-8")
        source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", _link, text)
    source[0] = source[0].replace(f"]({NOTEBOOK})", f"]({ITS_PAGE})")


def setup(app: Sphinx) -> dict[str, object]:
    """Register the replacement."""
    app.connect("source-read", _read)
    return {"version": "1", "parallel_read_safe": True}
