"""Influence and Fisher unlearning: recursions against loops, gradients against autograd, masks that stand."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from sparselab.core.errors import ConfigError
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.edits.edit import EDITS, Editing
from sparselab.training.edits.forgetting import (
    forgotten_class,
    information_of,
    per_example,
    single_gradients,
    total_gradient,
    woodfisher,
)

CELL = [
    "model=mlp", "model.hidden=[16]", "model.batch_norm=true", "dataset.limit_train=400", "dataset.limit_test=200",
    "dataset.val=0", "trainer.max_epochs=null", "trainer.max_steps=20", "trainer.batch_size=20",
    "trainer.precision=32", "trainer.threads=1", "trainer.progress=none", "optim=sgd", "trainer.evals=0",
]  # fmt: skip


def editing(forget=(0,) * 6, retain=(1, 2) * 6, seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).eval()
    data = {name: (torch.randn(len(labels), 4), torch.tensor(labels)) for name, labels in
            {"forget": forget, "retain": retain}.items()}  # fmt: skip

    def batches(name):
        inputs, labels = data[name]
        yield from zip(inputs.split(5), labels.split(5), strict=True)

    parts = {name: partial(batches, name) for name in data}
    sizes = {name: len(labels) for name, (_, labels) in data.items()}
    return Editing(network, lambda net, x: net(x), parts, sizes, frozenset({"3.weight", "3.bias"}), 0), data


def edited(name, subject, **options):
    with torch.no_grad():
        EDITS[name](EDITS[name].Options(**options)).apply(subject)
    return {key: p.detach().clone() for key, p in subject.network.named_parameters()}


def test_woodfisher_with_orthogonal_gradients():
    """o.g is always 0: k = v - (sum over i >= 2 of v.g_i / N) g_1."""
    gradients = [*torch.diag(torch.tensor([2.0, 3.0, 4.0, 5.0]))]
    vector = torch.tensor([1.0, -2.0, 0.5, 3.0])
    shares = sum(float(vector @ g) for g in gradients[1:]) / 10
    torch.testing.assert_close(woodfisher(gradients, vector, 10), vector - shares * gradients[0])


def test_woodfisher_against_a_loop_in_double_precision():
    gradients = torch.randn(20, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    vector = torch.arange(7, dtype=torch.float64)
    k, o = vector.clone(), gradients[0].clone()
    for g in gradients[1:]:
        k = k - sum(a * b for a, b in zip(k, g, strict=True)) / (20 + o @ g) * o
        o = o - (o @ g) / (20 + o @ g) * o
    torch.testing.assert_close(woodfisher(gradients, vector, 20), k)


def test_single_gradients_are_those_of_autograd_and_sum_to_the_total():
    subject, data = editing()
    inputs, labels = data["retain"]
    with torch.no_grad():
        found = per_example(subject, inputs, labels)
        singles = torch.stack(list(single_gradients(subject, "retain", 100)))
        total = total_gradient(subject, "retain")
    for i in range(len(labels)):
        loss = F.cross_entropy(subject.network(inputs[i : i + 1]), labels[i : i + 1])
        for name, gradient in zip(found, torch.autograd.grad(loss, list(subject.network.parameters())), strict=True):
            torch.testing.assert_close(found[name][i], gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(singles.sum(0), total, rtol=1e-4, atol=1e-5)


def test_the_information_by_hand():
    """One linear layer without a bias: d log p_y / dW = (e_y - p) x^T, so F = E_x sum_y p_y ((e_y - p) x^T)^2."""
    subject, data = editing()
    layer = nn.Linear(4, 3, bias=False)
    subject = Editing(layer, lambda net, x: net(x), subject.parts, subject.sizes, frozenset(), 0)
    with torch.no_grad():
        found = information_of(subject, 100)["weight"]
        p, x = layer(data["retain"][0]).softmax(-1), data["retain"][0]
        expected = sum(
            p[:, y, None, None] * ((F.one_hot(torch.tensor(y), 3) - p)[:, :, None] * x[:, None]).square()
            for y in range(3)
        ).mean(0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_influence_is_alpha_times_its_direction():
    first, second = (edited("influence", editing()[0], alpha=alpha, samples=5) for alpha in (1.0, 2.0))
    start = dict(editing()[0].network.named_parameters())
    for name in start:
        torch.testing.assert_close(second[name] - start[name], 2 * (first[name] - start[name]), rtol=1e-3, atol=1e-6)


def test_fisher_forgets_the_row_of_a_class_and_draws_by_the_seed():
    subject, _ = editing()
    assert forgotten_class(subject) == 0
    assert forgotten_class(editing(forget=(0, 1, 2))[0]) is None and forgotten_class(editing(retain=(0, 1))[0]) is None
    before = dict(editing()[0].network.named_parameters())
    found, again = (edited("fisher", editing()[0], alpha=1e-12) for _ in range(2))
    for name, value in found.items():
        assert torch.equal(value, again[name])
        rows = slice(1, None) if name in subject.head else slice(None)
        torch.testing.assert_close(value[rows], before[name][rows], rtol=1e-2, atol=1e-3)
    assert 0 < found["3.weight"][0].abs().max() < 0.1  # noise of variance 1e-4 around zero


@pytest.mark.parametrize("edit", ["influence", "fisher"])
def test_a_pruned_network_is_edited_and_stays_pruned(edit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = "cell:method=magnitude sparsity=0.8 distribution=global schedule.at=0.5 " + " ".join(CELL)
    plan = plan_of(
        ["method=ticket", "sparsity=0.8", *CELL, "trainer.max_steps=0", f"model.weights='{made}'", f"edit={edit}",
         "edit.samples=20", "dataset.forget=class:0", "metric=[unlearning]"]
    )  # fmt: skip
    assert run_cell(plan.parent_plans[0]) == 0 and run_cell(plan) == 0
    before, after = (load_file(f"{p.folder}/model.safetensors") for p in (plan.parent_plans[0], plan))
    weight = "layers.0.weight"
    assert not torch.equal(before[weight], after[weight])
    assert torch.equal(before[weight] == 0, after[weight] == 0)
    record = json.loads(Path(plan.folder, "record.json").read_text())
    assert 0 < record["times"]["fit"] < record["seconds"]  # of the edit alone


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["method=dense", "edit=fisher"],
            "edit=fisher: nothing is to be forgotten — write dataset.forget=class:0, say",
        ),
        (["method=dense", "edit=fishe"], 'edit=fishe: no such edit — did you mean "fisher"?'),
        (["method=ste", "sparsity=2:4", "edit=fisher", "dataset.forget=random:0.1"], "edit=fisher: method=ste trains"),
        (["method=dense", "edit=influence", "edit.alpha=0"], "edit.alpha=0: input should be greater than 0"),
    ],
)
def test_what_cannot_be_edited_is_refused(options, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*CELL, *options])
    assert any(str(issue).startswith(line) for issue in refused.value.issues), [*map(str, refused.value.issues)]
