"""Phases: weights of early points, masks of another cell under any method, and what of them does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparselab.core.errors import ConfigError
from sparselab.core.points import point_of, update_of
from sparselab.running.cell_ids import cell_id_of
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage import record

torch.set_num_threads(1)
COMMON = {
    "model": "mlp", "model.hidden": "[8]", "dataset.limit_train": 400, "dataset.limit_test": 200, "dataset.val": 0,
    "trainer.max_epochs": "null", "trainer.batch_size": 100, "trainer.precision": '"32"', "trainer.threads": 1,
    "trainer.progress": "none", "optim": "sgd", "optim.lr": 0.05, "optim.warmup": 0, "optim.schedule": "constant",
    "trainer.evals": 0,
}  # fmt: skip


def words(**more: object) -> list[str]:
    settings = {**COMMON, **{key.replace("__", "."): value for key, value in more.items()}}
    return [f"{key}={value}" for key, value in settings.items()]


def ref(take: str = "", **more: object) -> str:
    own = ", ".join(text.replace("=", ": ", 1) for text in words(**more))
    return f"{{cell: {{{own}}}{take}}}"


DENSE = {"method": "dense", "trainer__max_steps": 5, "trainer__keep_at": "[0, 2, 1epochs]"}
PRUNED = {
    "method": "magnitude",
    "sparsity": 0.75,
    "schedule__at": 0.5,
    "trainer__max_steps": 4,
    "distribution": "global",
}


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        plan_of(list(overrides))
    return "\n".join(map(str, error.value.issues))


def test_points():
    assert [point_of(value) for value in (0, "100", "2epochs", "1epoch", 3)] == ["0", "100", "2epochs", "1epochs", "3"]
    assert [point_of(value) for value in (-1, 1.5, "2 epochs", "x", True, None, "007")] == [None] * 7
    assert [update_of(point, 4) for point in ("0", "100", "2epochs")] == [0, 100, 8]


def test_rewinding_takes_early_weights_of_one_cell_and_the_masks_of_another(tmp_path, monkeypatch):
    """The whole chain: what is kept at an update is what a run of that length gives; and it is in the record, hashed."""
    monkeypatch.chdir(tmp_path)
    asked = words(method="ticket", sparsity=0.75, trainer__max_steps=0)
    plan = plan_of([*asked, f"model.weights={ref(', at: 2', **DENSE)}", f"targets.masks={ref(**PRUNED)}"])
    pruned, dense = plan.parent_plans
    assert dense.id != plan_of(words(method="dense", trainer__max_steps=5)).id
    assert plan.recorded_config()["model"]["weights"] == f"cell:{dense.id}@2"
    assert plan.recorded_config()["targets"]["masks"] == f"cell:{pruned.id}"
    assert cell_id_of(list(plan.overrides)) == plan.id
    for one in (
        dense,
        pruned,
        plan,
        *(short := [plan_of(words(method="dense", trainer__max_steps=k)) for k in (2, 4)]),
    ):
        assert run_cell(one) == 0
    kept = {point: load_file(f"{dense.folder}/model@{point}.safetensors") for point in ("0", "2", "1epochs")}
    for point, one in (("2", short[0]), ("1epochs", short[1])):
        there = load_file(f"{one.folder}/model.safetensors")
        assert all(torch.equal(kept[point][name], tensor) for name, tensor in there.items())
    assert not torch.equal(kept["0"]["layers.0.weight"], kept["2"]["layers.0.weight"])
    files = record.read(dense.folder, dense.id)["files"]
    assert {"model@0.safetensors", "model@2.safetensors", "model@1epochs.safetensors"} < files.keys()
    masks, rewound = (
        load_file(f"{one.folder}/{name}.safetensors") for one, name in ((pruned, "masks"), (plan, "model"))
    )
    for name, mask in masks.items():
        assert torch.equal(rewound[name], kept["2"][name] * mask)
    again = load_file(f"{plan.folder}/masks.safetensors")
    assert all(torch.equal(again[name], mask) for name, mask in masks.items())


def test_a_chain_trains_on_one_set_after_another(tmp_path, monkeypatch):
    """A sequence of tasks in one line: each starts from what the one before it left, and each is a cell of its own."""
    monkeypatch.chdir(tmp_path)
    task = {"method": "dense", "trainer__max_steps": 2}
    sizes = (400, 300, 200)
    chain = f", chain: {{dataset.limit_train: {[*sizes[:2]]}}}"
    plan = plan_of([*words(**task, dataset__limit_train=sizes[2]), f"model.weights={ref(chain, **task)}"])
    by_hand = plan_of([
        *words(**task, dataset__limit_train=sizes[2]),
        f"model.weights={ref('', **task, dataset__limit_train=300, model__weights=ref('', **task))}",
    ])  # fmt: skip
    (second,) = plan.parent_plans
    (first,) = second.parent_plans
    assert plan.id == by_hand.id == cell_id_of(list(plan.overrides)) and len({plan.id, second.id, first.id}) == 3
    assert [one.config["dataset"]["limit_train"] for one in (first, second, plan)] == [*sizes]
    for one in (first, second, plan):
        assert run_cell(one) == 0
    assert record.read(plan.folder, plan.id)["config"]["model"]["weights"] == f"cell:{second.id}"
    start = load_file(f"{first.folder}/model.safetensors")
    moved = [load_file(f"{one.folder}/model.safetensors") for one in (second, plan)]
    assert not any(torch.equal(start["layers.0.weight"], after["layers.0.weight"]) for after in moved)


def test_both_are_taken_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = words(method="ticket", sparsity=0.75, trainer__max_steps=1)
    plan = plan_of([*asked, f"model.weights={ref(', take: both', **PRUNED)}"])
    apart = plan_of([*asked, f"model.weights={ref(**PRUNED)}", f"targets.masks={ref(', take: masks', **PRUNED)}"])
    assert plan.id == apart.id and len(plan.parent_plans) == 1 and [place for place, _ in plan.parents] == [
        "model.weights", "targets.masks"]  # fmt: skip
    line = refused(*asked, f"model.weights={ref(', take: both', **PRUNED)}", f"targets.masks={ref(**PRUNED)}")
    assert "targets.masks: masks are said here and by model.weights.take=both — leave one of them out" in line


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (words(method="dense", trainer__max_steps=5, trainer__keep_at="[6]"),
         "trainer.keep_at=[6]: after the end of the run (5 updates) — at most 5"),
        (words(method="dense", trainer__max_steps=5, trainer__keep_at="[2epochs]"), "after the end of the run (5 updates)"),
        (words(method="dense", trainer__max_steps=5, trainer__keep_at="[soon]"), "soon is no point of a run"),
        (words(method="dense", trainer__max_steps=5, trainer__keep_at="[1epoch, 1epochs]"), "names a point twice"),
        ([*words(method="dense", trainer__max_steps=5), f"model.weights={ref(', at: 3', **DENSE)}"],
         "model.weights.at=3: the cell keeps no weights there — write trainer.keep_at: [3] in it"),
        ([*words(method="dense", trainer__max_steps=5), f"targets.masks={ref(**PRUNED)}"], "a dense cell has no masks"),
        ([*words(method="gmp", sparsity=0.75, trainer__max_steps=5), f"targets.masks={ref(**PRUNED)}"],
         "does not begin with its final masks"),
        ([*words(method="srste", sparsity="2:4", trainer__max_steps=5), f"targets.masks={ref(**PRUNED)}"],
         "targets.masks: method=srste makes new masks at every update, so these would be lost"),
        ([*words(method="ticket", sparsity=0.75, trainer__max_steps=5), f"targets.masks={ref(', take: weights', **PRUNED)}"],
         "targets.masks.take=weights: is about masks — write take: masks, or leave it out"),
        ([*words(method="ticket", sparsity=0.75, trainer__max_steps=5), f"method.source={ref(', take: masks', **PRUNED)}"],
         "method.source.take=masks: is about weights"),
        ([*words(method="ticket", sparsity=0.75, trainer__max_steps=5), f"targets.masks={ref(', at: 2', **DENSE)}"],
         "targets.masks.at=2: masks are those of the end of a run"),
        (["engine=inference", "model=llama_tiny", "dataset=stdlib", "activation=wina", "sparsity=0.5",
          f"model.weights={ref(', take: both', **PRUNED)}"], "engine=inference has no masks — take weights alone"),
    ],
)  # fmt: skip
def test_bad_phases(overrides, line):
    assert line in refused(*overrides)


def test_a_ticket_that_does_not_fit_is_refused_while_planning(tmp_path: Path):
    """Layers, shapes, kind and number of weights, of a file that is there; without torch."""
    path = tmp_path / "masks.safetensors"
    asked = [*words(method="ticket", sparsity=0.75, trainer__max_steps=1), f"targets.masks={path}"]
    plan = plan_of(asked[:-1])
    shapes = {layer.tensor: layer.shape for layer in plan.parts.layers}
    quarter = {name: torch.arange(torch.Size(shape).numel()).reshape(shape) % 4 == 0 for name, shape in shapes.items()}
    name = next(iter(shapes))
    for tensors, line in (
        ({}, f"has no mask of {name}"),
        ({**quarter, "head.weight": torch.ones(2, 2, dtype=torch.bool)}, "masks head.weight, not sparse here"),
        ({**quarter, name: quarter[name].float()}, f"{name} is F32, and a mask is bool"),
        ({**quarter, name: quarter[name][1:]}, f"shape of {name} is"),
        ({key: ~mask for key, mask in quarter.items()}, "write sparsity=0.25"),
    ):
        save_file(tensors, path)
        assert line in refused(*asked), line
    save_file(quarter, path)
    one = plan_of(asked).id
    quarter[name][0, :2] = torch.tensor([False, True])
    save_file(quarter, path)
    assert len({one, plan_of(asked).id, plan.id}) == 3  # the bytes of a file count
    assert "no such file" in refused(*asked[:-1], "targets.masks=nowhere.safetensors")
