"""``oracles explain NAME``: what a layer computes and how it is judged, or what a verdict or a property means."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping

from oracles.options import did_you_mean
from oracles.properties import EVERY_PROPERTY, properties_of
from oracles.registry import Entry, Unusable, entries
from oracles.verdict import NOT_JUDGED, SKIPPED, Verdict

# The words that stand in place of a verdict.
OTHER_WORDS: Mapping[str, str] = {
    "inconclusive": "at too many points, rounding could move the gradient by its own size, or time ran out; see "
    "`oracles verify --help`",
    NOT_JUDGED: "nothing is known of the layer: its input is invalid, the code that draws its cases or a reference "
    "raised, or its process ended",
    SKIPPED: "a package that would have judged is not installed; the report names the command that installs it",
}


def explain(word: str) -> int:
    """Print what is known of a layer, a verdict or a property; return 0.

    Raises:
        ValueError: if there is nothing of this name; names the closest.
    """
    layers = {entry.name: entry for entry in entries()}
    meanings = _verdicts() | dict(OTHER_WORDS) | {name: _first_sentence(each) for name, each in EVERY_PROPERTY.items()}
    if word in layers:
        print(explanation(layers[word]))
    elif word.lower() in meanings:
        print(f"{word.lower()}: {meanings[word.lower()]}")
    else:
        hint = did_you_mean(word, [*layers, *meanings])
        raise Unusable(f"nothing is named {word}{hint}\nNames are layers (oracles list), {', '.join(meanings)}.")
    return 0


def _verdicts() -> dict[str, str]:
    """Return the meaning of each verdict, as its documentation has it."""
    text = inspect.getdoc(Verdict) or ""
    return {
        str(verdict): " ".join(found[1].split())
        for verdict in Verdict
        if (found := re.search(rf"^{verdict.name}: (.*?)(?=^[A-Z_]+: |\Z)", text, re.MULTILINE | re.DOTALL))
    }


def _first_sentence(function: Callable[..., object]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def explanation(entry: Entry) -> str:
    """Return the equations, the derivatives at kinks, the references, what is drawn, and the properties of a layer."""
    parts = [
        f"{entry.name}, {entry.layer_type.__module__}",
        inspect.getdoc(entry.layer_type) or "it has no description",
    ]
    kinks = getattr(entry.layer_type, "kink_convention", None)
    if isinstance(kinks, Mapping):
        parts.append("\n".join(["At a kink it declares", *(f"  at {at:g}: {slope:g}" for at, slope in kinks.items())]))
    elif kinks is not None:
        parts.append("At kinks it declares a derivative that depends on its configuration.")
    else:
        parts.append("No kink is declared: where there is no derivative, every subgradient is accepted.")
    if entry.reference is not None:
        for framework, f in (("torch", entry.reference.torch), ("JAX", entry.reference.jax)):
            parts.append(f"In {framework}:\n{_indented(_source_of(f))}")
    drawn = f"Its cases are from {entry.source or entry.module}; what is drawn:"
    parts.append(f"{drawn}\n{_indented(_source_of(entry.function))}")
    parts.append("Of each case, four points in drawn memory layouts and magnitudes, with special values in most.")
    names = properties_of(entry)
    width = max(map(len, names))
    parts.append(
        "\n".join(
            ["Its properties:", *(f"  {name:<{width}}  {_first_sentence(EVERY_PROPERTY[name])}" for name in names)]
        )
    )
    return "\n\n".join(parts)


def _source_of(f: Callable[..., object] | None) -> str:
    """Return the text of a function, without its decorators; its name where there is no text."""
    if f is None:
        return "nothing"
    try:
        lines = inspect.getsource(f).splitlines()
    except (OSError, TypeError):
        return f"{f.__module__}.{getattr(f, '__qualname__', f)}"
    start = next((i for i, line in enumerate(lines) if not line.lstrip().startswith(("@", ")"))), 0)
    return inspect.cleandoc("\n" + "\n".join(lines[start:]))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())
