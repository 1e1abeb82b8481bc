"""Every test here gets a project of its own."""

import pytest
from projects import Project


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)
