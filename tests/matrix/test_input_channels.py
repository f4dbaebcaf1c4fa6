"""Input channels of convolutions in a whole run: the same share of every layer, whole, and counted."""

from __future__ import annotations

import pytest
from matrix_cells import Row, config_of

from sparselab.running.planning import engine_of
from sparselab.running.run_cell import run_cell
from sparselab.storage import record

RESNET = ("model=resnet20", "dataset=digits", "optim=sgd", "targets.exclude=[@head,@stem]")
SIZE = {"depth": 8, "width": 4}


@pytest.mark.parametrize(("method", "schedule"), [("bip", "constant"), ("hydra_mask", "constant"), ("imp", "rounds")])
@pytest.mark.parametrize("kind", ["in_channel", "channel"])
def test_every_layer_loses_the_same_share(method, schedule, kind, run):
    finished = run(
        Row(method, kind, schedule), *RESNET, model=SIZE, schedule={} if schedule == "constant" else {"rounds": 2}
    )
    assert len(finished.sparsifier.slots) == 6
    for slot in finished.sparsifier.slots:
        axis = int(kind == "in_channel")
        units = slot.mask.transpose(0, axis).flatten(1)
        assert bool((units.any(1) == units.all(1)).all()) and 2 * int(units.all(1).sum()) == len(units)


def test_the_record_counts_what_the_network_no_longer_reads(tmp_path):
    config = config_of(Row("magnitude", "in_channel", "one_shot"), tmp_path, *RESNET, model=SIZE)
    plan = engine_of(config).plan(config, [])
    assert run_cell(plan) == 0
    found = record.read(plan.folder, plan.id)
    assert found["sparsity"]["requested"] == "in_channel:0.5" and found["sparsity"]["realised"] == 0.5
    sparse = {layer["name"].removesuffix(".weight") for layer in found["sparsity"]["layers"]}
    for layer in found["account"]["layers"]:
        assert layer["macs"] * (2 if layer["name"] in sparse else 1) == layer["macs_dense"]
    assert found["account"]["macs"] == plan.cost["macs"]
