"""Directives that write what the code says: the options of the commands and of the pytest plugin."""

import argparse
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def _cell(text: str) -> str:
    """Return text for a cell of a table."""
    return re.sub(r"([|*_<>\[\]])", r"\\\1", " ".join(text.split()))


def _table(header: tuple[str, str], rows: Iterator[tuple[str, str]]) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "| --- | --- |"]
    return "\n".join(lines + [f"| {first} | {_cell(second)} |" for first, second in rows])


def _arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:  # argparse has no public list of them
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        value = f" {action.metavar}" if action.metavar and action.nargs != 0 else ""
        names = ", ".join(f"`{option}{value}`" for option in action.option_strings) or f"`{action.metavar}`"
        yield names, action.help or ""


class CommandLine(SphinxDirective):
    """Show a command of `oracles`: its usage, its arguments, its examples."""

    required_arguments = 0
    optional_arguments = 1
    option_spec: ClassVar[dict] = {"only": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """Return the nodes."""
        from oracles.cli.parser import make_parsers

        parser, commands = make_parsers()
        if self.arguments:
            parser = commands.choices[self.arguments[0]]
        usage = re.sub(r"\x1b\[[0-9;]*m", "", parser.format_usage()).removeprefix("usage: ")
        text = f"```text\n{usage.rstrip()}\n```\n\n{_table(('argument', 'meaning'), _arguments(parser))}\n"
        if parser.epilog and self.arguments:
            text += f"\n```text\n{parser.epilog.rstrip()}\n```\n"
        return self.parse_text_to_nodes(text)


class PytestOptions(SphinxDirective):
    """Show the options of the pytest plugin."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes."""
        from oracles import pytest_plugin

        rows: list[tuple[str, str]] = []

        def addoption(name: str, **settings: object) -> None:
            value = f"={settings['metavar']}" if "metavar" in settings else ""
            rows.append((f"`{name}{value}`", str(settings["help"])))

        def addini(name: str, help: str = "", **_: object) -> None:
            rows.append((f"`{name}` (ini)", help))

        group = SimpleNamespace(addoption=addoption)
        pytest_plugin.pytest_addoption(
            SimpleNamespace(getgroup=lambda *_: group, addoption=addoption, addini=addini)  # type: ignore[arg-type]
        )
        return self.parse_text_to_nodes(_table(("option", "meaning"), iter(rows)))


def setup(app: Sphinx) -> dict[str, object]:
    """Register the directives."""
    app.add_directive("command-line", CommandLine)
    app.add_directive("pytest-options", PytestOptions)
    return {"version": "1", "parallel_read_safe": True}
