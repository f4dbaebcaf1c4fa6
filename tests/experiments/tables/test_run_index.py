"""What a runs folder may hold of a cell: never a no where planning would find a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparselab.config.members import groups, tree_of
from sparselab.experiments.tables import results
from sparselab.experiments.tables.entries import Entry
from sparselab.experiments.tables.grid import Cell, expand
from sparselab.experiments.tables.run_index import RunIndex, plugin
from sparselab.experiments.tables.schema import Table
from sparselab.storage import record

ID = "0123456789ab"


def run_index(tmp_path: Path, **config: Any) -> RunIndex:
    record.write(tmp_path / ID, {"id": ID, "status": "finished", "config": config, "metrics": {}})
    return RunIndex(tmp_path)


def cell(*overrides: str) -> Cell:
    return Cell("row", "column", 0, overrides)


def test_seed_and_plug_ins_decide(tmp_path: Path):
    kept = run_index(tmp_path, seed=1, method={"name": "srste"}, model={"name": "vit"})
    assert kept.may_hold(cell("method=srste", "model=vit_s", "seed=1"))
    assert kept.may_hold(cell("method=srste"))  # neither a seed nor a model is said
    assert not kept.may_hold(cell("method=srste", "model=vit_s", "seed=2"))
    assert not kept.may_hold(cell("method=gmp", "model=vit_s", "seed=1"))
    assert not kept.may_hold(cell("method=srste", "model=mlp", "seed=1"))


def test_a_plug_in_within_another_counts_as_chosen(tmp_path: Path):
    """A spiking network's neuron, chosen as a group, stands among the options of the model in a record."""
    kept = run_index(tmp_path, seed=1, neuron=None, model={"name": "snn", "neuron": {"name": "ultralif"}})
    assert kept.may_hold(cell("model=snn", "neuron=ultralif", "seed=1"))
    assert not kept.may_hold(cell("model=snn", "neuron=lif", "seed=1"))
    other = run_index(
        tmp_path, seed=1, model={"name": "mlp"}, dataset={"name": "activations", "model": {"name": "gpt"}}
    )
    assert other.may_hold(cell("model=mlp", "seed=1")) and not other.may_hold(cell("model=gpt_tiny", "seed=1"))


def test_a_sound_record_is_kept_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = run_index(tmp_path, seed=1, method={"name": "srste"})
    assert kept.record(ID)["metrics"] == {} and "config" not in kept.record(ID)
    path = tmp_path / ID / "record.json"
    path.write_bytes(path.read_bytes().replace(b'"seed": 1', b'"seed": 2'))
    changed = RunIndex(tmp_path)
    assert changed.record(ID) is None and changed.may_hold(
        cell("method=srste", "seed=2")
    )  # the report says what is wrong


def test_what_is_not_told_is_no_reason(tmp_path: Path):
    kept = run_index(tmp_path, seed=1, method={"name": "srste"}, logger={"name": "csv"})
    assert kept.may_hold(cell("method=srste", "logger=wandb", "tier=cpu", "seed=1"))  # no part of what a cell is
    assert not kept.may_hold(cell("method=srste", "model=mlp", "seed=1"))  # an engine that reads no model
    assert kept.may_hold(cell("method=srste", "sparsity=1:4", "loss=[l1]", "trainer.max_epochs=3", "method=srste"))


def test_an_empty_or_missing_folder_holds_nothing(tmp_path: Path):
    (tmp_path / "0123456789ac").mkdir()
    assert not RunIndex(tmp_path).may_hold(cell("method=srste"))
    assert not RunIndex(tmp_path / "none").may_hold(cell("method=srste"))


def test_a_record_that_cannot_be_read_may_be_any_cells(tmp_path: Path):
    run_index(tmp_path, seed=1)
    path = tmp_path / ID / "record.json"
    whole = path.read_bytes()
    for broken in (whole[:-9], whole[:40], b"", b"\xff", whole.replace(b'"seed"', b'"soot"'), b"\0" * len(whole)):
        path.write_bytes(broken)
        assert RunIndex(tmp_path).may_hold(cell("method=gmp", "seed=5")), broken


def test_a_folder_that_is_not_ours_may_hold_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lost+found").mkdir()

    def shut(self: Path, **options: Any) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", shut)
    assert RunIndex(tmp_path).may_hold(cell("method=gmp"))


def test_names_in_files_are_those_that_are_composed():
    """What :func:`plugin` reads off a member's file is the name that Hydra gives the group with that member chosen."""
    found = {(group, member): plugin(group, member) for group, members in groups().items() for member in members}
    told = {key: name for key, name in found.items() if name is not None and key[0] not in ("paper", "tier")}
    assert len(told) > 90
    while told:  # several groups at once: composing takes a tenth of a second
        batch = dict(reversed(told))
        tree = tree_of([f"{group}={member}" for group, member in batch.items()])
        for group, member in batch.items():
            assert tree[group]["name"] == told.pop((group, member)), (group, member)


def test_the_ledger_plans_only_what_may_be_there(
    tmp_path: Path, configs: Path, table: Table, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
):
    one = next(e for e in entries if "method=srste" in e.cell.overrides and e.cell.seed == 1)
    folder = tmp_path / "runs" / one.id
    parts = {"seed": 1, "method": {"name": "srste"}, "dataset": {"name": "digits"}, "model": {"name": "mlp"}}
    record.write(folder, {**one.record, "config": parts})
    asked: list[list[str]] = []

    def cell_id(overrides: list[str]) -> str:
        asked.append(overrides)
        return one.id if overrides == list(one.cell.overrides) else "none"

    found = results.ledger(tmp_path / "results", tmp_path / "runs", configs, cell_id=cell_id)
    assert sum(summary.done for summary in found) == 1
    assert all("method=srste" in overrides and "seed=1" in overrides for overrides in asked)
    assert 0 < len(asked) < len(expand(table, "cpu"))
