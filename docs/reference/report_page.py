"""Make the picture of a report page that README shows: right, wrong and unfinished layers.

    python docs/reference/report_page.py docs/reference/report_page.png

It needs the extras report and test, and Chromium. Without an argument it writes report.html alone.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import oracles
from oracles.cli.verify_command import Output, verify
from oracles.strategies import real, rows, widths


@dataclass(frozen=True)
class Gate:
    """Multiply two primals: a right layer."""

    def forward(self, params, z):
        """Return z · g."""
        return z * params["g"], (z, params["g"])

    def backward(self, cache, delta):
        """Return the cotangents of z and g."""
        z, g = cache
        return delta * g, {"g": (delta * z).sum(axis=0, keepdims=True)}


class MeanGate(Gate):
    """Average over the rows, where the sum belongs."""

    def backward(self, cache, delta):
        """Return a mean as the cotangent of g."""
        z, g = cache
        return delta * g, {"g": (delta * z).sum(axis=0, keepdims=True) / max(len(z), 1)}


class BlockGate(Gate):
    """Work through the columns in blocks of four, and forget what remains."""

    def backward(self, cache, delta):
        """Return a cotangent of z that lacks the columns of the remainder."""
        z, g = cache
        dz, whole = delta * g, z.shape[1] // 4 * 4
        dz[:, whole if whole else z.shape[1] :] = 0
        return dz, {"g": (delta * z).sum(axis=0, keepdims=True)}


class SinglePrecisionGate(Gate):
    """Compute the cotangent of z in float32, whatever the dtype."""

    def backward(self, cache, delta):
        """Return a cotangent of z that has the digits of float32."""
        z, g = cache
        rounded = (delta.astype(np.float32) * g.astype(np.float32)).astype(z.dtype)
        return rounded, {"g": (delta * z).sum(axis=0, keepdims=True)}


class ForgetfulGate(Gate):
    """Have no backward yet."""

    def backward(self, cache, delta):
        """Raise: this layer is not written yet."""
        raise NotImplementedError("the backward of this layer")


def _product(z, g):
    return z * g


def _of(layer):
    @oracles.oracle_for(layer)
    def cases(draw):
        primals = {"z": real(draw(rows()), width := draw(widths())), "g": real(1, width)}
        return oracles.Case(oracles.manual_layer(layer()), primals, torch=_product, jax=_product, batched=("z",))

    return cases


for each in (Gate, MeanGate, BlockGate, SinglePrecisionGate, ForgetfulGate):
    _of(each)


def _photograph(page_path, picture_path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1120, "height": 1300})
        page.goto(f"file://{page_path}")
        page.screenshot(path=picture_path)
        browser.close()


def main(pictures):
    """Judge the layers, write the page, and take its picture."""
    path = Path("report.html").absolute()
    verify(
        [],
        against=("torch", "jax"),
        dtypes=("float64", "float32"),
        max_examples=30,
        seed=0,
        cases=[__file__],
        output=Output(html_path=str(path), json_path=str(path.with_suffix(".json"))),
    )
    for picture in pictures:
        _photograph(path, picture)


if __name__ == "__main__":
    main(sys.argv[1:])
