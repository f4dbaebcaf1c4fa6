"""A paper of a user's own, in a folder of theirs: every command that is told of the folder knows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparselab.cli.main import main
from sparselab.config.members import tree_of
from sparselab.core.errors import ConfigError
from sparselab.experiments.tables import load as tables
from sparselab.experiments.tables.load import load, papers

PAPER = """\
source: {elsewhere: a note of mine, title: Gentle pruning, year: 2026, table: the only one}
metric: {key: test.accuracy, label: top-1 %, better: higher, scale: 100, read: at the end}
base: {dataset: digits, model: mlp, model.hidden: [8], trainer: digits, trainer.max_epochs: null, trainer.max_steps: 3}
rows: {half: {sparsity: "2:4"}}
columns: {gentle: {method: gentle}, ste: {method: ste}}
tiers:
  smoke: {seeds: [0], minutes: 1}
  cpu: {seeds: [0, 1], minutes: 1}
claims:
  - {kind: order, text: gentle is better, a: {row: half, column: gentle}, b: {row: half, column: ste}}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An empty current folder with my/paper/mine.yaml and a method that only my/ has."""
    monkeypatch.chdir(tmp_path)
    for group in ("paper", "method"):
        (tmp_path / "my" / group).mkdir(parents=True)
    (tmp_path / "my/paper/mine.yaml").write_text(PAPER)
    (tmp_path / "my/method/gentle.yaml").write_text("name: srste\nlambda_w: 1.0e-5\n")
    return "--config-dir=my"


@pytest.fixture
def few(monkeypatch):
    """Of the project's own papers one: to read and check all takes seconds."""
    files = tables._files
    monkeypatch.setattr(tables, "_files", lambda *where: [f for f in files(*where) if f.slug in ("srste", "mine")])


def test_check_sweep_table_list_and_report_know_it(mine, few, capsys):
    asked = ["paper=mine", "tier=smoke"]
    assert main(["check", mine, *asked]) == 0
    assert "2 cells: 0 finished, 2 to run" in capsys.readouterr().out
    assert main(["run", "-m", mine, *asked, "trainer.accelerator=cpu"]) == 0
    assert "the table: sparselab table --config-dir my paper=mine tier=smoke" in capsys.readouterr().err
    assert main(["table", "--config-dir", "my", *asked, "format=csv", "write=true", "results_dir=kept"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["half", "gentle"], ["half", "ste"]]
    assert len(Path("kept/mine/smoke/records.jsonl").read_text().splitlines()) == 2
    ledger = Path("kept/README.md").read_text()
    assert "a note of mine, the only one | [smoke](mine/smoke/table.md) | 2 of 2" in ledger
    assert main(["list", mine, "format=markdown", "results_dir=kept"]) == 0
    assert capsys.readouterr().out == ledger
    assert "| srste |" not in ledger, "the project's papers have no record here"
    assert main(["list", "format=markdown", "results_dir=kept"]) == 0
    line = "kept/mine: is of no paper here: not listed — write --config-dir FOLDER, the one that has its tables"
    assert capsys.readouterr().err.splitlines() == [line]
    assert main(["migrate", mine, "kept"]) == 0 and "2 were current" in capsys.readouterr().out
    assert main(["check", mine, *asked, "results_dir=kept", "runs_dir=none"]) == 0
    assert "inconclusive" in capsys.readouterr().out, "its claims are of the kept records"
    assert main(["check", mine, *asked, "results_dir=nowhere"]) == 2
    assert "results_dir=nowhere: there is no such folder" in capsys.readouterr().err
    assert main(["report", mine, "results_dir=kept", "out=page.html"]) == 0
    assert "Gentle pruning" in Path("page.html").read_text()
    (cell, _) = (json.loads(line) for line in Path("kept/mine/smoke/records.jsonl").read_text().splitlines())
    assert cell["record"]["config"]["method"]["lambda_w"] == 1e-5


def test_without_the_folder_nobody_knows_it(mine, capsys):
    assert "mine" not in papers() and "mine" in papers(search_path="my")
    assert main(["table", "paper=mine", "tier=smoke"]) == 2
    assert "paper=mine: no such paper" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["paper=minee", "tier=smoke"], 'paper=minee: no such paper — did you mean "mine"?'),
        (["paper=mine/two", "tier=smoke"], "paper=mine/two: mine has no such table"),
        (["paper=mine", "tier=gpu"], "tier=gpu: paper=mine has no such tier"),
        (["--config-dir", "other", "paper=mine", "tier=smoke"], "--config-dir other: is there twice"),
        (["paper=mine", "tier=smoke", "plugins=[none.py]"], "plugins=[none.py]: there is no file none.py"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(words, line, mine, capsys):
    assert main(["table", mine, *words]) == 2
    assert any(found.startswith(line) for found in capsys.readouterr().err.splitlines())


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        (
            "paper/srste.yaml",
            PAPER,
            "my/paper/srste.yaml: srste is a paper of another folder (configs/paper/srste.yaml)",
        ),
        ("paper/Other.yaml", PAPER, "my/paper/Other.yaml: not a name for a table"),
        (
            "paper/other.yaml",
            PAPER.replace("a note of mine", '"${oc.env:HOME}"'),
            "other.yaml:1: interpolations are not allowed",
        ),
        ("paper/other.yaml", "rows: [", "other.yaml:"),
        ("paper/other.yaml", PAPER.replace("rows", "rosw"), "my/paper/other.yaml rows: is required and has no value"),
        ("hydra/launcher/x.yaml", "{}", "--config-dir my: holds a folder hydra/"),
    ],
)
def test_a_folder_with_a_fault_is_refused_in_a_line_each(file, text, line, mine, tmp_path, capsys):
    path = tmp_path / "my" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert main(["table", mine, f"paper={path.stem}", "tier=smoke"]) == 2
    assert any(found.startswith(line) for found in capsys.readouterr().err.splitlines())


def test_there_is_no_such_folder(mine, capsys):
    assert main(["list", "--config-dir", "yours"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("--config-dir yours: is not a folder")
    with pytest.raises(ConfigError, match="is not a folder"):
        load("srste", search_path="yours")


def test_the_project_s_own_members_come_first(mine, tmp_path):
    (tmp_path / "my/method/gmp.yaml").write_text("name: srste\nlambda_w: 1.0\n")
    assert tree_of(["method=gmp"], "my") == tree_of(["method=gmp"])
    assert tree_of(["method=gentle"], "my")["method"]["lambda_w"] == 1e-5
