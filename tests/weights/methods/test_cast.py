"""CAST (arXiv 2509.25996): what is pulled and when, scales, and the cut."""

from __future__ import annotations

import pytest
import torch
from hand_slots import hand_slots, update
from torch import tensor

from sparselab.config.schema import identified_metric
from sparselab.core.errors import ConfigError
from sparselab.core.model_spec import Layer
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage import record as records
from sparselab.training.optim.torch_side.adams import AdamS
from sparselab.weights.methods.cast import owners, spread


def made(weight, total=20, lr=0.01, **options):
    """A started sparsifier and its optimiser, tied together as in a run."""
    options = {"l1": 0.1, "scales": 0, "every": 10, **options}
    sparsifier = hand_slots("cast", weight, "2:4", schedule="one_shot", total=total, options=options, at=1.0)
    sparsifier.method.prepare(sparsifier.slots, None)
    sparsifier.start()
    learned = [slot.learned for slot in sparsifier.slots if slot.learned is not None]
    optimizer = AdamS([slot.param for slot in sparsifier.slots] + learned, lr=lr)
    sparsifier.attach(optimizer)
    return sparsifier, optimizer


def pulled(sparsifier):
    return sparsifier.slots[0].state["pulled"]


def test_what_is_pulled_is_outside_the_largest():
    sparsifier, optimizer = made(tensor([[0.1, -0.4, 0.3, 0.2], [1.0, 1.0, 1.0, 1.0]]))
    update(sparsifier, optimizer, 1, [torch.zeros(2, 4)])
    assert (~pulled(sparsifier)).tolist() == [[False, True, True, False], [True, True, False, False]]


def test_the_forward_pass_stays_dense_until_the_cut():
    weight = torch.randn(4, 8)
    sparsifier, optimizer = made(weight, total=3)
    slot = sparsifier.slots[0]
    assert torch.equal(slot.param.data, weight) and slot.mask.all()
    for step in (1, 2):
        update(sparsifier, optimizer, step, [torch.randn(4, 8)])
        assert slot.mask.all() and torch.count_nonzero(slot.param) == 32
    update(sparsifier, optimizer, 3, [torch.zeros(4, 8)])
    assert slot.pattern.holds(slot.mask) and torch.equal(slot.param.data != 0, slot.mask)


def test_the_choice_is_made_every_so_often_and_before_the_update():
    """Updates 1, 11, 21 ... choose by the weights as they were before them; in between the choice stands."""
    weight = tensor([[1.0, 0.9, 0.5, 0.4]])
    sparsifier, optimizer = made(weight, total=40, lr=0.2)
    seen = []
    for step in range(1, 23):
        before = sparsifier.slots[0].param.data.abs().clone()
        update(sparsifier, optimizer, step, [tensor([[1.0, 0.0, -1.0, -1.0]])])
        order = before.argsort(1, descending=True)[0, :2].sort().values.tolist()
        seen.append((~pulled(sparsifier)).nonzero()[:, 1].tolist())
        if step in (1, 11, 21):
            assert seen[-1] == order
        else:
            assert seen[-1] == seen[-2]
    assert seen[0] != seen[10], "the gradient was meant to change the choice"


def test_an_update_is_the_algorithm_s():
    """Ten updates of one weight matrix with gradients that move the choice, in plain float64 loops."""
    total, every, strength, lr, eps = 10, 3, 0.2, 0.05, 1e-8
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    gradients = torch.randn(total, 2, 8, generator=generator, dtype=torch.float64)
    sparsifier, optimizer = made(weight, total=total + 1, lr=lr, every=every, l1=strength)
    w, mu, v = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)
    for t in range(total):
        if t % every == 0:
            order = w.abs().view(-1, 4).argsort(1, descending=True)[:, :2]
            kept = torch.zeros(4, 4, dtype=torch.bool).scatter_(1, order, True).view_as(w)
        mu = 0.9 * mu + 0.1 * gradients[t]
        alpha = t / (total + 1)
        used = torch.where(kept, mu, (1 - alpha) * mu + alpha * strength * w.sign())
        v = 0.999 * v + 0.001 * used**2
        w = w - lr * (used / (1 - 0.9 ** (t + 1))) / ((v / (1 - 0.999 ** (t + 1))).sqrt() + eps)
        update(sparsifier, optimizer, t + 1, [gradients[t]])
        torch.testing.assert_close(sparsifier.slots[0].param.data, w, rtol=1e-6, atol=1e-8)


def test_weights_that_nothing_holds_are_gone_before_the_cut():
    """No gradient: what is pulled travels about sum lr t / T, ends within a step of zero, and the cut costs nothing.

    The learning rate warms up: the first updates are several times the learning rate, and would throw pulled weights
    past zero and beyond kept ones.
    """
    weight = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    total = 400
    sparsifier, optimizer = made(weight, total=total, lr=0.005, l1=1e-3)
    for step in range(1, total + 1):
        optimizer.param_groups[0]["lr"] = 0.005 * min(step / 100, (1 - step / total) * 4 / 3) + 1e-5
        update(sparsifier, optimizer, step, [torch.zeros(16, 16)])
    slot = sparsifier.slots[0]
    assert sparsifier.method.measures([slot])["residual"] < 0.01
    order = weight.abs().view(-1, 4).argsort(1, descending=True)[:, :2]
    kept = torch.zeros(64, 4, dtype=torch.bool).scatter_(1, order, True).view_as(weight)
    assert torch.equal(slot.mask, kept)
    assert torch.equal(slot.param.data[kept], weight[kept])


