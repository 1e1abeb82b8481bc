"""What the figures share: text with raised and lowered parts, arrows, neurons, axes, the whole SVG."""

from collections.abc import Sequence

RADIUS = 24
INK, FAINT, FORWARD, BACKWARD = "#1f2328", "#c4cad1", "#0550ae", "#b3261e"
GREEN, ORANGE, PURPLE = "#1a7f37", "#a15c00", "#6639ba"
COLOURS = (FORWARD, BACKWARD, GREEN, ORANGE, PURPLE, INK)


def text(
    x: float,
    y: float,
    parts: Sequence[str],
    size: int = 17,
    colour: str = INK,
    weight: str = "normal",
    anchor: str = "middle",
) -> str:
    """Return text; a part "_i" is lowered, "^l" raised."""
    spans, offset = [], 0
    for part in parts:
        shift = {"_": 5, "^": -7}.get(part[0], 0) if len(part) > 1 else 0
        body = part[1:] if shift else part
        style = f' font-size="{size * 0.72:.0f}"' if shift else ""
        gap = 0.35 * size * (len(body) - len(body.lstrip()))  # renderers drop spaces at the start of a tspan
        escaped = body.strip().replace("&", "&amp;").replace("<", "&lt;")
        spans.append(f'<tspan dx="{gap:.0f}" dy="{shift - offset}"{style}>{escaped}</tspan>')
        offset = shift
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{"".join(spans)}</text>'
    )


def arrow(
    x0: float, x1: float, y0: float, y1: float, colour: str, start: float = RADIUS + 2, end: float = RADIUS + 7
) -> str:
    """Return an arrow between two points, without its first and last pixels: from rim to rim of two neurons."""
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    return (
        f'<line x1="{x0 + start * dx:.1f}" y1="{y0 + start * dy:.1f}" '
        f'x2="{x1 - end * dx:.1f}" y2="{y1 - end * dy:.1f}" '
        f'stroke="{colour}" stroke-width="2.5" marker-end="url(#{colour[1:]})"/>'
    )


def line(x0: float, x1: float, y0: float, y1: float, colour: str = FAINT, width: float = 1) -> str:
    """Return a straight line."""
    return f'<line x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}" stroke="{colour}" stroke-width="{width:g}"/>'


def box(x: float, y: float, width: float, height: float, fill: str = "#ffffff", stroke: str = "none") -> str:
    """Return a rectangle with round corners."""
    corner = min(4.0, height / 6)
    size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{corner:.1f}"'
    return f'<rect {size} fill="{fill}" stroke="{stroke}"/>'


def neuron(x: float, y: float, parts: Sequence[str], colour: str = INK, strong: bool = False) -> str:
    """Return a circle with its name inside."""
    stroke = f'stroke="{colour}" stroke-width="{3 if strong else 1.5}"'
    circle = f'<circle cx="{x:g}" cy="{y:g}" r="{RADIUS}" fill="#ffffff" {stroke}/>'
    return circle + text(x, y + 5, parts, 16, colour)


def whole(width: int, height: int, title: str, body: Sequence[str]) -> str:
    """Return the SVG: a white card with a thin border."""
    used = [c for c in COLOURS if any(f"url(#{c[1:]})" in part for part in body)]
    markers = "".join(
        f'<marker id="{c[1:]}" viewBox="0 0 10 10" refX="6" refY="5" markerWidth="6" markerHeight="6" orient="auto">'
        f'<path d="M0 0L10 5L0 10z" fill="{c}"/></marker>'
        for c in used
    )
    defs = f"<defs>{markers}</defs>\n" if markers else ""
    lines = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="DejaVu Sans, Verdana, Arial, sans-serif" role="img">\n'
        f"<title>{title}</title>\n{defs}"
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" fill="#ffffff" stroke="{FAINT}"/>'
        f"\n{lines}\n</svg>\n"
    )
