"""Sections and names that a report keeps for the next one: it says the same, and makes anew whatever something changed for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparselab.core.cache_folder import cache_folder
from sparselab.core.memo import sharing
from sparselab.core.packaged import CONFIGS, PACKAGE
from sparselab.experiments.tables import results, sections
from sparselab.experiments.tables.entries import Entry
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load_all
from sparselab.experiments.tables.report import html, page
from sparselab.experiments.tables.roster import Roster
from sparselab.experiments.tables.run_index import RunIndex
from sparselab.experiments.tables.schema import Table
from sparselab.running.cell_ids import cell_id_of
from sparselab.running.circumstances import circumstances, watched
from sparselab.storage import record


class Here:
    """A folder of results, one of runs, and counted work."""

    def __init__(self, tmp_path: Path, configs: Path, monkeypatch: pytest.MonkeyPatch):
        self.results, self.runs, self.configs = tmp_path / "results", tmp_path / "runs", configs
        self.named: list[list[str]] = []
        self.made: list[str] = []
        self.warned: list[str] = []
        self.data = tmp_path / "data"
        self.data.mkdir()
        monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("SPARSELAB_DATA", str(self.data))
        (self.data / "notes.txt").write_text("one")
        usual = sections.section

        def name(words: list[str], search_path: str | None = None) -> str:
            self.named.append(words)
            return cell_id_of(words, search_path)

        def made(summary: Any, find: Any) -> Any:
            self.made.append(summary.tier)
            return usual(summary, find)

        monkeypatch.setattr(sections, "cell_id_of", name)
        monkeypatch.setattr(sections, "section", made)

    def report(self) -> str:
        """The page; ``named``, ``made`` and ``warned`` are of this report alone."""
        self.named.clear()
        self.made.clear()
        self.warned.clear()
        return page(sections.sections(self.results, self.runs, configs=self.configs, warn=self.warned.append))

    def uncached(self) -> str:
        return html(results.ledger(self.results, self.runs, self.configs))

    def put(self, entry: Entry, **changed: Any) -> Path:
        """A run of the entry's cell."""
        id = cell_id_of(list(entry.cell.overrides))
        words = dict(text.split("=", 1) for text in entry.cell.overrides)
        config = {"seed": entry.cell.seed, **{key: {"name": words[key]} for key in ("method", "dataset", "model")}}
        return record.write(self.runs / id, {**entry.record, "id": id, "config": config, **changed})


@pytest.fixture
def here(tmp_path: Path, configs: Path, table: Table, entries: list[Entry], monkeypatch: pytest.MonkeyPatch) -> Here:
    made = Here(tmp_path, configs, monkeypatch)
    results.write(made.results, table, "cpu", entries[:9], configs)
    for entry in entries[6:12]:
        made.put(entry)
    return made


def test_a_second_report_says_the_same_and_does_nothing(here: Here):
    first = here.report()
    assert here.made == ["cpu", "paper"] and here.named
    assert first == here.uncached()
    assert here.report() == first
    assert not here.made and not here.named


def test_a_further_run_makes_its_table_anew_and_names_nothing_again(here: Here, entries: list[Entry]):
    here.report()
    here.put(entries[13])
    page = here.report()
    assert here.made == ["cpu"] and page == here.uncached()
    assert all("seed=1" in words and "method=srste" in words for words in here.named)
    here.put(entries[13], metrics={**entries[13].record["metrics"], "test.accuracy": 0.5})
    assert here.report() == here.uncached() != page
    assert here.made == ["cpu"] and not here.named


def test_kept_records_and_the_table_itself_count_by_their_bytes(here: Here, table: Table, entries: list[Entry]):
    here.report()
    results.write(here.results, table, "cpu", entries[:10], here.configs)
    assert here.report() == here.uncached()
    assert here.made == ["cpu"] and not here.named
    path = here.configs / "paper" / "demo.yaml"
    path.write_text(path.read_text().replace("Fewer epochs", "Far fewer epochs"))
    assert "Far fewer epochs" in here.report() == here.uncached()
    assert here.made == ["cpu", "paper"] and here.named


