"""SparCL (arXiv 2209.09476): what its dossier says can be checked exactly.

The items are numbered as there: 1 FLOPs in closed form and the share of the data, 2 sparsities of the schedule, 3 importance,
4 new connections, 5 gradient masks, 6 classes of other tasks (tests/training/scenarios), 7 forgetting events
(tests/training/removals), 8 the reservoir and 9 both views of accuracy (tests/training/scenarios).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from data_specs import image_data
from torch import nn, tensor

from sparselab.core.errors import ConfigError
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load
from sparselab.inputs.models.family import MODELS
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage.checkpoints import Checkpoints
from sparselab.training.loop.loop import Loop
from sparselab.training.removals.removal import REMOVALS
from sparselab.weights.cost import forward_flops, train_flops
from sparselab.weights.method import METHODS
from sparselab.weights.methods.task_aware import importance, moving
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.schedules import SCHEDULES
from sparselab.weights.slot import Slot
from sparselab.weights.sparsifier import Sparsifier
from sparselab.weights.targets import select
from sparselab.weights.task_schedule import TaskSchedule

torch.set_num_threads(1)

EPOCHS = tuple(range(2, 102, 2))  # fifty epochs of two updates


# -- 1: FLOPs --------------------------------------------------------------------------------------------------------------


def spec_and_layers(pixels, classes):
    family = MODELS["resnet"](MODELS["resnet"].Options(depth=18))
    spec = family.model_spec(image_data((3, pixels, pixels), classes))
    return spec, select(spec, ["*"], ["@stem", "@head", "@downsample"])


@pytest.mark.parametrize(
    ("pixels", "classes", "visits", "wanted"),
    [(32, 10, 50_000 * 50, (8.331e15, 1.111e16, 1.389e16)), (64, 200, 100_000 * 100, (1.333e17, 1.777e17, 2.222e17))],
)
def test_1_dense_flops(pixels, classes, visits, wanted):
    """Three, four and five passes: no replay, ER, DER++. At 64 pixels three digits are known, 13.3, 17.8 and 22.2e16."""
    spec, _ = spec_and_layers(pixels, classes)
    trained, forward = train_flops(spec, [(0, {})], visits, "dense", steps=1), forward_flops(spec, [(0, {})], visits, 1)
    assert [trained + n * forward for n in (0, 1, 2)] == pytest.approx(wanted, rel=1.5e-3 if pixels == 64 else 5e-4)


def test_1_sparse_flops():
    """With p of the multiply-accumulates prunable: p ((n + 1)(1 - s) + 1 - g) + (1 - p)(n + 2), n forward passes."""
    spec, layers = spec_and_layers(32, 10)
    p, visits = sum(layer.macs for layer in layers) / spec.macs, 50_000 * 50
    assert len(layers) == 16 and spec.macs == pytest.approx(555.4e6, rel=1e-4) and p == pytest.approx(0.9855, abs=5e-5)
    removal = REMOVALS["forgetting"](REMOVALS["forgetting"].Options())
    assert removal.share_seen(10_000, 50) == pytest.approx(0.775)
    for sparsity, gradient, share, printed in (
        (0.75, None, 1.0, 3.62e15), (0.9, None, 1.0, 1.57e15), (0.95, None, 1.0, 0.89e15), (0.75, 0.8, 0.775, 2.70e15),
    ):  # fmt: skip
        kept = {layer.name: round((1 - sparsity) * layer.numel) for layer in layers}
        moved = {} if gradient is None else {x.name: round((1 - gradient) * x.numel) for x in layers}
        seen = int(visits * share)
        counted = train_flops(spec, [(0, kept)], seen, "kept", steps=1, moved=moved)
        counted += 2 * forward_flops(spec, [(0, kept)], seen, 1)
        units = p * (4 * (1 - sparsity) + 1 - (sparsity if gradient is None else gradient)) + (1 - p) * 5
        assert counted == pytest.approx(units * 2 * spec.macs * visits * share, rel=1e-4)
        assert counted == pytest.approx(printed, rel=6e-3)  # two or three digits


def test_1_a_mask_keeps_fewer_than_an_update_may_move():
    spec, layers = spec_and_layers(32, 10)
    kept, moved = {layers[0].name: 100}, {layers[0].name: 200}
    plain, more = (train_flops(spec, [(0, kept)], 8, "kept", steps=3, moved=m) for m in ({}, moved))
    assert plain == more


# -- 2 and 4: masks ----------------------------------------------------------------------------------------------------------


def schedule(**options):
    made = SCHEDULES["breathing"](SCHEDULES["breathing"].Options(**options), Sparsity.parse("0.75"))
    made.epochs = EPOCHS
    return made


def test_2_when_masks_are_made():
    one = schedule()
    assert one.updates(100) == [0, *range(10, 91, 10)] and not one.issues(100)
    whole = TaskSchedule(one, (100, 200), (EPOCHS, EPOCHS))
    assert whole.updates(200) == [0, *range(10, 91, 10), *range(110, 191, 10)]
    later = TaskSchedule(one, (100, 150), (EPOCHS, tuple(range(1, 51))))  # a task of shorter epochs
    assert later.updates(150)[10:] == [*range(105, 150, 5)]


def test_2_epochs_that_grow_shorter_are_followed():
    one = schedule(every="1epochs", stop=0.8)
    one.epochs = (10, 19, 27, 34, 41)
    assert one.updates(41) == [0, 10, 19, 27, 34]
    assert schedule(every=4, stop=0.3).updates(41) == [0, 4, 8, 12]


def network(seed=0, ends=(100, 200), **options):
    """Two layers of a sparsity of 0.75 that learn two tasks of fifty epochs."""
    torch.manual_seed(seed)
    kind, slots = METHODS["sparcl"], []
    for name, shape in (("a", (37, 30)), ("b", (10, 37))):
        layer, param = Layer(name, "linear", shape, 1), nn.Parameter(torch.randn(shape))
        pattern = Pattern.of(Sparsity.parse("0.75"), "linear", "in")
        slots.append(Slot(layer, param, pattern, torch.ones(shape, dtype=torch.bool)))
    sizes = {slot.layer.name: slot.mask.numel() for slot in slots}
    way = TaskSchedule(schedule(), ends, (EPOCHS,) * len(ends))

    def allocate(level, scores):
        return {name: size - round(level * (size - round(0.25 * size))) for name, size in sizes.items()}

    made = Sparsifier(kind(kind.Options(**options)), slots, way, allocate, ends[-1], seed)
    made.begins, made.epochs = (0, *ends[:-1]), tuple(range(0, ends[-1], 2))
    return made


def updates(made, first, last, look=lambda step: None):
    optimizer = torch.optim.SGD([slot.param for slot in made.slots], lr=0.03)
    a, b = (slot.param for slot in made.slots)
    for step in range(first + 1, last + 1):
        inputs, wanted = torch.randn(8, 30), torch.randn(8, 10)
        optimizer.zero_grad()
        ((inputs @ a.T).relu() @ b.T - wanted).square().mean().backward()
        made.before_step(step, optimizer)
        optimizer.step()
        made.after_step(step, optimizer)
        look(step)
    return optimizer


def near(made, sparsity):
    for slot in made.slots:
        assert abs(int((~slot.mask).sum()) - sparsity * slot.mask.numel()) <= 1, (slot.name, sparsity)


def test_2_sparsities_within_a_task():
    """After the update of epoch 0: 0.74. Of epochs 5 to 40: 0.75. Of epoch 45: 0.75. And again in the second task."""
    made = network()
    made.start()
    near(made, 0.74)

    def look(step):
        near(made, 0.74 if 0 < step % 100 < 10 else 0.75)

    optimizer = updates(made, 0, 100, look)
    made.end_task(0)
    made.begin_task(1, 100, optimizer)
    near(made, 0.74)
    updates(made, 100, 200, look)


def test_2_the_first_mask_is_magnitude_with_room():
    made = network()
    dense = [slot.param.detach().clone() for slot in made.slots]
    made.start()
    for slot, before in zip(made.slots, dense, strict=True):
        stay = slot.param != 0
        count = int(stay.sum())
        assert abs(count - 0.25 * slot.mask.numel()) <= 1 and torch.equal(slot.param[stay], before[stay])
        assert before.abs()[stay].min() > before.abs()[~stay].max()


def test_4_new_connections_are_zero_and_what_leaves_is_least():
    """Pruned to 0.76, never further: 0.02 leave at the first exchange, 0.01 later; as many grow, with a weight of zero."""
    made = network(gradient_sparsity=None)
    made.start()
    before = {}

    def look(step):
        for slot in made.slots:
            size = slot.mask.numel()
            if step in (10, 20, 90):
                mask, weight = before[slot.name]
                scores = importance(weight, slot.param.grad, 0.5)
                stay = mask & slot.mask & (slot.param != 0)
                gone = mask & ~stay
                left = {10: 0.02, 20: 0.01, 90: 0.0}[step]
                assert abs(int(gone.sum()) - left * size) <= 2
                assert int(stay.sum()) >= 0.24 * size - 1
                if gone.any():
                    assert scores[stay].min() >= scores[gone].max()
                assert bool((slot.param[slot.mask & ~stay] == 0).all()) and torch.equal(slot.param[stay], weight[stay])

    def follow(step):
        look(step)
        for slot in made.slots:
            before[slot.name] = slot.mask.clone(), slot.param.detach().clone()

    a, b = (slot.param for slot in made.slots)
    optimizer = torch.optim.SGD([a, b], lr=0.03)
    for step in range(1, 100):
        optimizer.zero_grad()
        inputs = torch.randn(8, 30)
        ((inputs @ a.T).relu() @ b.T - torch.randn(8, 10)).square().mean().backward()
        made.before_step(step, optimizer)
        optimizer.step()
        for slot in made.slots:  # what the mask is made of
            before[slot.name] = slot.mask.clone(), slot.param.detach().clone()
        made.after_step(step, optimizer)
        look(step)


# -- 3 and 5: importance and gradients ----------------------------------------------------------------------------------------


def test_3_importance():
    scores = importance(tensor([1, 0, 0.1, 0.3]), tensor([0.0, 0, 2, 0]), 0.5)
    assert scores.tolist() == pytest.approx([1, 0, 1.1, 0.3])
    assert sorted(scores.topk(2).indices.tolist()) == [0, 2]
    assert importance(tensor([1.0, -2]), None, 0.5).tolist() == [1, 2]


def test_5_a_gradient_mask_is_numpys_percentile():
    grads = torch.arange(1.0, 11.0)
    assert np.percentile(grads.numpy(), 80) == pytest.approx(8.2) and grads[moving(grads, 0.8)].tolist() == [9, 10]
    torch.manual_seed(0)
    for size, zeros, sparsity in ((999, 0, 0.8), (1000, 750, 0.8), (640, 576, 0.9), (11, 0, 0.8), (100, 95, 0.9)):
        grads = torch.randn(size)
        grads[:zeros] = 0
        under = grads.abs().numpy() < np.percentile(grads.abs().numpy(), 100 * sparsity)
        assert torch.equal(moving(grads, sparsity), torch.from_numpy(~under) & (grads != 0))


def test_5_weights_move_by_a_pattern_that_is_chosen_now_and_then():
    """Anew in the first update of an epoch and every third from there; between, the same weights move. All is in the mask."""
    made = network(redraw_every=3)
    made.epochs = (0, 7)  # one epoch of seven updates, one that is longer
    made.start()
    seen = {}

    def look(step):
        moves = made.slots[0].state["moving"]
        assert bool((made.slots[0].mask | ~moves).all()) and abs(int(moves.sum()) - 0.2 * moves.numel()) <= 1
        assert torch.equal(made.slots[0].param.grad != 0, moves) or step % 3 != 1
        assert not bool((made.slots[0].param.grad != 0)[~moves].any())
        seen[step] = moves.clone()

    updates(made, 0, 9, look)
    same = [torch.equal(seen[step], seen[step + 1]) for step in range(1, 9)]
    assert same == [True, True, False, True, True, False, False, True]  # chosen at 1, 4, 7 and 8


# -- whole runs --------------------------------------------------------------------------------------------------------------

SHARED = (
    "method=sparcl", "sparsity=0.75", "model=mlp", "model.hidden=[24,24]", "dataset=digits", "dataset.val=0",
    "dataset.limit_train=300", "dataset.limit_test=100", "scenario=class_incremental", "scenario.among=task", "loss=[derpp]",
    "loss.derpp.buffer=40", "loss.derpp.batch=10", "removal=forgetting", "removal.every=1", "removal.until=3", "optim=sgd",
    "optim.lr=0.03", "optim.momentum=0.0", "optim.warmup=0.0", "optim.schedule=constant", "trainer.max_epochs=5",
    "trainer.batch_size=10", "trainer.threads=1", "trainer.precision=32", "trainer.evals=0", "trainer.progress=none",
    "trainer.accelerator=cpu", "schedule.every=1epochs", "schedule.stop=0.8", "method.redraw_every=4",
)  # fmt: skip


def record_of(folder, *words):
    assert run_cell(plan_of([*SHARED, *words, "trainer.checkpoint_every=5", f"runs_dir={folder}"])) == 0
    return json.loads(next(folder.glob("*/record.json")).read_text())


def test_resumed_in_the_middle_of_a_task_is_unbroken(tmp_path, monkeypatch):
    """Crash in the second task, in a shortened epoch, between two gradient masks: the same numbers and the same bits."""
    monkeypatch.setattr(Checkpoints, "clear", lambda store: None)
    want = record_of(tmp_path / "whole")
    after = Loop.on_train_batch_end

    def dies(loop, trainer, *args):
        after(loop, trainer, *args)
        if trainer.global_step == 33:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(BaseException):  # noqa: B017 (as a kill would)
        patch.setattr(Loop, "on_train_batch_end", dies)
        record_of(tmp_path / "broken")
    got = record_of(tmp_path / "broken")
    assert got["metrics"] == want["metrics"] and got["account"] == want["account"]
    whole, broken = (next((tmp_path / run).glob("*/model.safetensors")).read_bytes() for run in ("whole", "broken"))
    assert whole == broken
    account, data = want["account"], want["metrics"]["train.data"]
    assert want["sparsity"]["realised"] >= 0.74 and data == pytest.approx(23 / 30)  # batches of 60, 54, 48, 42 and 42
    assert account["flops_train"] < account["flops_replay"] < 5 * account["flops_train_dense"] / 3


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["method.gradient_sparsity=1.5"], "method.gradient_sparsity=1.5: input should be less than 1"),
        (["schedule.room=0.8"], "schedule.room=0.8: as much as the request removes (0.75), or more"),
        (["schedule.exchange=0.25"], "schedule.exchange=0.25: as much as the request keeps (0.25), or more"),
        (["schedule.every=5epochs"], "schedule.every=5epochs: no mask after the first: 5 epochs"),
        (["schedule.every=never"], "schedule.every=never: is no length of time"),
        (["loss.derpp.buffer=301"], "loss.derpp.buffer=301: the tasks have 300"),
    ],
)
def test_refusals(words, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*SHARED, *words])
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


# -- the table ---------------------------------------------------------------------------------------------------------------


def test_claims_have_their_seeds_and_rows_of_equal_cost():
    """Five seeds at least, as a verdict takes; dense training for a fifth of the epochs costs what SparCL does, within 11 %."""
    (table,) = load("sparcl")
    assert all(len(table.tiers[tier].seeds) >= 5 for tier in ("cpu", "gpu", "paper"))
    front = next(claim for claim in table.claims if claim.id == "front")
    cost = {}
    for tier in ("cpu", "gpu", "paper"):
        for cell in expand(table, tier):
            row, column = cell.place
            if cell.seed == 0 and row in (front.a.row, front.b.row) and column in front.columns:
                cost[tier, column, row] = plan_of([*cell.overrides]).cost["flops_replay"]
    compared = {place[:2] for place in cost}
    assert len(compared) == 4
    for place in compared:
        assert cost[(*place, front.a.row)] == pytest.approx(cost[(*place, front.b.row)], rel=0.11)
