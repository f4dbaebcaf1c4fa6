"""No cell of a table depends on the machine that plans it: the precision is never left to it."""

from __future__ import annotations

import json
import re

import pytest
from project_tables import tables

from sparselab.config.members import CONFIGS
from sparselab.core import processor
from sparselab.core.errors import ConfigError
from sparselab.core.memo import sharing
from sparselab.experiments.tables.grid import Cell, expand
from sparselab.experiments.tables.schema import Table
from sparselab.running.cell_ids import cell_id_of

DECIDING = ("trainer=", "trainer.precision=", "trainer.accelerator=", "dataset=", "engine=")  # datasets choose a recipe
ABLE, OLD = processor.AVX512 | {"avx512_bf16"}, frozenset({"avx2"})


def ids(cells: list[Cell], flags: frozenset[str]) -> list[str]:
    """The ids as a machine with a processor of these flags has them; a cell that has none here says why."""
    found = []
    with pytest.MonkeyPatch.context() as patch, sharing():
        patch.delenv(processor.ASKED, raising=False)
        patch.setattr(processor, "processor_flags", lambda: flags)
        patch.setattr(processor, "gpus", lambda: 0)
        for cell in cells:
            try:
                found.append(cell_id_of(list(cell.overrides)))
            except ConfigError as refused:
                found.append(str(refused.issues[0]))
    return found


pytestmark = pytest.mark.usefixtures("data_by_name")


def cells_of(table: Table) -> list[Cell]:
    """Of every place of every tier the first seed's cell."""
    return [cell for tier, size in table.tiers.items() for cell in expand(table, tier) if cell.seed == size.seeds[0]]


def one_of_each(table: Table) -> list[Cell]:
    """Of every tier a cell for each set of words that have a say in the precision: recipes, and what is started from."""
    found: dict[tuple[str, frozenset[str]], Cell] = {}
    for tier, size in table.tiers.items():
        for cell in expand(table, tier):
            words = (word for word in cell.overrides if word.startswith(DECIDING) or "cell:" in word)
            key = tier, frozenset(re.sub(r"[\d.:]+", "0", word) for word in words)
            if cell.seed == size.seeds[0]:
                found.setdefault(key, cell)
    return list(found.values())


@pytest.mark.parametrize("chosen", [one_of_each, pytest.param(cells_of, marks=pytest.mark.slow)])
def test_every_table_has_one_set_of_ids_on_both_kinds_of_processor(chosen):
    cells = [(table.label, cell) for table in tables() for cell in chosen(table)]
    able, old = (ids([cell for _, cell in cells], flags) for flags in (ABLE, OLD))
    # Problems of estimation have no precision, and neither they nor somebody else's networks have to lie here.
    absent = [id for id in able if "no local copy" in id and "problem" not in id and "model.path" not in id]
    assert len(absent) < 0.05 * len(cells)
    differ = {label for (label, _), one, other in zip(cells, able, old, strict=True) if one != other}
    assert differ == set(), "trainer.precision of these tables, or of cells that theirs start from, is auto"


@pytest.mark.parametrize("left", ["", "model.weights='cell:method=dense model=mlp'"])
def test_control_a_cell_that_leaves_it_to_the_machine_has_two_ids(left):
    pinned = ["trainer.precision=32"] if left else []
    cell = Cell("row", "column", 0, ("method=dense", "model=mlp", "seed=0", *pinned, *([left] if left else [])))
    assert ids([cell], ABLE) != ids([cell], OLD)


def test_committed_records_keep_their_ids():
    """Of each table's smoke tier on digits, whose bytes are the same everywhere, the first and the last record."""
    found = 0
    for path in sorted((CONFIGS.parent / "results").glob("*/smoke/**/records.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in (lines[0], lines[-1]):
            if line["record"]["config"].get("dataset", {}).get("name") == "digits":
                cell = Cell(line["row"], line["column"], line["seed"], tuple(line["overrides"]))
                assert ids([cell], ABLE) == ids([cell], OLD) == [line["record"]["id"]], f"{path.parent.name} {cell}"
                found += 1
    assert found or not (CONFIGS.parent / "results").is_dir()
