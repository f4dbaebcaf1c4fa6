"""``trainer.precision=auto``: settled while a cell is planned, printed, and held by record and id."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparselab.cli import main
from sparselab.core import processor
from sparselab.core.errors import ConfigError
from sparselab.running.cell_ids import cell_id_of
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell

ABLE = processor.AVX512 | {"avx512_bf16"}
KINDS = {"able": ABLE, "emulates": processor.AVX512, "old": frozenset({"avx2"})}
CELL = ["method=dense", "model=mlp", "model.hidden=[8]", "dataset=digits", "trainer.accelerator=cpu",
        "trainer.max_epochs=null", "trainer.max_steps=2", "trainer.evals=1", "trainer.progress=none"]  # fmt: skip
LSTM = ["method=dense", "model=lstm", "dataset=stdlib", "trainer.accelerator=cpu"]

pytestmark = pytest.mark.instructions


@pytest.fixture
def machine(monkeypatch):
    """``machine("old")``: from there on this is such a processor."""
    monkeypatch.delenv(processor.ASKED, raising=False)
    return lambda kind: monkeypatch.setattr(processor, "processor_flags", lambda: KINDS[kind])


@pytest.mark.parametrize(("kind", "meant"), [("able", "bf16"), ("emulates", "32"), ("old", "32")])
def test_auto_is_settled_by_the_processor_and_the_id_holds_it(kind, meant, machine):
    machine(kind)
    plan = plan_of(CELL)
    assert plan.config["trainer"]["precision"] == plan.recorded_config()["trainer"]["precision"] == meant
    pinned = [*CELL, f"trainer.precision={meant}"]
    assert plan.id == plan_of(pinned).id == cell_id_of(CELL) == cell_id_of(pinned)
    assert plan.id != plan_of([*CELL, f"trainer.precision={'32' if meant == 'bf16' else 'bf16'}"]).id
    told = dict(plan.facts)["precision"]
    assert told.startswith(f"{meant} (auto: the processor ") and dict(plan_of(pinned).facts)["precision"] == meant


def test_a_cell_to_start_from_is_settled_too(machine):
    start = f"model.weights='cell:{' '.join(CELL)}'"
    ids = {}
    for kind in ("able", "old"):
        machine(kind)
        plan = plan_of([*CELL, "trainer.precision=32", start])
        ids[kind] = plan.id
        assert plan.parent_plans[0].config["trainer"]["precision"] == ("bf16" if kind == "able" else "32")
        assert cell_id_of([*CELL, "trainer.precision=32", start]) == plan.id
    assert ids["able"] != ids["old"]


def test_a_record_holds_what_it_was_settled_to_and_the_summary_prints_it(machine, tmp_path, capsys):
    machine("old")
    plan = plan_of([*CELL, f"runs_dir={tmp_path}"])
    assert run_cell(plan) == 0
    record = json.loads(Path(plan.folder, "record.json").read_text())
    assert record["config"]["trainer"]["precision"] == "32"
    assert any(line.split() == ["precision", "32"] for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("kind", "precision", "needs"),
    [
        ("old", "bf16", "AVX-512"),
        ("old", "16", "avx512_fp16"),
        ("emulates", "16", "avx512_fp16"),
        ("emulates", "bf16", None),
        ("able", "bf16", None),
        ("old", "32", None),
        ("old", "auto", None),
        ("emulates", "auto", None),
        ("able", "auto", None),
    ],
)
def test_an_lstm_takes_a_precision_that_runs_or_is_refused_in_a_line(kind, precision, needs, machine, capsys):
    machine(kind)
    assert main.main(["check", *LSTM, f"trainer.precision={precision}"]) == (2 if needs else 0)
    line = (
        f"trainer.precision={precision}: model=lstm needs a processor with {needs} for it"
        " — write trainer.precision=32, or auto\n"
    )
    assert capsys.readouterr().err == (line if needs else "")


def test_an_lstm_within_a_network_of_a_library_is_found_once_it_is_built(machine):
    import torch

    from sparselab.training.precision import check_network

    options = plan_of([*CELL, "trainer.precision=bf16"]).parts.cell.trainer
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.LSTM(2, 2)))
    machine("able")
    check_network(network, options)
    machine("old")
    check_network(network[0], options)
    with pytest.raises(
        ConfigError, match=r"trainer.precision=bf16: an LSTM of the model needs a processor with AVX-512"
    ):
        check_network(network, options)
