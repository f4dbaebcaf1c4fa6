"""SNIP and GraSP: scores by hand and by finite differences, examples, and that a measurement leaves no trace."""

from __future__ import annotations

import pytest
import torch
from hand_slots import hand_probe, hand_slots

from sparselab.core.errors import ConfigError, RunFailed
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.loop.loop import Loop
from sparselab.weights.probe import Probe
from sparselab.weights.slot import UpdateContext

START = UpdateContext(0, 12, 0.0, 0)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measured(method, weights, examples, **options):
    """(sparsifier, its slots' scores) of a network of linear layers."""
    sparsifier = hand_slots(method, weights, options=options)
    sparsifier.method.prepare(sparsifier.slots, hand_probe(sparsifier, examples))
    return sparsifier, [sparsifier.method.score(slot, START) for slot in sparsifier.slots]


def test_snip_by_hand():
    """loss = (w1 x1 + w2 x2 - y)^2 at w = (1, 2), x = (1, 3), y = 5: dL/dw = 2 * 2 * x = (4, 12)."""
    _, (score,) = measured("snip", torch.tensor([[1.0, 2.0]]), [(torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0]]))])
    assert score.tolist() == [[4.0, 24.0]]


def test_grasp_by_hand():
    """The same loss: H = 2 x x^T = [[2, 6], [6, 18]], g = (4, 12), Hg = (80, 240); what stays has the largest w * Hg."""
    batch = (torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0]]))
    _, (score,) = measured("grasp", torch.tensor([[1.0, 2.0]]), [batch], batches=1, temperature=1.0)
    assert score.tolist() == [[80.0, 480.0]]


def test_grasp_is_what_finite_differences_of_the_gradient_say():
    weights = [drawn(6, 4, seed=1).double(), drawn(3, 6, seed=2).double()]
    batches = [(drawn(5, 4, seed=3).double(), drawn(5, 3, seed=4).double())]
    sparsifier, scores = measured("grasp", weights, batches, batches=1, temperature=2.0)
    probe = hand_probe(sparsifier, batches)
    network, step = probe.copy(), 1e-6
    parameters = list(network.parameters())
    g = probe.gradients(network, parameters, batches, 2.0)
    shifted = []
    for sign in (1, -1):
        for parameter, weight, direction in zip(parameters, weights, g, strict=True):
            parameter.data = weight + sign * step * direction
        shifted.append(probe.gradients(network, parameters, batches, 2.0))
    for score, weight, up, down in zip(scores, weights, *shifted, strict=True):
        torch.testing.assert_close(score, weight * (up - down) / (2 * step), rtol=1e-5, atol=1e-8)


def test_many_small_batches_are_one_large_one():
    weights, x, y = [drawn(6, 4), drawn(3, 6)], drawn(9, 4, seed=5), drawn(9, 3, seed=6)
    uneven = list(zip(x.split([4, 4, 1]), y.split([4, 4, 1]), strict=True))
    for method in ("snip", "grasp"):
        one, three = (measured(method, weights, b, batches=len(b))[1] for b in ([(x, y)], uneven))
        for a, b in zip(one, three, strict=True):
            torch.testing.assert_close(a, b)


def test_random_positions_keep_the_counts_and_nothing_else():
    weights, batches = [drawn(8, 6), drawn(6, 8)], [(drawn(5, 6, seed=5), drawn(5, 6, seed=6))]
    kept = {}
    for positions in ("scores", "random"):
        sparsifier, _ = measured("snip", weights, batches, positions=positions)
        kept[positions] = [sparsifier.method.remask(slot, 11, START) for slot in sparsifier.slots]
    for a, b in zip(kept["scores"], kept["random"], strict=True):
        assert a.sum() == b.sum() == 11 and not torch.equal(a, b)


