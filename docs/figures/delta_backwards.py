"""Draw delta_backwards.svg, the figure of equations (10) to (15): `python docs/figures/delta_backwards.py`."""

from pathlib import Path

from drawing import BACKWARD, FAINT, FORWARD, INK, arrow, neuron, text, whole

WIDTH, HEIGHT = 860, 460
ROWS = (136, 226, 316)  # heights of the three neurons that are shown of each level
LEFT, RIGHT = 75, 335  # where the two levels stand in a panel


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
    between = f'<line x1="430" y1="20" x2="430" y2="405" stroke="{FAINT}"/>'
    title = "How δ flows back through the weights, equations (10) to (15)"
    return whole(WIDTH, HEIGHT, title, [*forward, between, *back, caption])


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(figure(), encoding="utf-8")
