"""Torch keeps to one thread in every test; what takes longest runs where it is asked for."""

import os
import sys

import pytest


@pytest.fixture(autouse=True)
def one_torch_thread():
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def pytest_collection_modifyitems(config, items):
    """Leave out what is marked deep, unless it is named, marked for, or the thorough profile is loaded."""
    named = any("::" in argument for argument in config.args)
    if named or "deep" in config.option.markexpr or os.environ.get("HYPOTHESIS_PROFILE") == "thorough":
        return
    deep = [item for item in items if item.get_closest_marker("deep")]
    if deep:
        config.hook.pytest_deselected(items=deep)
        items[:] = [item for item in items if not item.get_closest_marker("deep")]
