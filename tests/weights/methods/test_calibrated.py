"""Wanda and SparseGPT by hand (arXiv 2306.11695, 2301.00774), and what they are told of a layer's inputs."""

from __future__ import annotations

import json

import pytest
import torch
from hand_slots import hand_slots
from torch import nn, tensor

from sparselab.core.errors import ConfigError
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.running.planning import plan_of
from sparselab.weights.calibration import Calibration
from sparselab.weights.methods.calibrated import inverse_factor, order_of_groups, solve
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.slot import Slot


def pruned(method, weight, gram, sparsity=0.5, **options):
    """The slot after pruning with these second moments."""
    sparsifier = hand_slots(method, weight, sparsity, options=options)
    sparsifier.inputs = lambda slot: gram
    sparsifier.start()
    return sparsifier.slots[0]


def correlated(seed, inputs=16, samples=64):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=generator) * torch.logspace(0, -2, inputs)
    return torch.randn(samples, inputs, generator=generator) @ mixing


# -- SparseGPT -----------------------------------------------------------------------------------------------------


def test_uncorrelated_inputs_need_no_compensation():
    """H proportional to I: the smallest |w| of a block go, and the rest stays as it is."""
    weight = tensor([[0.1, -3.0, 2.0, 0.5], [4.0, 0.2, -0.3, 1.0]])
    slot = pruned("sparsegpt", weight, 3 * torch.eye(4))
    assert slot.mask.tolist() == [[False, True, True, False], [True, False, False, True]]
    assert torch.allclose(slot.param.data, weight * slot.mask, atol=1e-6)


def test_two_inputs_by_hand():
    """H = [[2, 1], [1, 2]]: w^2 / U_ii^2 is 1.5 and 18, so w0 goes, and w1 becomes 3 - 1 (Hinv_01 / Hinv_00) = 3.5."""
    gram = tensor([[2.0, 1.0], [1.0, 2.0]])
    factor = inverse_factor(gram, 0.0)
    assert (tensor([1.0, 3.0]) / factor.diagonal()).square().tolist() == pytest.approx([1.5, 18])
    assert torch.allclose(factor.T @ factor, torch.linalg.inv(gram), atol=1e-6)
    slot = pruned("sparsegpt", tensor([[1.0, 3.0]]), gram, damp=1e-9)
    assert slot.mask.tolist() == [[False, True]]
    assert slot.param.data.flatten().tolist() == pytest.approx([0, 3.5])


def test_what_is_kept_is_the_best_that_remains():
    """Of all rows with w0 = 0 the result has the least output error: the other weights are a least-squares fit."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 4, generator=generator) @ (torch.eye(4) + 0.3 * torch.randn(4, 4, generator=generator))
    weight = tensor([[0.05, 1.0, -2.0, 1.5]])
    found, kept = solve(weight, x.T @ x / 64, 3, None, None, 4, 0.0)
    assert kept.tolist() == [[False, True, True, True]]
    best = torch.linalg.lstsq(x[:, 1:], (x @ weight[0])[:, None]).solution.flatten()
    assert torch.allclose(found[0, 1:], best, rtol=1e-3)
    assert not torch.allclose(best, weight[0, 1:], rtol=1e-3)


@pytest.mark.parametrize("block", [3, 4, 128])
def test_two_of_four_leaves_exactly_two(block):
    x = correlated(2, 16)
    slot = pruned("sparsegpt", torch.randn(8, 16), x.T @ x / len(x), "2:4", block=block)
    assert slot.mask.view(-1, 4).sum(1).tolist() == [2] * 32
    assert ((slot.param.data != 0).view(-1, 4).sum(1) <= 2).all()


@pytest.mark.parametrize("block", [1, 5, 7, 128])
@pytest.mark.parametrize("sparsity", [0.5, 0.7, 0.95])
def test_the_count_is_exact_and_zeros_are_zero(block, sparsity):
    x = correlated(3, 16)
    slot = pruned("sparsegpt", torch.randn(6, 16), x.T @ x / len(x), sparsity, block=block)
    assert int(slot.mask.sum()) == round(96 * (1 - sparsity)) == slot.kept
    assert torch.equal(slot.param.data != 0, slot.mask)


def test_it_beats_magnitude_where_inputs_are_correlated():
    """Mean output error over draws, at equal sparsity."""
    ratios = []
    for seed in range(10):
        x = correlated(seed, 32, 256)
        weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(100 + seed))
        errors = [
            (x @ (pruned(method, weight, x.T @ x / len(x), 0.6).param.data - weight).T).square().sum()
            for method in ("sparsegpt", "wanda", "magnitude")
        ]
        ratios.append([float(error / errors[-1]) for error in errors])
    ours, wanda, _ = tensor(ratios).mean(0).tolist()
    assert ours < wanda < 1 and ours < 0.7


def test_an_input_that_is_never_there_is_cut():
    gram = torch.diag(tensor([1.0, 0.0, 1.0, 1.0]))
    slot = pruned("sparsegpt", tensor([[1.0, 9.0, 0.5, 2.0]]), gram)
    assert slot.param.data[0, 1] == 0 and torch.isfinite(slot.param.data).all()


def test_groups_of_a_convolution_run_along_its_channels():
    layer = Layer("conv", "conv", (2, 4, 1, 3), 24)
    param = nn.Parameter(torch.randn(2, 4, 1, 3))
    slot = Slot(layer, param, Pattern.of(Sparsity.parse("2:4"), "conv"), torch.ones_like(param, dtype=torch.bool))
    order = order_of_groups(slot)
    assert order.tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
    sparsifier = hand_slots("sparsegpt", torch.randn(1, 4), "2:4")
    x = torch.randn(50, 12)
    sparsifier.slots[:] = [slot]
    slot.kept = slot.mask.numel()
    sparsifier.allocate = lambda level, scores: {"conv": 12}
    sparsifier.inputs = lambda slot: x.T @ x / 50
    sparsifier.start()
    assert slot.pattern.holds(slot.mask) and slot.pattern.holds(slot.param.data)


# -- Wanda ---------------------------------------------------------------------------------------------------------


def test_a_loud_input_saves_a_small_weight():
    gram = torch.diag(tensor([1.0, 100.0, 1.0, 1.0]))
    slot = pruned("wanda", tensor([[3.0, 0.5, 2.0, 0.1]]), gram)
    assert slot.mask.tolist() == [[True, True, False, False]]
    assert slot.param.data.tolist() == tensor([[3.0, 0.5, 0.0, 0.0]]).tolist()


def test_it_compares_within_an_output_and_the_total_is_exact():
    weight = torch.cat([torch.full((2, 4), 9.0), torch.arange(1.0, 13).view(3, 4)]).view(5, 4)
    slot = pruned("wanda", weight, torch.eye(4), 0.65)
    assert slot.mask.sum(1).tolist() == [2, 2, 1, 1, 1]
    layer = pruned("wanda", weight, torch.eye(4), 0.65, per="layer")
    assert layer.mask.sum(1).tolist() == [0, 0, 0, 3, 4] or int(layer.mask.sum()) == 7


# -- what they are told --------------------------------------------------------------------------------------------


class Chain(nn.Module):
    """Two blocks, each of two layers, and a head."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False)) for _ in range(2)
        )
        self.head = nn.Linear(3, 2, bias=False)
        self.passes = 0

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        self.passes += 1
        return self.head(x)


