"""The loop that runs cells, with launchers that do what launchers do on bad days."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sparselab.core.errors import ConfigError, RunFailed
from sparselab.experiments.sweeps import lease, sweep
from sparselab.experiments.sweeps.cells import Asked, Planned, Schedule
from sparselab.experiments.sweeps.job import Outcome
from sparselab.experiments.sweeps.sweep import LauncherBroke, Sweep
from sparselab.storage import record as records
from sparselab.storage.ids import digest

Runs = Callable[[Sequence[Planned]], list[Outcome | None]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "POLL", 0.01)


def ident(number: int) -> str:
    return f"{number:012x}"


def finish(cell: Planned, value: float = 0.5, status: str = "finished", **more: str) -> None:
    body = {"id": cell.id, "status": status, "config": {}, "metrics": {"test.accuracy": value}, "seconds": 1.0}
    records.write(cell.folder, {**body, **more})


def make(
    tmp_path: Path, count: int, launch: Runs, dependencies: dict[int, list[int]] | None = None, force: bool = False
) -> Sweep:
    cells = {
        ident(i): Planned(ident(i), str(tmp_path / ident(i)), f"cell {i}", (), 1.0,
                          tuple(map(ident, (dependencies or {}).get(i, []))), force)
        for i in range(count)
    }  # fmt: skip
    return Sweep(Asked("test", [], []), Schedule(cells, set(cells), count), tmp_path / ".sweeps" / "one", launch)


def good(cells: Sequence[Planned]) -> list[Outcome | None]:
    for cell in cells:
        finish(cell)
    return [Outcome(cell.id, "finished") for cell in cells]


@pytest.fixture
def dead(gone: int) -> lease.Holder:
    return replace(lease.myself(), pid=gone, token="dead")


def plant(cell: Planned, holder: lease.Holder) -> None:
    Path(cell.folder).mkdir(parents=True, exist_ok=True)
    (Path(cell.folder) / lease.NAME).write_text(json.dumps(asdict(holder)))


def test_only_what_is_missing_is_launched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    def launch(cells: Sequence[Planned]) -> list[Outcome | None]:
        seen.extend(cell.id for cell in cells)
        return good(cells)

    one = make(tmp_path, 4, launch)
    finish(one.schedule.cells[ident(1)])
    assert one.run() == 0 and seen == [ident(0), ident(2), ident(3)]
    assert make(tmp_path, 4, launch).run() == 0 and len(seen) == 3
    out = capsys.readouterr().err
    assert "test: 4 cells (1 finished before)" in out and "[4/4] finished" in out
    assert not (tmp_path / ".sweeps").exists()


def test_needs_go_first_and_their_failure_is_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rounds: list[list[str]] = []

    def launch(cells: Sequence[Planned]) -> list[Outcome | None]:
        rounds.append([cell.title for cell in cells])
        out: list[Outcome | None] = []
        for cell in cells:
            if cell.title == "cell 0":
                finish(cell, status="failed", reason="NaN")
                out.append(Outcome(cell.id, "failed", "NaN"))
            else:
                out += good([cell])
        return out

    assert make(tmp_path, 5, launch, {3: [0], 4: [1, 2]}).run() == 1
    assert rounds == [["cell 0", "cell 1", "cell 2"], ["cell 4"]]
    table = capsys.readouterr().err.split("2 of 5 cells failed:")[1]
    assert f"{ident(0)}  cell 0  NaN" in table and f"{ident(3)}  cell 3  needs cell {ident(0)}, which failed" in table


def test_an_earlier_failure_is_tried_again_and_not_taken_for_a_new_one(tmp_path: Path) -> None:
    one = make(tmp_path, 1, good)
    finish(one.schedule.cells[ident(0)], status="failed", reason="disk full")
    assert one.run() == 0


def test_a_process_that_dies_without_a_word_is_tried_three_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dead: lease.Holder
) -> None:
    rounds = 0

    def launch(cells: Sequence[Planned]) -> list[Outcome | None]:
        nonlocal rounds
        rounds += 1
        plant(one.schedule.cells[ident(0)], dead)
        if rounds == 1:
            good(cells[2:])
            raise LauncherBroke("TerminatedWorkerError: a worker was killed")
        return [None, *good(cells[1:])]

    one = make(tmp_path, 4, launch)
    assert one.run() == 1 and rounds == 3
    out = capsys.readouterr().err
    assert "TerminatedWorkerError: a worker was killed: what is left is started again" in out
    assert "its process died 3 times without a word" in out
    assert records.valid(tmp_path / ident(1), ident(1)), "a cell that had not begun is not to blame"


def test_the_lease_of_a_process_killed_after_its_record_is_removed(tmp_path: Path, dead: lease.Holder) -> None:
    """Also that of another machine, whose processes nobody here can look at; a cell that failed keeps its lease."""

    def launch(cells: Sequence[Planned]) -> list[Outcome | None]:
        for cell in cells:
            plant(cell, replace(dead, place="another machine"))
        finish(cells[2], status="failed", reason="NaN")
        return [*good(cells[:2]), Outcome(cells[2].id, "failed", "NaN")]

    one = make(tmp_path, 3, launch)
    assert one.run() == 1
    assert [path.parent.name for path in tmp_path.glob(f"*/{lease.NAME}")] == [ident(2)]
    plant(one.schedule.cells[ident(0)], dead)
    finish(one.schedule.cells[ident(2)])
    assert make(tmp_path, 3, launch).run() == 0, "nothing is left to run"
    assert not list(tmp_path.glob(f"*/{lease.NAME}"))


def test_a_launcher_that_never_runs_anything_is_given_up(tmp_path: Path) -> None:
    def launch(cells: Sequence[Planned]) -> list[Outcome | None]:
        raise LauncherBroke("CalledProcessError: sbatch: error")

    with pytest.raises(RunFailed, match="the launcher gives up: CalledProcessError: sbatch: error"):
        make(tmp_path, 2, launch).run()


def test_it_waits_for_cells_of_others_and_takes_over_from_the_dead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, dead: lease.Holder
) -> None:
    launched: list[str] = []

    def launch(cells: Sequence[Planned]) -> list[Outcome | None]:
        launched.extend(cell.title for cell in cells)
        return good(cells)

    one = make(tmp_path, 3, launch)
    cells = list(one.schedule.cells.values())
    plant(cells[0], replace(lease.myself(), host="far"))  # a living process: this one
    plant(cells[1], replace(lease.myself(), host="near"))
    naps = 0

    def sleep(seconds: float) -> None:
        nonlocal naps
        if threading.current_thread() is not threading.main_thread():
            return  # ``time.sleep`` is one for all: another thread's nap is not the sweep's
        naps += 1
        if naps == 3:
            finish(cells[0])
        if naps == 5:
            plant(cells[1], dead)

    monkeypatch.setattr(sweep.time, "sleep", sleep)
    assert one.run() == 0
    assert launched == ["cell 2", "cell 1"]
    assert "waiting for 2 cells that others run (far, process" in capsys.readouterr().err


def test_busy_is_not_a_failure(tmp_path: Path) -> None:
    """The other process took the cell after the sweep had looked, and lets go of it again."""
    rounds = 0

    def launch(cells: Sequence[Planned]) -> list[Outcome | None]:
        nonlocal rounds
        rounds += 1
        return [Outcome(cell.id, "busy") for cell in cells] if rounds < 5 else good(cells)

    assert make(tmp_path, 1, launch).run() == 0 and rounds == 5


def test_anothers_failure_counts_and_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make(tmp_path, 1, good)
    cell = one.schedule.cells[ident(0)]
    plant(cell, replace(lease.myself(), host="far"))
    monkeypatch.setattr(sweep.time, "sleep", lambda s: finish(cell, status="failed", reason="NaN"))
    assert one.run() == 1 and one.failed == {ident(0): "NaN"}


@pytest.mark.parametrize("state", ["stopped", "left"])
def test_stopped_says_what_is_left(tmp_path: Path, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    def launch(cells: Sequence[Planned]) -> list[Outcome | None]:
        return [*good(cells[:1]), *(Outcome(cell.id, state) for cell in cells[1:])]  # type: ignore[arg-type]

    assert make(tmp_path, 4, launch, {3: [0]}).run() == 75
    assert "test: stopped on request, 3 of 4 cells left — the same command goes on" in capsys.readouterr().err


def test_force_runs_finished_cells_again_but_not_those_that_run(tmp_path: Path) -> None:
    one = make(tmp_path, 2, good, force=True)
    for cell in one.schedule.cells.values():
        finish(cell, 0.1)
    (tmp_path / ident(0) / "log.txt").write_text("old")
    assert one.run() == 0
    assert records.read(tmp_path / ident(0))["metrics"]["test.accuracy"] == 0.5
    assert not (tmp_path / ident(0) / "log.txt").exists()


def test_a_failure_without_a_record_has_its_reason_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make(tmp_path, 1, lambda cells: [Outcome(cells[0].id, "failed", "disk full")]).run() == 1
    assert f"{ident(0)}  cell 0  disk full" in capsys.readouterr().err


def test_a_record_of_a_newer_sparselab_is_left_alone(tmp_path: Path) -> None:
    finish(Planned(ident(0), str(tmp_path / ident(0)), "", (), 1.0))
    half, newer = (tmp_path / ident(i) / "record.json" for i in (1, 0))
    told = {**json.loads(newer.read_text()), "schema": 99}
    told.pop("seal")
    newer.write_text(json.dumps({**told, "seal": digest(told)}))
    half.parent.mkdir()
    half.write_text("{")
    before = newer.read_bytes()
    with pytest.raises(ConfigError) as refused:
        make(tmp_path, 3, good).run()
    (issue,) = refused.value.issues
    assert str(issue).endswith(
        "schema 99 is newer than this sparselab's 2 — update sparselab, or choose another runs_dir"
    )
    assert newer.read_bytes() == before and half.read_text() == "{", "nothing is touched"
    with pytest.raises(records.Newer):
        records.valid(newer.parent, ident(0))
