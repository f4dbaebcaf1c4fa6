from __future__ import annotations

import io
from pathlib import Path

import pytest

from sparselab.store import record as records
from sparselab.sweeps.cells import Planned
from sparselab.sweeps.progress import Progress, failures, span, two_numbers


def ident(number: int) -> str:
    return f"{number:012x}"


def planned(tmp_path: Path, number: int, work: float = 1.0) -> Planned:
    return Planned(ident(number), str(tmp_path / ident(number)), f"cell {number}", (), work)


def end(cell: Planned, status: str = "finished", **more: object) -> None:
    metrics = {"test.accuracy": 0.91234, "test.perplexity": 7.0}
    records.write(
        cell.folder, {"id": cell.id, "status": status, "config": {}, "metrics": metrics, "seconds": 41.0, **more}
    )


def test_lines(tmp_path: Path) -> None:
    now, out = [0.0], io.StringIO()
    progress = Progress("srste cpu", 12, 8, stream=out, clock=lambda: now[0])
    cells = [planned(tmp_path, i, work) for i, work in enumerate((1.0, 1.0, 2.0, 3.0))]
    progress.watch(cells)
    now[0] = 60
    end(cells[0])
    progress.look()
    end(cells[1], "failed", reason="update 3: loss is NaN")
    progress.look()
    progress.look()
    assert out.getvalue().splitlines() == [
        f"[ 9/12] finished  {ident(0)}  cell 0  test.accuracy 0.9123  41 s",
        "srste cpu: 9 of 12 finished, 3 left, about 4 min to go",
        f"[10/12] failed  {ident(1)}  cell 1  update 3: loss is NaN",
    ]
    now[0] = 100
    progress.tell()
    assert out.getvalue().splitlines()[-1] == "srste cpu: 9 of 12 finished, 1 failed, 2 left, about 3 min to go"


def test_nothing_is_foretold_of_cells_unlike_all_that_ended(tmp_path: Path) -> None:
    now, out = [0.0], io.StringIO()
    progress = Progress("t", 5, 0, stream=out, clock=lambda: now[0])
    cells = [planned(tmp_path, i, work) for i, work in enumerate((1.0, 1.0, 1.0, 2.0, 1e6))]
    progress.watch(cells)
    for cell in cells[:3]:
        now[0] += 50
        end(cell)
        progress.look()
    assert "to go" not in out.getvalue()
    end(cells[4], "failed", reason="out of memory")
    progress.look()
    now[0] += 50
    progress.tell()
    assert out.getvalue().splitlines()[-1].endswith("1 failed, 1 left, about 2 min to go")


@pytest.mark.parametrize(
    ("ended", "numbers"),
    [
        ([(1.0, 11.0), (2.0, 12.0), (4.0, 14.0)], (10.0, 1.0)),  # a start-up is not divided as work
        ([(2.0, 8.0), (2.0, 12.0)], (0.0, 5.0)),
        ([(1.0, 12.0), (2.0, 11.0)], (11.5, 0.0)),
        ([(1.0, 1.0), (4.0, 10.0)], (0.0, 2.2)),
    ],
)
def test_start_and_pace_are_two_numbers(ended: list[tuple[float, float]], numbers: tuple[float, float]) -> None:
    assert two_numbers(ended) == pytest.approx(numbers)


def test_the_tables_metric_is_shown(tmp_path: Path) -> None:
    out = io.StringIO()
    progress = Progress("t", 1, 0, "test.perplexity", out)
    cell = planned(tmp_path, 0)
    with progress:
        progress.watch([cell])
        end(cell)
    assert "test.perplexity 7" in out.getvalue()


def test_an_old_record_is_no_news(tmp_path: Path) -> None:
    out = io.StringIO()
    progress = Progress("t", 1, 0, stream=out)
    cell = planned(tmp_path, 0)
    end(cell, "failed", reason="old")
    progress.watch([cell])
    progress.look()
    assert not out.getvalue()
    end(cell)
    progress.look()
    assert "finished" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.12, "0.1 s"), (41.2, "41 s"), (300, "5 min"), (18_720, "5.2 h"), (267_840, "3.1 days")]
)
def test_span(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_failures_are_one_line_each() -> None:
    text = failures([("a" * 12, "short", "NaN"), ("b" * 12, "x" * 80, "killed")], 9)
    assert text.splitlines()[0] == "2 of 9 cells failed:"
    assert text.splitlines()[1] == f"  {'a' * 12}  {'short':<60}  NaN"
    assert text.splitlines()[2] == f"  {'b' * 12}  {'x' * 59}…  killed"
