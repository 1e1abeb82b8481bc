"""Draw docs/figures/delta_backwards.svg, the figure of equations (10) to (15): `python docs/figures/delta_backwards.py`."""

from pathlib import Path

WIDTH, HEIGHT, RADIUS = 860, 460, 24
ROWS = (136, 226, 316)  # heights of the three neurons that are shown of each level
LEFT, RIGHT = 75, 335  # where the two levels stand in a panel
INK, FAINT, FORWARD, BACKWARD = "#1f2328", "#c4cad1", "#0550ae", "#b3261e"


def text(x, y, parts, size=17, colour=INK, weight="normal"):
    """Return centred text; a part "_i" is lowered, "^l" raised."""
    spans, offset = [], 0
    for part in parts:
        shift = {"_": 5, "^": -7}.get(part[0], 0)
        body = part[1:] if shift else part
        style = f' font-size="{size * 0.72:.0f}"' if shift else ""
        gap = 0.35 * size * (len(body) - len(body.lstrip()))  # renderers drop spaces at the start of a tspan
        spans.append(f'<tspan dx="{gap:.0f}" dy="{shift - offset}"{style}>{body.strip()}</tspan>')
        offset = shift
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="middle">{"".join(spans)}</text>'
    )


def arrow(x0, x1, y0, y1, colour):
    """Return an arrow between two neurons, from rim to rim."""
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    start, end = RADIUS + 2, RADIUS + 7
    return (
        f'<line x1="{x0 + start * dx:.1f}" y1="{y0 + start * dy:.1f}" '
        f'x2="{x1 - end * dx:.1f}" y2="{y1 - end * dy:.1f}" '
        f'stroke="{colour}" stroke-width="2.5" marker-end="url(#{colour[1:]})"/>'
    )


def neuron(x, y, parts, colour=INK, strong=False):
    """Return a circle with its name inside."""
    stroke = f'stroke="{colour}" stroke-width="{3 if strong else 1.5}"'
    circle = f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="#ffffff" {stroke}/>'
    return circle + text(x, y + 5, parts, 16, colour)


def panel(x, title, formula, colour, names, edge, backward):
    """Return one panel: neuron i of level l, every neuron j of level l + 1, and the weights between them."""
    left, right = x + LEFT, x + RIGHT
    parts = [text(x + 205, 36, [title], 18, colour, "bold")]
    parts += [text(left, 92, ["level l"], 15), text(right, 92, ["level l + 1"], 15)]
    others = [(a, b) for a in ROWS if a != ROWS[1] for b in ROWS]
    parts += [f'<line x1="{left}" y1="{a}" x2="{right}" y2="{b}" stroke="{FAINT}"/>' for a, b in others]
    for j, y in enumerate(ROWS, 1):
        ends = (right, left, y, ROWS[1]) if backward else (left, right, ROWS[1], y)
        parts.append(arrow(*ends, colour))
        across, up = left + 0.54 * (right - left), ROWS[1] + 0.54 * (y - ROWS[1])
        parts.append(f'<rect x="{across - 34:.0f}" y="{up - 11:.0f}" width="68" height="22" rx="4" fill="#ffffff"/>')
        parts.append(text(round(across), round(up + 4), edge(j), 15, colour))
        parts.append(neuron(right, y, names[1](j), colour if backward else INK))
        parts.append(neuron(left, y, names[0] if j == 2 else ["·"], colour if j == 2 else FAINT, j == 2))
    parts.append(text(x + 205, 390, formula, 20, INK))
    return parts


def figure():
    """Return the whole SVG."""
    markers = "".join(
        f'<marker id="{c[1:]}" viewBox="0 0 10 10" refX="6" refY="5" markerWidth="6" markerHeight="6" orient="auto">'
        f'<path d="M0 0L10 5L0 10z" fill="{c}"/></marker>'
        for c in (FORWARD, BACKWARD)
    )
    forward = panel(
        10,
        "Forward: every neuron j uses neuron i",
        ["z", "^l+1", "_j", " = Σ", "_k", " z", "^l", "_k", " W", "^l", "_kj", " + b", "^l", "_j"],
        FORWARD,
        (["z", "_i"], lambda j: ["z", f"_{j}"]),
        lambda j: ["z", "_i", " W", f"_i{j}"],
        backward=False,
    )
    back = panel(
        440,
        "Backward: neuron i adds what returns",
        ["δ", "^l", "_i", " = Σ", "_j", " δ", "^l+1", "_j", " W", "^l", "_ij", "   (13)"],
        BACKWARD,
        (["δ", "_i"], lambda j: ["δ", f"_{j}"]),
        lambda j: ["δ", f"_{j}", " W", f"_i{j}"],
        backward=True,
    )
    caption = text(
        WIDTH / 2,
        436,
        ["The same weights in both directions: W", "_ij", "  joins neuron i of level l and neuron j of level l + 1."],
        15,
    )
    body = "\n".join([*forward, f'<line x1="430" y1="20" x2="430" y2="405" stroke="{FAINT}"/>', *back, caption])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="DejaVu Sans, Verdana, Arial, sans-serif" role="img">\n'
        f"<title>How δ flows back through the weights, equations (10) to (15)</title>\n<defs>{markers}</defs>\n"
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8" fill="#ffffff" stroke="{FAINT}"/>'
        f"\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(figure(), encoding="utf-8")
