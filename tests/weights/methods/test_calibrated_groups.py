"""Wanda and SparseGPT where one tensor holds several matrices: convolutions in groups, experts of a mixture."""

from __future__ import annotations

import pytest
import timm
import torch
from hand_slots import hand_slots
from torch import nn
from torch.nn import functional as F

from sparselab.core.errors import RunFailed
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.weights.calibration import Calibration
from sparselab.weights.methods.calibrated import solve
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.sparsifier import Slot


def slot_of(param, kind, groups, sparsity=0.5, name="part"):
    layer = Layer(name, kind, tuple(param.shape), param.numel(), groups=groups, own_path=True)
    pattern = Pattern.of(Sparsity.parse(sparsity), kind, parts=groups if kind.startswith("experts") else 1)
    return Slot(layer, param, pattern, torch.ones_like(param, dtype=torch.bool))


def prune(method, network, slot, x, **options):
    """The slot after its layer has been pruned in ``network``, calibrated on ``x``."""
    sparsifier = hand_slots(method, torch.ones(1, 4), str(slot.pattern.sparsity), options=options)
    kept = slot.pattern.kept(tuple(slot.mask.shape))
    sparsifier.slots[:], slot.kept = [slot], slot.mask.numel()
    sparsifier.allocate = lambda level, scores: {slot.layer.name: kept}
    sparsifier.inputs = Calibration(network, network, [slot], [], lambda: x.split(2)).moments
    sparsifier.start()
    return slot


class Conv(nn.Module):
    """A convolution whose weight is ``part``, padded inside the module."""

    def __init__(self, conv) -> None:
        super().__init__()
        self.part, self.options = conv.weight, {"stride": conv.stride, "groups": conv.groups}

    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.part, **self.options)


CONVS = {
    "grouped": lambda: Conv(nn.Conv2d(8, 8, 3, groups=2, bias=False)),
    "depthwise": lambda: Conv(nn.Conv2d(8, 8, 3, groups=8, bias=False)),
    "whole": lambda: Conv(nn.Conv2d(8, 8, 3, stride=2, bias=False)),
}


