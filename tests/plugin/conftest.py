"""Every test here gets a project of its own."""

import sys

import pytest
from projects import SILU, Project

from oracles import registry


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with silu.py in it; what is imported from it, or registered there, is forgotten again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "_ENTRIES", {entry.name: entry for entry in registry.entries()})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "silu.py").write_text(SILU)
    return tmp_path