def watched(network, x):
    names = ["blocks.0.0", "blocks.0.2", "blocks.1.0", "blocks.1.2", "head"]
    slots = []
    for name in names:
        param = network.get_parameter(f"{name}.weight")
        layer = Layer(name, "linear", tuple(param.shape), param.numel())
        slots.append(Slot(layer, param, Pattern.of(Sparsity.parse(0.5)), torch.ones_like(param, dtype=torch.bool)))
    return Calibration(network, network, slots, list(network.blocks), lambda: x.split(4)), slots


def test_moments_are_means_over_positions_of_what_a_layer_reads():
    torch.manual_seed(0)
    network, x = Chain(), torch.randn(10, 5, 3)
    known, slots = watched(network, x)
    first = network.blocks[0][1](network.blocks[0][0](x)).flatten(0, 1)
    assert torch.allclose(known.moments(slots[0]), x.flatten(0, 1).T @ x.flatten(0, 1) / 50, atol=1e-5)
    assert torch.allclose(known.moments(slots[1]), first.T @ first / 50, atol=1e-5)
    assert network.passes == 1, (
        "but for a whole one that counts uses, a pass ends behind the last layer that was asked about"
    )
    assert network.training


def test_later_blocks_read_what_pruned_ones_put_out():
    """Within a block all layers are looked at before one is pruned, as in the authors' code; blocks follow each other."""
    torch.manual_seed(0)
    network, x = Chain(), torch.randn(10, 3)
    known, slots = watched(network, x)
    known.moments(slots[0])
    before = network.blocks[0][1](network.blocks[0][0](x))
    slots[0].param.data[0] = 0
    assert torch.allclose(known.moments(slots[1]), before.T @ before / 10, atol=1e-5)
    after = network.blocks[0](x)
    assert torch.allclose(known.moments(slots[2]), after.T @ after / 10, atol=1e-5)
    head = network.blocks[1](after)
    assert torch.allclose(known.moments(slots[4]), head.T @ head / 10, atol=1e-5)


def test_a_convolution_reads_patches():
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    network, x = nn.Sequential(conv), torch.randn(4, 2, 5, 5)
    layer = Layer("0", "conv", tuple(conv.weight.shape), conv.weight.numel())
    slot = Slot(layer, conv.weight, Pattern.of(Sparsity.parse(0.5), "conv"), torch.ones_like(conv.weight).bool())
    gram = Calibration(network, network, [slot], [], lambda: [x]).moments(slot)
    weight = conv.weight.detach().flatten(1)
    power = network(x).square().sum((0, 2, 3)) / 100  # mean over positions of (w x)^2 is w H w^T
    assert torch.allclose((weight @ gram @ weight.T).diagonal(), power, rtol=1e-4)


def test_groups_along_outputs_are_refused():
    with pytest.raises(ConfigError, match=r"targets\.axis=in"):
        plan_of(["method=sparsegpt", "sparsity=2:4", "targets.axis=out", "model=mlp"])


def test_a_run_of_no_updates_prunes_and_scores(tmp_path):
    """A record like any other, of a network with its start's weights where the mask keeps them."""
    from sparselab.running.run_cell import run_cell

    words = ["model=mlp", "model.hidden=[16]", "trainer.max_epochs=null", "trainer.threads=1", f"runs_dir={tmp_path}"]
    plan = plan_of([*words, "method=wanda", "sparsity=0.5", "trainer.max_steps=0"])
    assert run_cell(plan) == 0
    record = json.loads((tmp_path / plan.id / "record.json").read_text())
    assert record["sparsity"]["realised"] == 0.5 and record["account"]["updates"] == 0
    assert record["account"]["flops_train"] == 0 and 0 <= record["metrics"]["test.accuracy"] <= 1
    with pytest.raises(ConfigError, match="schedule"):
        plan_of([*words, "method=gmp", "sparsity=0.5", "trainer.max_steps=0"])
