"""What every test starts from, and what many of them need. `data_specs.py` beside this file makes facts about data."""

from __future__ import annotations

import copy
import functools
import importlib.metadata
import os

os.environ["OMP_NUM_THREADS"] = "1"  # read once, where torch is first imported: here nothing has imported it yet
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from hypothesis import settings

# Every trainer asks all installed packages for plug-ins of Lightning; none is installed while tests run.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)

# No deadline: a machine with other work is slow now and then. Expensive properties say fewer examples themselves.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

WHOLE_RUNS = ("matrix", "drills")


@pytest.hookimpl(trylast=True)  # what the command deselects is gone
def pytest_collection_modifyitems(items):
    """Measure the coverage of whole runs in a test's first case, or first of each method: others run the same lines.

    Being measured makes a run half as long again, and these folders run thousands.
    """
    measured = set()
    for item in items:
        if item.path.parent.name in WHOLE_RUNS and hasattr(item, "callspec"):
            case = item.path, item.originalname, item.callspec.params.get("method")
            if case in measured:
                item.add_marker("no_cover")
            measured.add(case)


@pytest.fixture
def rng():
    """A generator that every test finds fresh."""
    return np.random.default_rng(0)


@pytest.fixture
def borrowed(monkeypatch):
    """``borrowed(METHODS)``: the registry with all its members, which is put back after the test."""

    def borrow(registry):
        list(registry)
        monkeypatch.setattr(registry, "_members", copy.copy(registry._members))
        return registry

    return borrow


@pytest.fixture
def gone():
    """The id of a process that has ended."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


@pytest.fixture
def unsynced(monkeypatch):
    """Without waits for the disk: a process that dies loses nothing that it has written."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """An empty working folder, no local copies of data and no hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("SPARSELAB_DATA", raising=False)


@pytest.fixture
def data_by_name(tmp_path, monkeypatch):
    """Local copies of nothing that is asked for, and a hub: plans know data by their public names."""
    (tmp_path / "something_else").mkdir()  # a folder with nothing in it would be refused as such
    monkeypatch.setenv("SPARSELAB_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
