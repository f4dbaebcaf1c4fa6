"""Layers with patterns of their own, under every method: the invariant, counts and records know each layer's."""

from __future__ import annotations

import copy

import pytest
import torch
from matrix_cells import SPARSITIES, Row, Watch, config_of, rows

from sparselab.core.errors import ConfigError
from sparselab.core.sparsity import Sparsity
from sparselab.running.planning import engine_of
from sparselab.running.run_cell import run_cell
from sparselab.training.slots import make_sparsifier
from sparselab.weights.method import METHODS
from sparselab.weights.schedules import SCHEDULES

OWN = {
    "unstructured": 0.5,
    "nm": "1:4",
    "block": "block:2x2:0.25",
    "channel": "channel:0.25",
    "in_channel": "in_channel:0.25",
}
LAYER = "layers.1"
VIT = {"width": 16, "depth": 1, "heads": 2, "patch": 4}
SPLIT = {"name": "split_qkv"}


def kinds_of(method: str, schedule: str) -> list[str]:
    return [kind for kind in OWN if kind in METHODS[method].patterns and kind in SCHEDULES[schedule].patterns]


PAIRS = sorted({(method, row.schedule) for method in METHODS for row in rows(method) if row.kind != "dense"})


@pytest.mark.parametrize(("method", "schedule"), PAIRS, ids=str)
def test_two_kinds_under_every_method_and_schedule(method, schedule, run):
    """``matrix_cells.check`` looks at every slot after every batch; one layer of two has a kind of its own."""
    kinds = kinds_of(method, schedule)
    for own in {"nm", "in_channel"} & {*kinds} or kinds:  # the most unlike the others
        finished = run(Row(method, kinds[0], schedule), targets={"patterns": {LAYER: OWN[own]}})
        found = {slot.layer.name: slot.pattern.sparsity for slot in finished.sparsifier.slots}
        assert found == {"layers.0": Sparsity.parse(SPARSITIES[kinds[0]]), LAYER: Sparsity.parse(OWN[own])}


def test_weights_kept_by_chance_have_a_density_of_their_own_too(run):
    row, options = Row("random", "unstructured", "constant"), {"method": {"draw": "bernoulli"}}
    finished = run(row, "distribution=uniform", **options, targets={"patterns": {LAYER: 0.25}})
    density = {slot.layer.name: slot.kept / slot.mask.numel() for slot in finished.sparsifier.slots}
    assert abs(density["layers.0"] - 0.25) < 0.1 and abs(density[LAYER] - 0.75) < 0.2
    with pytest.raises(ConfigError) as refused:
        run(row, "distribution=uniform", **options, targets={"patterns": {LAYER: "2:4"}})
    assert str(refused.value) == (
        "targets.patterns.layers.1=2:4: with these options method=random keeps each weight by itself, not by N:M — "
        "write method.draw=exact"
    )


def test_the_record_says_what_each_layer_was_asked_for_and_has(tmp_path):
    config = config_of(Row("srste", "nm", "constant"), tmp_path, targets={"patterns": {LAYER: "1:8"}})
    plan = engine_of(config).plan(config, [])
    assert run_cell(plan) == 0
    from sparselab.storage import record

    found = record.read(plan.folder, plan.id)["sparsity"]
    assert found["requested"] == "2:4, layers.1 1:8" and found["pattern_holds"]
    assert [(x["name"], x["pattern"], x["density"]) for x in found["layers"]] == [
        ("layers.0.weight", "2:4", 0.5), ("layers.1.weight", "1:8", 0.125),
    ]  # fmt: skip
    assert found["realised"] == 1 - (0.5 * 1024 + 0.125 * 128) / (1024 + 128)
    from sparselab.cli.inspect import examine

    rows = {row.name: row for row in examine(tmp_path / plan.id).rows}
    assert not any(row.broken for row in rows.values())
    assert rows["layers.1.weight"].requested == "1:8: 16 of 16"


PROGRESSIVE = sorted(
    (row.method, row.schedule)
    for method in ("ste", "srste", "mdgf", "sdgf")
    for row in rows(method)
    if row.kind == "nm"
)


@pytest.mark.parametrize(("method", "schedule"), PROGRESSIVE, ids=str)
def test_one_layer_or_three_of_the_same_pattern_train_alike(method, schedule, run):
    """Groups run along inputs, so the mask of a fused layer is the masks of its thirds, at every update."""
    trained = []
    for change, roles in ((None, ["@qkv"]), (SPLIT, ["@q", "@k", "@v"])):
        finished = run(
            Row(method, "nm", schedule), "model=vit_s", "optim=sgd",  # Adam would blow up the bias of keys, which is noise
            model={**VIT, "transform": change}, targets={"include": [*roles, "@ff"], "exclude": []},
        )  # fmt: skip
        trained.append(finished)
    fused, apart = (finished.state for finished in trained)
    path = "blocks.0.attn.qkv"
    for kind in ("weight", "bias"):
        together = torch.cat([apart[f"{path}.{letter}.{kind}"] for letter in "qkv"])
        torch.testing.assert_close(together, fused[f"{path}.{kind}"], rtol=1e-4, atol=1e-6)
    masks = [finished.sparsifier.masks() for finished in trained]
    assert torch.equal(torch.cat([masks[1][f"{path}.{letter}.weight"] for letter in "qkv"]), masks[0][f"{path}.weight"])
    assert trained[0].metrics["test.accuracy"] == trained[1].metrics["test.accuracy"]


def test_a_resumed_run_has_the_structure_that_each_layer_was_at(run):
    """1:4 goes through 3:4, 2:4, 1:4 and 1:8 through 7:8, 4:8, 2:8, 1:8: at update 4 they are at different places."""
    seen = {}

    def after(loop):
        sparsifier = loop.sparsifier
        patterns = [str(slot.pattern.sparsity) for slot in sparsifier.slots]
        seen[loop.trainer.global_step] = copy.deepcopy(sparsifier.state_dict()), patterns, loop

    groups = {"targets": {"patterns": {LAYER: "1:8"}}, "watch": Watch(after=after)}
    finished = run(Row("sdgf", "nm", "stepwise"), **groups)
    assert len({tuple(patterns) for _, patterns, _ in seen.values()}) >= 4
    for state, patterns, loop in seen.values():
        network = copy.deepcopy(finished.task.network)
        again = make_sparsifier(loop.parts, network)
        again.load_state_dict(state)
        assert [str(slot.pattern.sparsity) for slot in again.slots] == patterns


def test_queries_and_keys_alone(run):
    finished = run(
        Row("mdgf", "nm", "mask_linear"), "model=vit_s",
        model={**VIT, "transform": SPLIT},
        targets={"include": ["@ff", "@q", "@k"], "exclude": [], "patterns": {"@q": "1:4", "@k": "1:8"}},
    )  # fmt: skip
    density = {name: float(mask.float().mean()) for name, mask in finished.sparsifier.masks().items()}
    assert density == {
        "blocks.0.attn.qkv.q.weight": 0.25, "blocks.0.attn.qkv.k.weight": 0.125,
        "blocks.0.mlp.fc1.weight": 0.5, "blocks.0.mlp.fc2.weight": 0.5,
    }  # fmt: skip
    assert torch.count_nonzero(finished.state["blocks.0.attn.qkv.v.weight"]) == 256
