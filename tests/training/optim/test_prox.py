"""Proximal steps after the optimiser's: groups of every kind, levels by layer, and what they leave of a network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparselab.core.errors import ConfigError, Stopped
from sparselab.core.model_spec import Layer
from sparselab.running.planning import plan_of
from sparselab.training.loop.stopping import StopFlag
from sparselab.training.optim.prox import made
from sparselab.training.optim.torch_side.envelope import factors
from sparselab.training.optim.torch_side.groups import norms
from sparselab.training.runner import execute

CELL = [
    "model=convnet", "model.widths=[6,8]", "model.pools=[1,2]", "dataset=digits", "trainer=digits", "method=dense", "optim=sgd",
    "optim.lr=0.1", "optim.weight_decay=0", "trainer.clip=null", "trainer.max_epochs=null", "trainer.max_steps=8",
    "trainer.batch_size=16", "trainer.evals=1", "trainer.progress=none", "trainer.accelerator=cpu", "trainer.threads=1",
    'trainer.precision="32"', "targets.exclude=[@head]",
]  # fmt: skip
CONV = Layer("conv", "conv", (4, 3, 2, 2), 0)


def on(groups, weight=None, name="wgsef", layers=(CONV,), **options):
    step = made({"name": name, "groups": groups, **options})
    weights = {}
    for layer in layers:
        torch.manual_seed(len(weights))
        weights[layer] = nn.Parameter(torch.randn(layer.shape, dtype=torch.float64) if weight is None else weight)
    step.attach(weights)
    return step, weights


@pytest.mark.parametrize(("groups", "dims", "count"), [
    ("filter", (1, 2, 3), 4), ("channel", (0, 2, 3), 3), ("filter_shape", (0,), 12), ("weight", (), 48),
])  # fmt: skip
def test_a_group_moves_along_its_own_direction_by_the_step_of_the_norms(groups, dims, count):
    """Item groups: prox of a grouped vector = direction of each group times the prox of the norms."""
    step, weights = on(groups, weight=None, keep=0.5)
    param = weights[CONV]
    before = param.data.clone()
    size = before.square().sum(dims, keepdim=True).sqrt() if dims else before.abs()
    assert len(norms(step.blocks[0])) == count == step.blocks[0].count
    expected = before * factors(size.flatten(), 0.3, max(1, round(0.5 * count))).view(size.shape)
    step.after(0.3 / step.options.weight, 1, 10)
    torch.testing.assert_close(param.data, expected)


def test_whole_layers_are_the_groups_of_the_network():
    layers = (CONV, Layer("second", "conv", (2, 4, 1, 1), 0), Layer("third", "linear", (5, 6), 0))
    step, weights = on("layer", layers=layers, weight=None, keep=0.34)
    (blocks,) = step.blocks
    assert blocks.count == 3 and blocks.level == 1
    before = [param.data.clone() for param in weights.values()]
    found = factors(torch.stack([value.norm() for value in before]), 1.0, 1)
    step.after(1.0 / step.options.weight, 1, 10)
    for param, value, factor in zip(weights.values(), before, found, strict=True):
        torch.testing.assert_close(param.data, value * factor)


def test_rectangles_and_levels_by_layer():
    step, _ = on("block:2x4", levels={"conv": 3})
    assert step.blocks[0].count == 6 and step.blocks[0].level == 3
    step, _ = on("filter", levels={"@stem": 2}, layers=(Layer("conv", "conv", (4, 3, 2, 2), 0, frozenset({"stem"})),))
    assert step.blocks[0].level == 2
    assert on("filter", keep=0.01)[0].blocks[0].level == 1, "one stays"


def test_group_lasso_and_projection_by_hand():
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], dtype=torch.float64)
    layer = Layer("fc", "linear", (3, 2), 0)
    step = made({"name": "group_lasso", "weight": 1.0})
    param = nn.Parameter(weight.clone())
    step.attach({layer: param})
    step.after(1.0, 1, 10)
    torch.testing.assert_close(param.data, torch.tensor([[2.4, 3.2], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64))
    step = made({"name": "hard", "levels": {"fc": 1}})
    param = nn.Parameter(weight.clone())
    step.attach({layer: param})
    step.after(1.0, 1, 10)
    assert torch.equal(param.data, weight * torch.tensor([[1.0], [0.0], [0.0]]))
    told = step.measures()
    assert told["groups_zero"] == pytest.approx(2 / 3) and told["levels_met"] == 1 and told["group_norm"] == 5


def test_half_space_steps_by_hand():
    """HSPG: a group that the step turned around is zero, and one that was zero stays so; only from the fraction on."""
    layer = Layer("fc", "linear", (3, 2), 0)
    param = nn.Parameter(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    step = made({"name": "group_lasso", "weight": 0.0, "half_space": 0.5, "half_space_eps": 0.1})
    step.attach({layer: param})
    moved = torch.tensor([[0.2, 5.0], [0.05, 5.0], [1.0, 1.0]])
    step.before(5, 10)
    param.data.copy_(moved)
    step.after(0.1, 5, 10)
    assert torch.equal(param.data, moved), "not yet"
    param.data.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    step.before(6, 10)
    param.data.copy_(moved)
    step.after(0.1, 6, 10)
    assert torch.equal(param.data, moved * torch.tensor([[1.0], [0.0], [0.0]]))


def trained(folder, *words):
    return execute(plan_of([*CELL, f"runs_dir={folder}", *words]))


def test_a_run_ends_with_as_many_filters_as_it_was_told(tmp_path):
    """Levels by layer are met where lambda is large, weights that are no targets are left alone, and the record says so."""
    found = trained(tmp_path, "optim.prox={name: wgsef, weight: 50.0, keep: 0.5, levels: {convs.1: 3}, revive: false}")
    alive = [int((found.state[f"convs.{i}.weight"].flatten(1).norm(dim=1) > 0).sum()) for i in (0, 1)]
    assert alive == [3, 3] and (found.state["head.weight"] != 0).all()
    assert found.metrics["train.levels_met"] == 1 and found.metrics["train.groups_zero"] == pytest.approx(8 / 14)


def test_a_group_that_is_zero_comes_back_or_not():
    layer = Layer("fc", "linear", (2, 2), 0)
    for revive in (True, False):
        param = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        step = made({"name": "hard", "revive": revive})
        step.attach({layer: param})
        step.before(1, 10)
        param.data.add_(1.0)
        step.after(0.1, 1, 10)
        assert bool(param.data[1].any()) is revive and bool(param.data[0].all())


def test_no_weight_is_no_step_and_masks_stay(tmp_path):
    plain = trained(tmp_path / "a").state
    none = trained(tmp_path / "b", "optim.prox={name: wgsef, weight: 0.0}").state
    assert all(torch.equal(plain[name], none[name]) for name in plain)
    words = ["method=srste", 'sparsity="2:4"', "targets.exclude=[@head, @stem]", "targets.axis=out"]
    masked = trained(tmp_path / "c", *words, "optim.prox={name: group_lasso, weight: 0.1}")
    weight = masked.state["convs.1.weight"]
    assert int((weight != 0).sum()) <= weight.numel() // 2


def test_weights_that_rest_do_not_shrink(tmp_path):
    """A search for a mask moves no weight, and so there is no step for a proximal step to follow."""
    words = [
        "method=cts",
        "sparsity=0.5",
        "schedule.at=1.0",
        "trainer.max_steps=4",
        "loss=[]",
        "targets.exclude=[@head]",
    ]
    plain = trained(tmp_path / "a", *words)
    prox = trained(tmp_path / "b", *words, "optim.prox={name: group_lasso, weight: 1.0}")
    assert all(torch.equal(value, prox.state[name]) for name, value in plain.state.items())


def test_resumed_bit_for_bit(tmp_path):
    """Stopped in the half-space phase and run again: the same network."""
    prox = "optim.prox={name: wgsef, weight: 1.0, keep: 0.5, half_space: 0.3}"
    whole = trained(tmp_path / "whole", prox)

    class Late(StopFlag):
        looks = 0

        def __bool__(self):
            self.looks += 1
            return self.looks > 5

    flag = Late()
    flag.name = "test"
    plan = plan_of([*CELL, f"runs_dir={tmp_path / 'stopped'}", prox])
    with pytest.raises(Stopped):
        execute(plan, flag)
    resumed = execute(plan_of([*CELL, f"runs_dir={tmp_path / 'stopped'}", prox]))
    assert resumed.resumed_from
    assert all(torch.equal(value, resumed.state[name]) for name, value in whole.state.items())


@pytest.mark.parametrize(("prox", "message"), [
    ("{weight: 1.0}", "optim.prox: has no name"),
    ("{name: wgsef, groups: rows}", "optim.prox.groups"),
    ("{name: wgsef, groups: 'block:4x1'}", r"convs.0 is 6 outputs x 9 inputs, not a whole number of 4x1"),
    ("{name: wgsef, levels: {convs.0: 7}}", r"optim.prox.levels: 7: convs.0 has 6 groups — write at most 6"),
    ("{name: wgsef, levels: {conv.0: 2}}", r"'conv.0' matches no layer"),
])  # fmt: skip
def test_what_is_refused(prox, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        plan_of([*CELL, f"runs_dir={tmp_path}", f"optim.prox={prox}"])


def test_more_that_is_refused(tmp_path):
    """Input channels of a convolution in groups, which not all outputs read; weights that something else freezes."""
    grouped = Layer("conv", "conv", (8, 2, 3, 3), 0, groups=2)
    (issue,) = made({"name": "wgsef", "groups": "channel"}).issues([grouped])
    assert "conv is a convolution in 2 groups" in str(issue)
    assert not made({"name": "wgsef", "groups": "filter"}).issues([grouped])
    words = ["optim.prox={name: hard, keep: 0.5}", "adapt=linear_probe"]
    with pytest.raises(ConfigError, match=r"optim.prox: shrinks weights that adapt=linear_probe freezes"):
        plan_of([*CELL, f"runs_dir={tmp_path}", *words])
