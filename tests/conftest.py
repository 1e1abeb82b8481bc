"""Torch keeps to one thread in every test."""

import sys

import pytest


@pytest.fixture(autouse=True)
def one_torch_thread():
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
