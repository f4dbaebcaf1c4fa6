from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sparselab.config.members import CONFIGS
from sparselab.core.errors import ConfigError, RunFailed, refuse
from sparselab.experiments.tables import figure, results
from sparselab.experiments.tables.entries import Entry
from sparselab.experiments.tables.figure import figure_svg
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.schema import Table
from sparselab.experiments.tables.summary import Summary
from sparselab.storage import record
from sparselab.storage.ids import cell_id


def name(overrides: list[str]) -> str:
    return cell_id({"overrides": overrides})


@pytest.fixture
def runs(tmp_path: Path, entries: list[Entry]) -> Path:
    """A runs folder with the sealed records of all entries."""
    for entry in entries:
        id = name(list(entry.cell.overrides))
        entry.record.update(record.sealed({**entry.record, "id": id}))
        record.write(tmp_path / "runs" / id, entry.record)
    return tmp_path / "runs"


def test_records_are_found_by_the_cells_id(runs: Path, table: Table, entries: list[Entry]):
    found = results.collect(runs, table, "cpu", name)
    assert [entry.cell for entry in found] == expand(table, "cpu")
    assert found[0].number("metrics", "test.accuracy") == entries[0].number("metrics", "test.accuracy")
    assert results.collect(runs / "none", table, "cpu", name) == []


def test_a_corrupt_record_is_named_and_passed_over(runs: Path, table: Table, entries: list[Entry]):
    path = runs / entries[3].id / "record.json"
    path.write_bytes(path.read_bytes()[:-40])
    warnings: list[str] = []
    found = results.collect(runs, table, "cpu", name, warnings.append)
    assert len(found) == 14
    assert len(warnings) == 1
    assert entries[3].id in warnings[0]
    assert "corrupt or half-written record" in warnings[0]


def test_cells_that_cannot_be_planned_are_said_once(runs: Path, table: Table):
    def refusing(overrides: list[str]) -> str:
        refuse("dataset=mnist", "not found", "set data_dir")

    warnings: list[str] = []
    assert results.collect(runs, table, "cpu", refusing, warnings.append) == []
    assert warnings == ["dataset=mnist: not found — set data_dir"]


def test_written_results_read_back_and_are_not_stale(tmp_path: Path, configs: Path, table: Table, entries: list[Entry]):
    out = tmp_path / "results"
    paths = results.write(out, table, "cpu", entries, configs)
    assert [p.relative_to(out).as_posix() for p in paths] == [
        "demo/cpu/records.jsonl", "demo/cpu/table.md", "demo/cpu/table.csv", "demo/cpu/figure.svg", "README.md",
    ]  # fmt: skip
    assert results.read(out, table, "cpu") == entries
    assert results.stale(out, configs) == []
    before = {path: path.read_bytes() for path in paths}
    results.write(out, table, "cpu", results.read(out, table, "cpu"), configs)
    assert {path: path.read_bytes() for path in paths} == before


@pytest.mark.parametrize("file", ["table.md", "table.csv", "figure.svg"])
def test_a_rendering_that_differs_from_its_records_is_stale(
    tmp_path: Path, configs: Path, table: Table, entries: list[Entry], file: str
):
    out = tmp_path / "results"
    results.write(out, table, "cpu", entries, configs)
    path, again = out / "demo" / "cpu" / file, "run sparselab table paper=demo tier=cpu write=true"
    path.write_bytes(path.read_bytes() + b"\n")
    assert results.stale(out, configs) == [f"demo/cpu/{file}: differs from what the records give — {again}"]
    path.unlink()
    assert results.stale(out, configs) == [f"demo/cpu/{file}: is missing — {again}"]


def test_a_changed_record_makes_every_rendering_stale(
    tmp_path: Path, configs: Path, table: Table, entries: list[Entry]
):
    out = tmp_path / "results"
    results.write(out, table, "cpu", entries, configs)
    path = out / "demo" / "cpu" / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    def keep() -> None:
        texts = (json.dumps(line, sort_keys=True, ensure_ascii=False, separators=(",", ":")) for line in lines)
        path.write_text("".join(f"{text}\n" for text in texts))

    lines[0]["record"]["metrics"]["test.accuracy"] = 0.5
    keep()
    by_hand = f"demo/cpu/records.jsonl:1: the record of cell {entries[0].id} was changed: its seal does not fit"
    assert results.stale(out, configs) == [f"{by_hand} — restore the file (git checkout)"]
    with pytest.raises(ConfigError, match=by_hand):
        results.read(out, table, "cpu")

    lines[0]["record"] = record.sealed(lines[0]["record"])
    keep()
    assert [line.split(":")[0] for line in results.stale(out, configs)] == [
        "demo/cpu/table.md", "demo/cpu/table.csv", "demo/cpu/figure.svg",
    ]  # fmt: skip