def pictures(channels=8):
    """Every channel has a loudness of its own, neighbours alike; opposite in the two halves."""
    torch.manual_seed(1)
    loud = torch.cat([torch.logspace(-1, 1, channels // 2), torch.logspace(1, -1, channels // 2)])
    return torch.randn(6, channels, 6, 6).cumsum(3) * loud[:, None, None]


@pytest.mark.parametrize("kind", sorted(CONVS))
def test_all_patches_are_seen_padding_inside_included(kind):
    """(w x)^2, averaged over the output's positions, is w H w^T with H of the group's own inputs."""
    torch.manual_seed(0)
    network, x = CONVS[kind](), pictures()
    groups = network.options["groups"]
    slot = slot_of(network.part, "conv", groups)
    grams = (
        Calibration(network, network, [slot], [], lambda: x.split(2)).moments(slot).reshape(groups, -1, 72 // groups)
    )
    rows = network.part.detach().flatten(1).reshape(groups, -1, 72 // groups)
    power = (rows @ grams @ rows.mT).diagonal(dim1=1, dim2=2).flatten()
    assert torch.allclose(power, network(x).square().mean((0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("kind", ["grouped", "whole"])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_calibration_beats_magnitude_in_every_group(kind, method):
    """Output error; a group that is solved with another's inputs is worse than magnitude."""
    x, errors = pictures(), {}
    for rule in (method, "magnitude"):
        torch.manual_seed(0)
        network = CONVS[kind]()
        before = network(x).detach()
        slot = prune(rule, network, slot_of(network.part, "conv", network.options["groups"]), x)
        assert int(slot.mask.sum()) == slot.mask.numel() // 2
        errors[rule] = (network(x) - before).detach().square().mean((0, 2, 3)).reshape(2, 4).sum(1)
    assert (errors[method] < errors["magnitude"]).all()


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@pytest.mark.parametrize(("kind", "groups"), [("grouped", 2), ("depthwise", 8)])
def test_each_group_is_solved_as_if_it_were_alone(kind, groups, method):
    x, size = pictures(), 8 // groups
    torch.manual_seed(0)
    network = CONVS[kind]()
    weight = network.part.detach().clone()
    together = prune(method, network, slot_of(network.part, "conv", groups), x)
    for i, (mask, found) in enumerate(zip(together.mask.split(size), together.param.data.split(size), strict=True)):
        alone = Conv(nn.Conv2d(size, size, 3, bias=False))
        alone.part = nn.Parameter(weight[size * i : size * (i + 1)].clone())
        slot = slot_of(alone.part, "conv", 1, 1 - int(mask.sum()) / mask.numel())  # the share that it was given
        prune(method, alone, slot, x[:, size * i : size * (i + 1)])
        assert torch.allclose(found, slot.param.data, atol=1e-4) and torch.equal(mask, slot.mask)
    assert int(together.mask.sum()) == together.mask.numel() // 2


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_two_of_four_in_a_grouped_convolution(method):
    torch.manual_seed(0)
    network = CONVS["grouped"]()
    slot = prune(method, network, slot_of(network.part, "conv", 2, "2:4"), pictures())
    assert slot.pattern.holds(slot.mask) and slot.pattern.holds(slot.param.data)


def test_a_real_grouped_convolution_keeps_its_outputs():
    """timm's resnext26ts, 2:4: a hundredth of the outputs' power is lost in each group, and with another group's inputs ten
    times as much."""
    torch.manual_seed(0)
    network = timm.create_model("resnext26ts", num_classes=10).eval()
    conv = network.get_submodule("stages.0.0.conv2_kxk.conv")
    x, seen = torch.randn(16, 3, 32, 32).cumsum(2).cumsum(3) / 5, []
    hook = conv.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with torch.no_grad():
        network(x)
    hook.remove()
    before, weight = conv(seen[0]).detach(), conv.weight.detach().clone()
    slot = slot_of(conv.weight, "conv", 2, "2:4")
    grams = Calibration(network, network, [slot], [], lambda: x.split(4)).moments(slot).reshape(2, 288, 288)
    prune("sparsegpt", network, slot, x)
    power = before.square().mean((0, 2, 3)).reshape(2, -1).sum(1)
    right = (conv(seen[0]) - before).detach().square().mean((0, 2, 3)).reshape(2, -1).sum(1) / power
    assert slot.pattern.holds(slot.param.data) and right.max() < 0.012
    rows = weight.flatten(1)[32:]
    moved = solve(rows, grams[0], 32 * 144, 2, 4, 128, 0.01)[0] - rows  # the second group with the first one's inputs
    assert (moved @ grams[1] * moved).sum() / power[1] > 8 * right[1]


class Looped(nn.Module):
    """One block, run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Module()
        self.block.register_parameter("part", nn.Parameter(torch.randn(8, 8) / 3))
        self.block.forward = lambda x: F.linear(x, self.block.part).relu()

    def forward(self, x):
        return self.block(self.block(x))


@pytest.mark.parametrize("blocks", [True, False])
def test_a_layer_that_a_pass_uses_twice_is_calibrated_on_both_inputs(blocks):
    """Looped and weight-shared networks (llm-compressor#2952)."""
    torch.manual_seed(0)
    network, x = Looped(), torch.randn(40, 8)
    slot = slot_of(network.block.part, "linear", 1, name="block.part")
    found = Calibration(network, network, [slot], [network.block] if blocks else [], lambda: x.split(8)).moments(slot)
    rows = torch.cat([x, network.block(x).detach()])
    assert torch.allclose(found, rows.T @ rows / 80, atol=1e-5)


# -- experts -------------------------------------------------------------------------------------------------------------


class Experts(nn.Module):
    """Token i goes to expert ``route[i]``; one product an expert, or one for all (``grouped``)."""

    def __init__(self, weight, route, turned=False, grouped=False) -> None:
        super().__init__()
        self.part, self.route = nn.Parameter(weight.mT.contiguous() if turned else weight.clone()), route
        self.turned, self.grouped = turned, grouped

    def forward(self, x):
        stack = self.part.mT if self.turned else self.part
        route = self.route[: len(x)]
        out = x.new_zeros(len(x), stack.shape[1])
        if self.grouped:
            order = route.argsort(stable=True)
            offs = torch.bincount(route, minlength=len(stack)).cumsum(0).int()
            out[order] = F.grouped_mm(x[order], stack.mT, offs=offs)
            return out
        for i in route.unique():
            out[route == i] = F.linear(x[route == i], stack[i])
        return out


ROUTE = torch.tensor([0, 1]).repeat(20)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("sparsity", ["0.5", "2:4"])
def test_an_expert_is_pruned_by_the_tokens_that_reach_it(turned, grouped, sparsity):
    torch.manual_seed(0)
    weight, x = torch.randn(2, 8, 8), torch.randn(40, 8)
    x[ROUTE == 0] *= torch.logspace(0, 2, 8)
    x[ROUTE == 1] *= torch.logspace(2, 0, 8)
    asked = Sparsity.parse(sparsity).n_of_m
    for method in ("wanda", "sparsegpt"):
        network = Experts(weight, ROUTE, turned, grouped)
        slot = slot_of(network.part, "experts1d" if turned else "experts", 2, sparsity)
        slot = prune(method, network, slot, x)
        found = slot.param.data.mT if turned else slot.param.data
        for i in range(2):
            rows = x[torch.eq(ROUTE, i)]
            gram = rows.T @ rows / len(rows)
            if method == "sparsegpt":
                expected, _ = solve(weight[i], gram, 32, *(asked or (None, None)), 128, 0.01)
            else:
                scores = weight[i].abs() * gram.diagonal().sqrt()
                rows = scores.view(-1, 4) if asked else scores
                keep = rows >= rows.topk(rows.shape[1] // 2).values[:, -1:]
                expected = weight[i] * keep.view_as(scores)
            assert torch.allclose(found[i], expected, atol=1e-4)
        assert torch.equal(slot.mask, slot.param.data != 0)


def test_an_expert_that_no_token_reaches_is_no_guess():
    network = Experts(torch.randn(3, 8, 8), ROUTE)
    with pytest.raises(RunFailed, match=r"part: none of the calibration examples reaches its group 2"):
        prune("wanda", network, slot_of(network.part, "experts", 3), torch.randn(40, 8))


def test_parts_of_a_weight_with_inputs_of_their_own_are_refused():
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Parameter(torch.randn(8, 4))

        def forward(self, x):
            return F.linear(x, self.part[:4]) + F.linear(x.square(), self.part[4:])

    network = Fused()
    with pytest.raises(RunFailed, match="parts of it"):
        prune("sparsegpt", network, slot_of(network.part, "linear", 1), torch.randn(6, 4))