def test_xavier_does_not_depend_on_the_weights_it_replaces():
    batches = [(drawn(5, 6, seed=5), drawn(5, 6, seed=6))]
    one, other = (
        measured("snip", [drawn(8, 6, seed=seed), drawn(6, 8, seed=seed + 1)], batches, reinitialise="xavier")[1]
        for seed in (0, 10)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_so_many_of_each_class():
    labels = torch.tensor([0, 0, 0, 1, 0, 2, 1, 1, 2, 2, 0, 1])
    examples = torch.arange(12.0)[:, None]
    batches = list(zip(examples.split(4), labels.split(4), strict=True))
    probe = Probe(torch.nn.Module(), lambda *a: None, lambda: iter(batches), 3, 0)
    found = probe.per_class(2)
    assert torch.cat([inputs for inputs, _ in found]).flatten().tolist() == [0, 1, 3, 5, 6, 8]
    assert [len(targets) for _, targets in found] == [4, 2]
    with pytest.raises(RunFailed, match=r"method\.per_class=4: an epoch has 3 examples of class 2"):
        probe.per_class(4)
    batches = list(zip(examples.split(5), labels.split(5), strict=True))
    assert [len(targets) for _, targets in probe.per_class(2)] == [6]  # not 5 and 1: batch norms know nothing of one
    batches = list(zip(examples.split(4), labels.split(4), strict=True))
    assert [inputs[0].item() for inputs, _ in probe.batches(5)] == [0, 4, 8, 0, 4]
    assert len(probe.batches(2)) == 2


CELL = ["model=mlp", "model.hidden=[12,8]", "model.batch_norm=true", "model.dropout=0.5", "sparsity=0.8",
        "trainer.max_epochs=null", "trainer.max_steps=6", "trainer.batch_size=32", "trainer.evals=1",
        "trainer.progress=none", "trainer.accelerator=cpu"]  # fmt: skip


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_a_measurement_leaves_no_trace_and_does_not_see_micro_batches(method, tmp_path, monkeypatch):
    """Weights, running statistics and random numbers are as without it; masks are the same however batches are cut."""
    seen, masks = [], []
    real = Loop.on_train_start

    def start(loop, trainer, task):
        before = {name: tensor.clone() for name, tensor in task.network.state_dict().items()}
        real(loop, trainer, task)
        masked = {slot.name: slot.mask for slot in loop.sparsifier.slots}
        for name, tensor in task.network.state_dict().items():
            assert torch.equal(tensor, before[name] * masked[name] if name in masked else before[name]), name
        assert not loop.sparsifier.method.scores, "a second copy of the network is kept"
        masks.append({name: mask.clone() for name, mask in masked.items()})
        seen.append(sum(int(mask.sum()) for mask in masked.values()))

    monkeypatch.setattr(Loop, "on_train_start", start)
    for micro in (1, 4):
        typed = [f"method={method}", "method.per_class=3", *CELL, f"trainer.accumulate={micro}", f"runs_dir={tmp_path}"]
        assert run_cell(plan_of(typed)) == 0
    assert seen[0] == seen[1]
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_text_has_no_examples_of_a_class():
    typed = ["method=snip", "method.per_class=2", "sparsity=0.5", "model=llama_tiny", "dataset=stdlib", "trainer=text"]
    with pytest.raises(
        ConfigError, match=r"method\.per_class=2: stdlib has no classes of examples — write method\.per_class=null"
    ):
        plan_of(typed)


def test_examples_of_each_class_in_two_halves():
    """As VITA-Group/Random_Pruning measures GraSP: sorted by class, then the first half of them and the second."""
    labels = torch.tensor([3, 1, 0, 2, 2, 0, 1, 3, 3])
    inputs = torch.arange(9.0)[:, None]
    probe = Probe(torch.nn.Linear(1, 4), None, lambda: zip(inputs.split(3), labels.split(3), strict=True), 4, 0)
    first, second = probe.per_class(2, halves=True)
    assert (first[1].tolist(), second[1].tolist()) == ([0, 0, 1, 1], [2, 2, 3, 3])
    assert (first[0].flatten().tolist(), second[0].flatten().tolist()) == ([2, 5, 1, 6], [3, 4, 0, 7])