@pytest.mark.parametrize("what", ["a file of the data", "a new file", "the environment", "another folder"])
def test_names_are_made_anew_under_other_circumstances(here: Here, what: str, tmp_path: Path, monkeypatch):
    first = here.report()
    if what == "a file of the data":
        (here.data / "notes.txt").write_text("two!")
    elif what == "a new file":
        (here.data / "more").mkdir()
    elif what == "the environment":
        monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    else:
        monkeypatch.chdir(tmp_path)
    assert here.report() == first
    assert here.named and not here.made  # the names are as before, and so are the sections


def test_a_processor_that_settles_another_precision_has_other_cells(here: Here, monkeypatch):
    monkeypatch.delenv("SPARSELAB_BF16", raising=False)
    pages = {}
    for asked in ("cpu", "none", "cpu"):
        monkeypatch.setenv("SPARSELAB_BF16", asked)
        assert pages.setdefault(asked, here.uncached()) == here.report()
    assert len(set(pages.values())) == 2  # runs of the one are none of the other


def test_a_word_that_names_something_here_is_no_word_to_keep_a_name_for(here: Here, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = here.report()
    (tmp_path / "mlp").mkdir()
    for _ in range(2):
        assert here.report() == first
        assert here.named


def test_a_refusal_is_told_each_time(here: Here):
    path = here.configs / "paper" / "demo.yaml"
    path.write_text(path.read_text().replace("base: [model=mlp]", "base: [model=mlp, model.hidden=no]"))
    here.report()
    told = list(here.warned)
    assert told and any("model.hidden" in line for line in told)
    here.report()
    assert here.warned == told and not here.named


def test_a_record_that_is_not_sound_is_told_each_time(here: Here, entries: list[Entry]):
    path = here.put(entries[12])
    path.write_bytes(path.read_bytes()[:-9])
    for _ in range(2):
        assert here.report() == here.uncached()
        assert any("corrupt" in line for line in here.warned)


def test_what_is_kept_may_be_lost_or_damaged(here: Here, tmp_path: Path):
    first = here.report()
    (kept,) = (tmp_path / "cache" / "reports").iterdir()
    for text in ("", "{}", kept.read_text()[:-5]):
        kept.write_text(text)
        assert here.report() == first and here.made


def test_nothing_is_kept_beside_a_folder_of_ones_own(here: Here, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    assert circumstances(str(tmp_path / "mine")) is None
    assert circumstances() == circumstances() is not None


WATCH = """
import json, os, sys
opened = set()
sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event in ("open", "os.listdir", "os.scandir") else None)
from sparselab.core.memo import sharing
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load_all
from sparselab.experiments.tables.roster import Roster
from sparselab.experiments.tables.run_index import RunIndex
from sparselab.running.cell_ids import cell_id_of
from pathlib import Path

index = RunIndex(Path("none"))
index.unknown = True
with sharing():
    names = {}
    for table in (table for table in load_all() if "smoke" in table.tiers):
        cells = expand(table, "smoke")
        roster = Roster.made(cells)
        roster.named(index, lambda: cells, cell_id_of)
        names[table.output] = roster.json()
print(json.dumps([sorted(os.path.abspath(path) for path in opened if not path.isdigit()), names]))
"""


def test_names_are_those_of_another_process_which_opens_only_what_is_watched(tmp_path: Path, monkeypatch):
    """Every table's smoke tier: what one process names, another reads as the same, and the circumstances tell of all files."""
    told = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, check=True)
    opened, names = json.loads(told.stdout)
    index = RunIndex(tmp_path / "none")
    index.unknown = True
    fresh: Callable[..., Any] = cell_id_of
    with sharing():
        for table in (table for table in load_all() if table.output in names):
            cells = expand(table, "smoke")
            kept = Roster.of_json(names[table.output])
            for cell, name in zip(cells, kept.names, strict=True):
                if isinstance(name, str):
                    assert fresh(list(cell.overrides)) == name, cell
    installed = [sys.prefix, sys.base_prefix, *filter(None, sys.path)]
    places = [
        *installed,
        PACKAGE,
        CONFIGS,
        cache_folder(),
        *(folder.absolute() for folder in watched()),
        "/proc/",
        "/dev",
    ]
    known = tuple(str(path) for place in places for path in (place, Path(place).resolve()))
    others = [
        path for path in opened if "hydra_plugins" not in Path(path).parts
    ]  # where Hydra looks for launchers and sweepers
    assert [path for path in others if not path.startswith(known)] == []
