"""Documents as `oracles verify --json` writes them, and a browser that opens the pages that are made of them."""

import os
import shutil
from importlib import import_module

import pytest
from runs import HOSTILE, MARKUP, backward, forward, primals, reference, report, row

import oracles
from oracles.cli.verify_report import Failure
from oracles.exact.isolation import close_servers


@pytest.fixture(scope="session")
def disagreement():
    """The refusal of a mean where a sum belongs."""
    subject = oracles.manual(forward, backward, name=MARKUP)
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(subject, primals(), against=[oracles.torch_autograd(reference)])
    return refused.value


@pytest.fixture(scope="session")
def passed():
    """The document of a run in which all agree."""
    rows = [row(layer, name, dtype) for layer in ("Linear", "Tanh") for name in ("primal_agrees", "cotangents_agree")
            for dtype in ("float64", "float32")]  # fmt: skip
    return report(rows).document(0)


@pytest.fixture(scope="session")
def refused(disagreement):
    """The document of a run with a refusal, an inconclusive layer, and one that could not be judged."""
    bad = [(float("inf"), 0.0, True), (1e14, 1e-15, True)]
    rows = [
        row("Linear"),
        row("Linear", dtype="float32"),
        row(HOSTILE, verdict="wrong", worst_ratio=float("inf"), points=bad),
        row(HOSTILE, dtype="float32"),
        row("Huber", vacuous=20),
        row("Huber", dtype="float32"),
        row("Sort", verdict="kink"),
        row("Sort", "same_every_time", oracle="self-consistency", worst_ratio=0.0, detects_above_median=0.0),
    ]
    failures = [
        Failure(HOSTILE, "wrong", str(disagreement), "", "cotangents_agree", "float64", disagreement.document()),
        Failure("Gone", "not judged", f"Gone: NotImplementedError: {MARKUP}", "x", "cotangents_agree", "float64"),
        Failure("Gone", "not judged", f"Gone: NotImplementedError: {MARKUP}", "x", "cotangents_agree", "float32"),
    ]
    return report(rows, failures).document(0)


# Set where a missing browser is a failure, and no reason to skip.
IS_REQUIRED = bool(os.environ.get("ORACLES_REQUIRE_BROWSER"))


def _imported(name):
    return import_module(name) if IS_REQUIRED else pytest.importorskip(name)


@pytest.fixture(scope="session")
def axe():
    """What finds violations of the rules for accessible pages."""
    return _imported("axe_playwright_python.sync_playwright").Axe()


def _browser_path():
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def browser():
    """Chromium; without one the tests are skipped, and where one is required, as in .ci/run, they fail."""
    path = _browser_path()
    if path is None:
        (pytest.fail if IS_REQUIRED else pytest.skip)("no chromium: apt-get install chromium")
    playwright = _imported("playwright.sync_api")
    with playwright.sync_playwright() as tools:
        launched = tools.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()
        close_servers()  # they hold the pipe whose end tells the driver of the browser to end
