"""Show the docstrings of this project, which are plain text, in the API pages.

Their sections are "Args:", "Returns:" and the like, with one indented item each; other indented blocks are formulas or
code. Everything else is text, in which only backticks mean something.
"""

import re
from collections.abc import Iterator

from sphinx.application import Sphinx

_NAMED = re.compile(r"(Args|Attributes|Returns|Raises|Yields):$")
_LABEL = re.compile(r"(Shapes|Dtypes|Source|Differs from [^:]+): ")


def _inline(text: str) -> str:
    """Return text in which reStructuredText sees nothing but literals."""
    parts = re.findall(r"``.+?``|`[^`]+`|[^`]+|`", text)
    shown = ""
    for part in parts:
        literal = part.startswith("`") and len(part) > 1
        if shown and (shown[-1].isalnum() or shown[-1] == "`") and (part[0].isalnum() or literal):
            shown += r"\ "  # a literal begins and ends at a space only: this one is not shown
        shown += f"``{part.strip('`')}``" if literal else re.sub(r"([\\*|_`])", r"\\\1", part)
    return shown


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Yield runs of lines that belong together: all indented, or all not, without blank lines at the ends."""
    block: list[str] = []
    for line in lines:
        indented = line.startswith(" ")
        if block and line:
            changes = indented != block[0].startswith(" ")
            if changes or _LABEL.match(line) or not (indented or block[-1]):
                yield block
                block = []
        if block or line:
            block.append(line)
    if block:
        yield block


def _items(block: list[str]) -> list[str]:
    """Return the items of a section, each on one line: an item starts at the section's own indentation."""
    items: list[str] = []
    for line in block:
        if re.match(r" {4}\S", line):
            items.append(line.strip())
        elif line.strip() and items:
            items[-1] += " " + line.strip()
    return items


def _section(name: str, block: list[str]) -> list[str]:
    if name in ("Returns", "Yields"):
        return [f"**{name}:** {_inline(' '.join(line.strip() for line in block if line))}", ""]
    shown = [f"**{name}:**", ""]
    for item in _items(block):
        label, colon, text = item.partition(": ")
        shown += [f"- ``{label}``: {_inline(text)}" if colon else f"- {_inline(item)}"]
    return [*shown, ""]


def _paragraph(block: list[str]) -> list[str]:
    if block[0].startswith("- "):
        return [line if not line.startswith("- ") else f"- {_inline(line[2:])}" for line in block] + [""]
    text = " ".join(line for line in block if line)
    label = _LABEL.match(text)
    return [f"**{label[1]}:** {_inline(text[label.end() :])}" if label else _inline(text), ""]


def convert(lines: list[str]) -> list[str]:
    """Return a docstring as reStructuredText."""
    shown: list[str] = []
    section = ""
    for block in _blocks(lines):
        if block[0].startswith(" ") and section:
            shown += _section(section, block)
        elif block[0].startswith(" "):
            shown += ["::", "", *(f"    {line}" for line in block), ""]
        elif named := _NAMED.match(block[-1]):
            section = named[1]
            if len(block) > 1:
                shown += _paragraph(block[:-1])
            continue
        else:
            shown += _paragraph(block)
        section = ""
    return shown


def _process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = convert(lines)


def _named(
    app: Sphinx, what: str, name: str, obj: object, options: object, *parts: str | None
) -> tuple[str | None, ...]:
    """Show an alias inside of another type by its name too."""
    return tuple(part and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", part) for part in parts)


def setup(app: Sphinx) -> dict[str, object]:
    """Register the conversion."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _named)
    return {"version": "1", "parallel_read_safe": True}
