"""Drill F2 on a whole cell: the disk is full. One line that says what is needed; nothing that was saved is lost."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from test_files import Full, tmpfs
from whole_cell import at, ended, forked, outcome, run, saved

from sparselab.storage import atomic
from sparselab.storage.checkpoints import Checkpoints

CELL = ("gmp", "trainer.checkpoint_every=2")
__all__ = ["tmpfs"]  # a fixture


pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Outcome of the run that nothing disturbs, and the bytes it writes."""
    disk = Full(10**9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "FILES", disk)
        finished = run(tmp_path_factory.mktemp("unbroken"), *CELL)
    assert finished.code == 0, finished.err
    return outcome(finished.cell), 10**9 - disk.room


def fails_in_one_line(end):
    line = end.err.splitlines()[-1]
    assert end.code == 1 and end.out == ""
    assert line.startswith("failed: ") and "disk full, " in line and " bytes needed and " in line and len(line) <= 170
    assert "Traceback" not in end.err


@pytest.mark.parametrize("sizes", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_f2_a_disk_of_any_size(tmp_path, unbroken, sizes):
    (wanted, total), kept = unbroken, 0
    for part in range(sizes):
        folder = tmp_path / str(part)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(atomic, "FILES", Full(total * (2 * part + 1) // (2 * sizes)))
            end = run(folder, *CELL)
        fails_in_one_line(end)
        found = Checkpoints(end.cell / "checkpoints", end.cell.name).load_latest()
        assert (found.step if found else 0) == saved(folder)
        kept += saved(folder) > 0
        again = run(folder, *CELL)
        assert again.code == 0 and outcome(again.cell) == wanted
    assert kept >= sizes // 2  # runs that had something to go on from


def test_f2_a_real_disk_fills_up(tmp_path, tmpfs, unbroken):
    folder = tmpfs("size=4m") / "runs"

    def fill():
        with (folder.parent / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    with pytest.MonkeyPatch.context() as patch:
        at(patch, "after a mask change", fill)
        end = run(folder, *CELL)
    fails_in_one_line(end)
    assert saved(folder) == 6
    (folder.parent / "filler").unlink()
    again = run(folder, *CELL)
    assert again.code == 0 and outcome(again.cell) == unbroken[0]


def test_f2_too_small_from_the_start_is_refused(tmpfs):
    end = run(tmpfs("size=100k") / "runs", *CELL)
    assert (
        end.code == 2 and " bytes free, " in end.err and end.err.count("\n") == 2
    )  # after the line that names the cell


def test_f2_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    end = run(tmp_path / "file" / "runs", *CELL)
    assert end.code == 2 and end.err.startswith("runs_dir=") and end.err.count("\n") == 1

    def unprivileged(folder):
        if os.geteuid() == 0:
            os.setuid(65_534)  # not only the effective user: os.access asks for the real one
        return run(folder / "runs", *CELL).code

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        assert ended(forked(lambda: unprivileged(Path(folder)))) == 2