def test_a_changed_table_drops_the_records_of_its_old_cells(
    tmp_path: Path, configs: Path, table: Table, entries: list[Entry]
):
    out = tmp_path / "results"
    results.write(out, table, "cpu", entries, configs)
    changed = table.model_copy(update={"base": ["dataset=mnist"]})
    warnings: list[str] = []
    assert results.read(out, changed, "cpu", warnings.append) == []
    strange = "15 of 15 records are of cells that the table does not have: not shown"
    assert warnings == [f"demo/cpu/records.jsonl: {strange}"]
    labelled = table.model_copy(update={"base": ["dataset=digits", "trainer.progress=lines"]})
    assert len(results.read(out, labelled, "cpu")) == 15  # what never changes a result is no difference


def test_results_of_no_table_are_named(tmp_path: Path, configs: Path, table: Table, entries: list[Entry]):
    out = tmp_path / "results"
    results.write(out, table, "cpu", entries, configs)
    (out / "gone" / "cpu").mkdir(parents=True)
    (out / "gone" / "cpu" / "records.jsonl").write_text("")
    assert results.stale(out, configs) == ["gone/cpu/records.jsonl: belongs to no table — delete it"]


def test_runs_win_over_what_was_kept_unless_they_failed(
    tmp_path: Path, runs: Path, configs: Path, table: Table, entries: list[Entry]
):
    out = tmp_path / "results"
    results.write(out, table, "cpu", entries[:10], configs)
    failed = {**entries[0].record, "status": "failed", "metrics": {}}
    record.write(runs / entries[0].id, failed)
    better = {**entries[1].record, "metrics": {"test.accuracy": 0.5}}
    record.write(runs / entries[1].id, better)
    found = results.gather(out, runs, table, "cpu", cell_id=name)
    assert len(found) == 15
    assert found[0].finished
    assert found[1].number("metrics", "test.accuracy") == 0.5


def test_a_broken_line_is_refused(tmp_path: Path, configs: Path, table: Table, entries: list[Entry]):
    out = tmp_path / "results"
    results.write(out, table, "cpu", entries, configs)
    path = out / "demo" / "cpu" / "records.jsonl"
    whole = path.read_text()
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=r"demo/cpu/records.jsonl: is not a file"):
        results.read(out, table, "cpu")
    path.rmdir()
    path.write_text(whole + '{"row": 1\n')
    with pytest.raises(ConfigError, match=r"demo/cpu/records.jsonl:16: is not a record of a table"):
        results.read(out, table, "cpu")
    assert results.stale(out, configs)[0].startswith("demo/cpu/records.jsonl:16: is not a record of a table")


def test_an_unwritable_folder_is_one_line(tmp_path: Path, configs: Path, table: Table):
    (tmp_path / "results").write_text("a file in the way")
    with pytest.raises(RunFailed, match="cannot be written"):
        results.write(tmp_path / "results", table, "cpu", [], configs)


@pytest.mark.instructions
@pytest.mark.parametrize("figures", ["one of each table", pytest.param("all", marks=pytest.mark.slow)])
def test_the_projects_own_results_are_what_the_records_give(figures: str, monkeypatch: pytest.MonkeyPatch):
    """Drawing takes nearly all of the time. What only a figure shows is the table's, so one of its sizes tells it."""
    kept = CONFIGS.parent / "results"
    if not any(kept.rglob(results.RECORDS)):
        pytest.skip("this checkout has no records under results/")
    drawn: set[str] = set()

    def first(summary: Summary) -> bytes:
        if summary.table.output in drawn:
            return (results.folder(kept, summary.table, summary.tier) / "figure.svg").read_bytes()
        drawn.add(summary.table.output)
        return figure_svg(summary)

    if figures != "all":
        monkeypatch.setattr(figure, "figure_svg", first)
    assert results.stale(kept) == []


def test_records_of_any_shape_are_survived(table: Table, entries: list[Entry], fill: Callable):
    from sparselab.experiments.tables.summary import summarise

    shapes = [
        {},
        {"metrics": 3},
        {"status": "finished", "metrics": {"test.accuracy": "x"}},
        {"status": "finished", "account": []},
    ]
    odd = [Entry(entry.cell, shape) for entry, shape in zip(entries, shapes, strict=False)]
    assert summarise(table, "cpu", odd).done == 0


def test_a_record_keeps_the_words_in_which_its_phase_was_asked_for(table: Table, entries, tmp_path):
    """A table that now writes a phase as a value has the records of the older text, and writes them as they were."""
    new = table.model_copy(
        update={"base": [*table.base, "model.weights={cell: {method: dense, trainer.max_steps: 5}}"]}
    )
    old = table.model_copy(update={"base": [*table.base, "model.weights='cell:method=dense trainer.max_steps=5'"]})
    entries = [Entry(cell, entry.record) for cell, entry in zip(expand(old, "cpu"), entries, strict=True)]
    results.write(tmp_path, old, "cpu", entries)
    written = (tmp_path / "demo" / "cpu" / "records.jsonl").read_bytes()
    kept = results.read(tmp_path, new, "cpu")
    assert [entry.cell for entry in kept] == expand(new, "cpu") and results.dump(kept).encode() == written
    other = table.model_copy(
        update={"base": [*table.base, "model.weights={cell: {method: dense, trainer.max_steps: 6}}"]}
    )
    assert results.read(tmp_path, other, "cpu") == []
