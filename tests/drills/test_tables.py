"""T1: whole tables at tier smoke, from the command to the rendered files, twice and with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from project_tables import tables

from sparselab.cli import table as table_command
from sparselab.experiments.sweeps import start
from sparselab.experiments.tables import results
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load
from sparselab.experiments.tables.summary import summarise
from sparselab.storage import record as records

SMOKE = [table.output for table in tables() if "smoke" in table.tiers]
QUICK = "srste"


def rendered(folder: Path, paper: str, capsys: pytest.CaptureFixture[str]) -> dict[str, bytes]:
    """The files of the table, made from nothing; the records apart, which hold seconds."""
    words = [f"paper={paper}", "tier=smoke", "trainer.threads=1", f"runs_dir={folder}/runs"]
    assert start.start(words) == 0, capsys.readouterr().err
    places = [f"runs_dir={folder}/runs", f"results_dir={folder}/results"]
    assert table_command.run([f"paper={paper}", "tier=smoke", "format=csv", "write=true", *places]) == 0
    here = results.folder(folder / "results", load(paper)[0], "smoke")
    return {path.name: path.read_bytes() for path in here.iterdir() if path.is_file() and path.name != results.RECORDS}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("paper", [p if p == QUICK else pytest.param(p, marks=pytest.mark.slow) for p in SMOKE])
def test_t1_a_smoke_table_end_to_end_twice(paper: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once, again = (rendered(tmp_path / name, paper, capsys) for name in ("once", "again"))
    assert once == again and set(once) == {"table.md", "table.csv", "figure.svg"}
    table = load(paper)[0]
    entries = results.read(tmp_path / "once" / "results", table, "smoke")
    assert [entry.cell for entry in entries] == expand(table, "smoke") and all(entry.finished for entry in entries)
    verdicts = summarise(table, "smoke", entries).verdicts
    stated = [claim for claim in table.claims if claim.tiers is None or "smoke" in claim.tiers]
    assert len(verdicts) == len(stated)
    print(f"T1: {paper}, {len(entries)} cells twice, {len(once)} files with the same bytes")

    # the control: one number that is another makes other bytes
    run = tmp_path / "again" / "runs" / entries[-1].id
    body = json.loads((run / "record.json").read_text())
    body["metrics"][table.metric.key] *= 0.9
    records.write(run, body)
    places = [f"runs_dir={tmp_path}/again/runs", f"results_dir={tmp_path}/again/results"]
    table_command.run([f"paper={paper}", "tier=smoke", "write=true", *places])
    here = results.folder(tmp_path / "again" / "results", table, "smoke")
    assert all((here / name).read_bytes() != data for name, data in once.items())
