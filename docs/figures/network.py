"""Draw network.svg, a network and what flows through it both ways: `python docs/figures/network.py`."""

from itertools import pairwise
from pathlib import Path

from drawing import BACKWARD, FAINT, FORWARD, INK, arrow, box, line, text, whole

WIDTH, HEIGHT = 860, 330
XS = (70, 210, 350, 490, 630, 780)  # the boxes: z¹, affine step, σ, affine step, y, L
TOP, BOTTOM = 95, 215


def figure() -> str:
    """Return the whole SVG."""
    names = (
        ["x = z", "^1"],
        ["z", "^1", "W", "^1", " + b", "^1"],
        ["σ"],
        ["z", "^3", "W", "^3", " + b", "^3"],
        ["y = z", "^4"],
        ["L"],
    )
    values = (["z", "^1"], ["z", "^2"], ["z", "^3"], ["z", "^4"], ["y"])
    cotangents = (["δ", "^1"], ["δ", "^2"], ["δ", "^3"], ["δ", "^4"], ["∂L/∂y"])
    body = [text(WIDTH / 2, 36, ["Forward, values: each step keeps its input"], 16, FORWARD, "bold")]
    for x, name in zip(XS, names, strict=True):
        width = 112 if len(name) > 3 else 76
        body += [box(x - width / 2, TOP, width, BOTTOM - TOP - 60, "#ffffff", INK), text(x, TOP + 36, name, 16)]
    for i, (left, right) in enumerate(pairwise(XS)):
        start, end = (60 if i in (1, 3) else 42), (66 if i in (0, 2) else 48)
        body += [
            arrow(left, right, TOP + 18, TOP + 18, FORWARD, start, end),
            arrow(right, left, TOP + 46, TOP + 46, BACKWARD, end - 6, start + 6),
            text((left + right) / 2 + (start - end) / 2, TOP - 8, values[i], 14, FORWARD),
            text((left + right) / 2 + (start - end) / 2, TOP + 80, cotangents[i], 14, BACKWARD),
        ]
    for x, l in ((XS[1], 1), (XS[3], 3)):
        body += [
            line(x, x, TOP + 60, BOTTOM, FAINT, 2),
            text(x, BOTTOM + 20, ["∂L/∂W", f"^{l}", " = (z", f"^{l}", ")ᵀ δ", f"^{l + 1}"], 15, BACKWARD),
            text(x, BOTTOM + 44, ["∂L/∂b", f"^{l}", " = δ", f"^{l + 1}", " over rows"], 15, BACKWARD),
        ]
    body += [
        text(XS[2], BOTTOM + 20, ["δ", "^2", " = δ", "^3", " · σ′"], 15, BACKWARD),
        text(XS[5] - 30, BOTTOM + 20, ["∂L/∂y starts it"], 15, BACKWARD),
        text(WIDTH / 2, 306, ["Backward, δ: the same steps in reverse, each uses what it kept"], 16, BACKWARD, "bold"),
    ]
    return whole(WIDTH, HEIGHT, "A network: values flow forward, δ flows back, each step yields its gradients", body)


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(figure(), encoding="utf-8")
