from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparselab.cli import list as list_command
from sparselab.cli import report, table
from sparselab.cli.main import main
from sparselab.config.members import CONFIGS
from sparselab.core.errors import ConfigError
from sparselab.experiments.tables import results
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


BAD = {
    ("tier=cpu",): "paper: is required — write paper=… (a paper's slug, or slug/table for one of several tables)",
    ("paper=srst", "tier=cpu"): 'paper=srst: no such paper — did you mean "srste"?',
    ("paper=srste", "tier=cpux"): 'tier=cpux: no such tier — did you mean "cpu"?',
    ("paper=srste", "tier=cpu", "tier=cpu"): "tier=cpu: is there twice — give each key once",
    ("paper=srste", "tier="): "tier=: has no value — write tier=smoke",
    ("papr=srste", "tier=cpu"): 'papr=srste: sparselab table has no such key — did you mean "paper"?',
    ("paper=srste/resnet18", "tier=cpu"): 'tier=cpu: paper=srste/resnet18 has no such tier — one of: paper',
    ("paper=srste", "tier=cpu", "format=cvs"): 'format=cvs: no such format — did you mean "csv"?',
    ("paper=srste", "tier=cpu", "runs_dir=rusn"): "runs_dir=rusn: there is no such folder — correct the path, or leave it out",
    ("paper=srste", "tier=cpu", "runs_dir=/dev/null"): "runs_dir=/dev/null: is not a folder — name a folder",
    ("paper=srste", "tier=cpu", "results_dir=/dev/null/x"): "results_dir=/dev/null/x: /dev/null is not a folder",
}  # fmt: skip


@pytest.mark.parametrize("argv", BAD)
def test_bad_arguments_are_one_line(argv: tuple[str, ...]):
    with pytest.raises(ConfigError) as refused:
        table.run(list(argv))
    assert any(str(issue).startswith(BAD[argv]) for issue in refused.value.issues)


def test_a_table_before_any_run(capsys: pytest.CaptureFixture[str]):
    assert table.run(["paper=srste", "tier=smoke"]) == 0
    out = capsys.readouterr().out
    assert f"0 of {len(expand(load('srste')[0], 'smoke'))} runs" in out
    assert "not run" in out
    assert table.run(["paper=srste", "tier=smoke", "format=markdown"]) == 0
    assert capsys.readouterr().out.startswith("# Learning N:M")
    assert table.run(["paper=srste", "tier=smoke", "format=csv"]) == 0
    assert capsys.readouterr().out.startswith("row,column,mean")


def test_writing_a_table_keeps_the_ledger_in_step(here: Path, capsys: pytest.CaptureFixture[str]):
    assert table.run(["paper=srste", "tier=smoke", "write=true"]) == 0
    assert (here / "results" / "srste" / "smoke" / "table.csv").is_file()
    assert results.stale(here / "results", CONFIGS) == []
    assert list_command.run(["write=true"]) == 0
    assert "random_pruning" in capsys.readouterr().out
    assert results.stale(here / "results", CONFIGS) == []


def test_a_report_before_any_run(here: Path, capsys: pytest.CaptureFixture[str]):
    assert report.run(["out=mine.html"]) == 0
    assert capsys.readouterr().out == "mine.html\n"
    assert "No record yet" in (here / "mine.html").read_text()


@pytest.mark.parametrize(("out", "problem"), [(".", "is a folder"), ("/dev/null/x.html", "cannot be written there")])
def test_a_report_that_cannot_be_written(out: str, problem: str):
    with pytest.raises(ConfigError, match=f"^out={re.escape(out)}: {problem} — name a file, such as out=report.html$"):
        report.run([f"out={out}"])


@pytest.mark.parametrize("command", [table, list_command, report])
def test_help(command: object, capsys: pytest.CaptureFixture[str]):
    assert command.run(["--help"]) == 0  # type: ignore[attr-defined]
    assert capsys.readouterr().out.startswith("usage: sparselab ")


@pytest.mark.parametrize("named", [[], ["results_dir=gone"]])
@pytest.mark.parametrize("words", [["list"], ["table", "paper=gmp", "tier=smoke"], ["report"]])
def test_outside_the_repository_nothing_is_silently_empty(words, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*words, *named]) == 0
    assert "here, so nothing is found — write results_dir=" in capsys.readouterr().err
