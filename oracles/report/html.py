"""Results as a page: one file of HTML that needs no network, made from the document that ``--json`` writes.

    oracles verify --html report.html
    oracles check silu.py:forward,backward --html report.html
    write_page(document, "report.html")      any other caller that has such a document

Jinja2 fills in the templates and escapes whatever a user has named. The only script of the page is ours: its policy
allows no other, by the hash of that script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from oracles.environment import write_atomically
from oracles.report.compared import Json
from oracles.report.disagreement import Disagreement, document
from oracles.report.trend import read_document
from oracles.report.views import fragment_view, page_view
from oracles.verdict import Result

if TYPE_CHECKING:
    from jinja2 import Environment


def require_page(path: str | None, compare: str | None) -> Json | None:
    """Require, before a run, that a page can be made where one is wanted; return the earlier document, if any.

    Args:
        path: where the page is to be written, if anywhere.
        compare: an earlier document, if there is one.

    Raises:
        ValueError: if there is something to compare and no page, or no earlier results in the file.
        ModuleNotFoundError: if a page is wanted and Jinja2 is not installed.
    """
    if path is None:
        if compare is not None:
            raise ValueError("--compare: there is no page that could show it.\nFix:    --html FILE")
        return None
    _environment()
    return None if compare is None else read_document("--compare", compare)


def write_page(document: Json, path: str, earlier: Json | None = None) -> None:
    """Write the results of `oracles verify` or `oracles check` as a page, atomically.

    Args:
        document: what ``--json`` writes. A ``title`` and a ``command`` in it, which repeats the run, replace those
            of the command line.
        path: where.
        earlier: the document of an earlier run, with which it is compared.

    Raises:
        ModuleNotFoundError: if Jinja2 is not installed.
    """
    write_atomically(path, page(document, earlier))


def page(document: Json, earlier: Json | None = None) -> str:
    """Return the page of a document; see `write_page`."""
    script = _text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return rendered(
        "page.html.j2", page_view(document, earlier) | {"script": script, "script_hash": f"sha256-{digest}"}
    )


def refusal_fragment(refusal: Disagreement) -> str:
    """Return a refusal for a notebook: with pictures, or as text where Jinja2 is not installed."""
    return _fragment(refusal.document, str(refusal))


def result_fragment(result: Result) -> str:
    """Return a result for a notebook: with pictures, or as text where Jinja2 is not installed."""
    return _fragment(lambda: document(result, ""), str(result))


def _fragment(make: Callable[[], Json], text: str) -> str:
    try:
        _environment()
    except ModuleNotFoundError:
        return f"<pre>{escape(text)}</pre>"
    return rendered("fragment.html.j2", fragment_view(make(), text))


def rendered(template: str, view: Json) -> str:
    """Return a template of this package, filled in; ``style`` is the style that the pages have in common."""
    text = _environment().get_template(template).render(view, style=_text("style.css"))
    # A name may hold half of a surrogate pair, which no file can.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@cache
def _text(name: str) -> str:
    return (resources.files("oracles.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("oracles.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
