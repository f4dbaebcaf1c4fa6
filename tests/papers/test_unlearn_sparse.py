"""Unlearning edits against the rules of OPTML-Group/Unlearn-Sparse, written out with its weight_orig * mask."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.edits.edit import EDITS, Editing
from sparselab.training.edits.forgetting import drawn, information_of, noise_of, woodfisher

KEPT = 0.3


class Network(nn.Module):
    """A convolution (3, 2, 2, 2), a norm and a head; weights are those given, or the module's own."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().flatten(1))


@pytest.fixture
def pruned():
    torch.manual_seed(0)
    network = Network().eval()
    masks = {"conv.weight": torch.rand(3, 2, 2, 2) < KEPT, "head.weight": torch.rand(3, 12) < KEPT}
    with torch.no_grad():
        for name, mask in masks.items():
            network.get_parameter(name).mul_(mask)
    labels = {"forget": torch.zeros(7, dtype=torch.long), "retain": torch.arange(22) % 2 + 1}
    data = {name: (torch.randn(len(y), 2, 3, 3), y) for name, y in labels.items()}

    def batches(name):
        yield from zip(*(part.split(5) for part in data[name]), strict=True)

    parts = {name: partial(batches, name) for name in data}
    sizes = {name: len(y) for name, (_, y) in data.items()}
    head = frozenset({"head.weight", "head.bias"})
    return Editing(network, lambda net, x: net(x), parts, sizes, head, 0, masks), data


def gradients(editing, inputs, labels):
    """Of the mean cross-entropy with respect to weight_orig, where weight = weight_orig * mask."""
    orig = {name: p.detach().clone().requires_grad_() for name, p in editing.network.named_parameters()}
    used = {name: p * editing.masks[name] if name in editing.masks else p for name, p in orig.items()}
    logits = torch.func.functional_call(editing.network, used, (inputs,))
    return torch.autograd.grad(F.cross_entropy(logits, labels), list(orig.values()))


def flat(parts):
    return torch.cat([part.flatten() for part in parts])


@torch.no_grad()
def edited(name, editing, **options):
    EDITS[name](EDITS[name].Options(**options)).apply(editing)
    return {key: p.detach().clone() for key, p in editing.network.named_parameters()}


def test_chunks_are_whole_whatever_the_batches(pruned):
    editing, data = pruned
    chunks = list(drawn(editing, "retain", 100, 8))
    assert [len(y) for _, y in chunks] == [8, 8, 6]
    torch.testing.assert_close(torch.cat([x for x, _ in chunks]), data["retain"][0])
    assert [len(y) for _, y in drawn(editing, "retain", 9, 4)] == [4, 4, 1]


def test_influence_takes_no_gradient_of_pruned_weights(pruned):
    editing, data = pruned
    before = flat(p.detach().clone() for p in editing.network.parameters())
    gone, stays = (len(data[part][1]) for part in ("forget", "retain"))
    forget, retain = (flat(gradients(editing, *data[part])) for part in ("forget", "retain"))
    direction = forget * gone / (gone + stays) - retain * stays * gone / ((gone + stays) * stays)
    singles = [flat(gradients(editing, x[None], y[None])) for x, y in zip(*data["retain"], strict=True)]
    expected = before + 2 * woodfisher(singles, direction, 1000)
    found = flat(edited("influence", editing, alpha=2, samples=1000).values())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 8])
def test_the_information_of_a_pruned_network(pruned, batch):
    """batch=8: the square of the gradient of each batch's mean loss times its mean probability, as unlearn/fisher.py has it."""
    editing, data = pruned
    inputs, _ = data["retain"]
    pieces = inputs.split(batch)
    expected = 0
    for x in pieces:
        p = editing.network(x).softmax(-1).mean(0).detach()
        for y in range(3):
            expected = expected + p[y] * flat(gradients(editing, x, torch.full((len(x),), y))).square() / len(pieces)
    with torch.no_grad():
        found = information_of(editing, 100, batch)
    torch.testing.assert_close(flat(found.values()), expected, rtol=1e-4, atol=1e-8)
    for name, mask in editing.masks.items():
        assert not found[name][~mask].any() and found[name][mask].any()


def test_the_variance_of_a_convolution_is_averaged_over_input_channels_only():
    information = torch.tensor([[0.5, 1.0], [0.25, 1e-9]]).view(1, 2, 1, 2)
    mean, variance = noise_of(torch.ones(1, 2, 1, 2), information, head=False, forgotten=None, alpha=0.1)
    assert torch.equal(mean, torch.ones(1, 2, 1, 2))
    expected = 0.1 * torch.tensor([(2 + 4) / 2, (1 + 1000) / 2]).view(1, 1, 1, 2).expand(1, 2, 1, 2)
    torch.testing.assert_close(variance, expected, rtol=1e-4, atol=0)


def test_the_row_of_a_forgotten_class_has_a_variance_of_a_thousandth():
    information = torch.full((3, 4), 0.5)
    mean, variance = noise_of(torch.ones(3, 4), information, head=True, forgotten=1, alpha=0.1)
    assert mean.tolist() == [[1.0] * 4, [0.0] * 4, [1.0] * 4]
    torch.testing.assert_close(variance, torch.tensor([[2.0], [1e-3], [2.0]]).expand(3, 4))
    _, bias = noise_of(torch.ones(3), torch.full((3,), 1e-6), head=True, forgotten=1, alpha=0.1)
    torch.testing.assert_close(bias, torch.tensor([100.0, 1e-3, 100.0]))


def test_fisher_draws_around_that_mean_with_that_variance(pruned):
    editing, _ = pruned
    draws = []
    start = {name: p.detach().clone() for name, p in editing.network.named_parameters()}
    with torch.no_grad():
        information = information_of(editing, 100, 32)
    for seed in range(200):
        with torch.no_grad():
            for name, p in editing.network.named_parameters():
                p.copy_(start[name])
        fresh = Editing(
            editing.network, editing.logits, editing.parts, editing.sizes, editing.head, seed, editing.masks
        )
        draws.append(edited("fisher", fresh, alpha=1e-7, batch=32)["head.weight"])
    mean, variance = noise_of(start["head.weight"], information["head.weight"], True, 0, 1e-7)
    found = torch.stack(draws)
    torch.testing.assert_close(found.mean(0), mean, rtol=0, atol=0.01)
    torch.testing.assert_close(found.var(0), variance, rtol=0.5, atol=0)


def test_an_edit_is_told_the_masks_of_its_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = [
        "method=magnitude", "schedule=one_shot", "sparsity=0.9", "model=mlp", "model.hidden=[16]", "dataset.val=0",
        "dataset.limit_train=200", "dataset.limit_test=100", "trainer.max_epochs=null", "trainer.max_steps=0",
        "trainer.evals=0", "trainer.precision=32", "trainer.threads=1", "trainer.progress=none",
        "dataset.forget=class:0", "edit=influence",
    ]  # fmt: skip
    seen = {}
    monkeypatch.setattr(EDITS["influence"], "apply", lambda _, editing: seen.update(editing.masks))
    assert run_cell(plan_of(cell)) == 0
    weights = sum(mask.numel() for mask in seen.values())
    assert weights > 0 and sum(int(mask.sum()) for mask in seen.values()) == round(weights / 10)