# -- scales --------------------------------------------------------------------------------------------------------


def test_each_scale_has_its_inputs():
    assert owners(4, 2).tolist() == [0, 0, 1, 1]
    assert owners(6, 4).tolist() == [0, 0, 1, 2, 2, 3]
    sparsifier, _ = made(tensor([[1.0, 2.0, 3.0, 4.0]]), scales=2)
    slot = sparsifier.slots[0]
    assert spread(slot, tensor([[2.0, 3.0]])).tolist() == [[2.0, 2.0, 3.0, 3.0]]


def test_a_convolution_of_gpt2_is_scaled_by_its_outputs():
    sparsifier, _ = made(torch.ones(4, 8), scales=2)
    slot = sparsifier.slots[0]
    slot.layer = Layer("c", "conv1d", (4, 8), 32)
    scales = torch.arange(16.0).view(8, 2)
    assert torch.equal(spread(slot, scales), scales.t().repeat_interleave(2, 0))


def test_gradients_are_those_of_the_scaled_weight():
    """dL/dw and dL/dA against autograd, and the network computes with A w."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    sparsifier, _ = made(weight, scales=2)
    slot = sparsifier.slots[0]
    slot.learned.data.copy_(torch.rand(3, 2, generator=generator, dtype=torch.float64) + 0.5)
    sparsifier._write_effective()
    w, a = weight.clone().requires_grad_(), slot.learned.detach().clone().requires_grad_()
    scaled = w * a.repeat_interleave(4, 1)
    assert torch.equal(slot.param.data, scaled)
    loss = (scaled.sin() * torch.arange(24.0).view(3, 8)).sum()
    loss.backward()
    slot.param.grad = (scaled.cos() * torch.arange(24.0).view(3, 8)).detach()
    sparsifier.before_step(1)
    torch.testing.assert_close(slot.param.grad, w.grad)
    torch.testing.assert_close(slot.learned.grad, a.grad)


def test_folding_leaves_outputs_and_revives_nothing():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(5, 16, generator=generator)
    sparsifier, optimizer = made(torch.randn(8, 16, generator=generator), total=4, scales=2)
    for step in range(1, 5):
        update(sparsifier, optimizer, step, [torch.randn(8, 16, generator=generator)])
    slot = sparsifier.slots[0]
    assert (slot.learned != 1).all()
    apart = (
        torch.cat([(x[:, :8] @ (slot.master * slot.mask)[:, :8].T) * slot.learned[:, 0]])
        + (x[:, 8:] @ (slot.master * slot.mask)[:, 8:].T) * slot.learned[:, 1]
    )
    torch.testing.assert_close(x @ slot.param.data.T, apart, rtol=1e-5, atol=1e-6)
    assert torch.equal(slot.param.data != 0, slot.mask)


# -- in a request --------------------------------------------------------------------------------------------------


def test_an_optimiser_that_lets_nobody_in_is_refused():
    with pytest.raises(ConfigError, match=r"write optim=adams"):
        plan_of(["method=cast", "sparsity=2:4", "model=mlp", "optim=adamw"])
    assert plan_of(["method=cast", "sparsity=2:4", "model=mlp"]).parts.optim.name == "adams"


def test_a_negative_pull_is_refused():
    with pytest.raises(ConfigError, match="l1"):
        plan_of(["method=cast", "sparsity=2:4", "model=mlp", "method.l1=-1.0"])


def test_the_scope_of_llama2_7b():
    """32 (4 * 4096^2 + 3 * 4096 * 11008) = 6,476,005,376 weights, half of them cut."""
    sizes = ["model.width=4096", "model.depth=32", "model.heads=32", "model.ff=11008", "dataset.block=64"]
    plan = plan_of(["method=cast", "sparsity=2:4", "model=llama_tiny", "dataset=stdlib", *sizes])
    assert sum(layer.numel for layer in plan.parts.layers) == 6_476_005_376
    assert 2 * sum(plan.parts.kept.values()) == 6_476_005_376


def test_what_the_cut_cost_is_known_however_often_a_run_validates(tmp_path, monkeypatch):
    """trainer.evals is no part of an id, and the table of CAST has a claim on val.cut: without evals it was never fed."""
    monkeypatch.chdir(tmp_path)
    cell = [
        "method=cast", "sparsity=2:4", "model=mlp", "model.hidden=[16]", "dataset.limit_train=200", "dataset.limit_test=100",
        "trainer.max_epochs=null", "trainer.max_steps=6", "trainer.batch_size=20", "trainer.precision=32", "trainer.threads=1",
        "trainer.progress=none", "trainer.track_masks=true",
    ]  # fmt: skip
    found = []
    for evals in (0, 2):
        plan = plan_of([*cell, f"trainer.evals={evals}", f"runs_dir={evals}"])
        assert run_cell(plan) == 0
        found.append((plan.id, records.read(plan.folder, plan.id)["metrics"]))
    (first, without), (second, several) = found
    assert first == second
    assert without["val.cut"] == several["val.cut"] != 0
    read = {key for key in (*without, *several) if identified_metric(key)}
    assert read <= set(without) and {key: without[key] for key in read} == {key: several[key] for key in read}
    plan = plan_of([*cell, "dataset.val=0", "trainer.evals=0"])
    assert run_cell(plan) == 0 and "val.cut" not in records.read(plan.folder, plan.id)["metrics"]
