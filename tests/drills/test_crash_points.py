"""Drill F1 on a whole cell: it dies at each system call that changes the disk, and a rerun ends with the same bytes."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path

import pytest
from test_files import Crash, Dying, in_place
from whole_cell import ended, forked, outcome, run

from sparselab.core.errors import ConfigError
from sparselab.storage import atomic, record, tensors
from sparselab.storage.checkpoints import Checkpoints

CELL = ("rigl", "trainer.checkpoint_every=5")


pytestmark = pytest.mark.usefixtures("unsynced")


def through(files, folder):
    """Run the cell with its system calls going through ``files``."""
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Crash):
        patch.setattr(atomic, "FILES", files)
        return run(folder, *CELL)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Outcome of the run that nothing disturbs, and how many points it has to die at."""
    counting = Dying()
    finished = through(counting, tmp_path_factory.mktemp("unbroken"))
    assert finished.code == 0, finished.err
    return outcome(finished.cell), counting.points


def torn(folder: Path):
    """Files under their final names that a reader would find half-written."""
    found = []
    for path in folder.glob("*/*"):
        try:
            if path.name == "record.json":
                record.read(path.parent)
            elif path.suffix == ".safetensors":
                tensors.load(path)
            elif path.suffix == ".csv":
                text = path.read_text()
                assert text.endswith("\n") and len({len(row) for row in csv.reader(text.splitlines())}) == 1
        except (ConfigError, AssertionError):
            found.append(path.name)
    for manifest in folder.glob("*/checkpoints/*.json"):
        store = Checkpoints(manifest.parent, manifest.parents[1].name)
        if store.load_latest().path != max(manifest.parent.glob("*.ckpt.json")).with_suffix(""):
            found.append(manifest.name)
    return found


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_f1_a_cell_that_dies_at_any_call_ends_the_same(tmp_path, unbroken, every):
    wanted, points = unbroken
    assert points > 60
    for point in range(1, points + 1, every):
        folder = tmp_path / str(point)
        assert through(Dying(point), folder) is None, f"point {point} was survived"
        assert torn(folder) == [], f"point {point}"
        there = record.finished(next(folder.iterdir()), next(folder.iterdir()).name) is not None
        again = run(folder, *CELL)
        assert again.code == 0
        # A record that is there is the end: what a crash just after it left behind is harmless, and stays.
        assert without(outcome(again.cell), *["leftovers"] * there) == without(wanted, *["leftovers"] * there)


def without(found: dict, *names: str) -> dict:
    return {key: value for key, value in found.items() if key not in names}


def test_f1_a_process_that_is_really_gone(tmp_path, unbroken):
    wanted, points = unbroken
    for point in (points // 4, points // 2, points - 20):

        def action(point=point):
            through(Dying(point), tmp_path / str(point))
            return 9

        assert ended(forked(action)) == 9
        again = run(tmp_path / str(point), *CELL)
        assert again.code == 0 and outcome(again.cell) == wanted, f"point {point}"


def test_f1_control_writing_in_place_leaves_torn_files(tmp_path, unbroken, monkeypatch):
    def write(path, data):
        in_place(Path(path), bytes(data))
        return Path(path)

    monkeypatch.setattr(atomic, "write_bytes", write)
    assert any(
        torn(tmp_path / str(point)) for point in range(2, 30, 2) if not through(Dying(point), tmp_path / str(point))
    )
