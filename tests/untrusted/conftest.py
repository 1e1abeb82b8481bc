import sys

import pytest

from oracles.untrusted.remote import Sandbox

if sys.platform == "win32":
    collect_ignore_glob = ["*"]


@pytest.fixture(scope="session")
def sandbox():
    with Sandbox() as warm:
        yield warm
