"""BiP and HYDRA: the gradient of the mask by hand, by the theory and by finite differences; turns; exact masks."""

from __future__ import annotations

import itertools

import pytest
import torch
from hand_slots import hand_slots, sgd, update

from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.loop.loop import Loop
from sparselab.weights.alternating import AlternatingUpdate
from sparselab.weights.slot import UpdateContext


def bip(weights, scores, gradient, mask=None, **options):
    """dL/ds of one slot whose effective weights have this gradient."""
    sparsifier = hand_slots("bip", torch.tensor([weights]), options=options)
    (slot,) = sparsifier.slots
    slot.learned.data = torch.tensor([scores])
    slot.param.grad = torch.tensor([gradient])
    if mask is not None:
        slot.mask = torch.tensor([mask])
    with torch.no_grad():
        return sparsifier.method.learn(slot)[0].tolist()


@pytest.mark.parametrize("implicit", ["paper", "repo", "off"])
def test_the_score_gradient_by_hand(implicit):
    """w = 2, score = -3 kept, dL/d(m w) = 0.5: dL/ds = 0.5 * 2 * sign(-3) = -1, and 1 / gamma = 0 leaves no more."""
    assert bip([2.0, 1.0], [-3.0, 1.0], [0.5, 0.0], implicit=implicit, inv_gamma=0.0) == [-1.0, 0.0]


def test_the_linear_loss_where_the_theory_is_exact():
    """l(z) = c z: theta* = -(m c) / gamma and F(m) = -(1 / gamma) sum c^2 m^2, so dF/dm = -(2 / gamma) c^2 m."""
    c, m, gamma = [2.0, 1.0], [True, False], 0.5
    theta = [-ci * mi / gamma for ci, mi in zip(c, m, strict=True)]
    assert bip(theta, [1.0, 1.0], c, m, inv_gamma=1 / gamma) == [-16.0, 0.0]
    # Without the factor: -(1 + m) c^2 / gamma, which is the same only where m = 1.
    assert bip(theta, [1.0, 1.0], c, m, inv_gamma=1 / gamma, mask_factor=False) == [-16.0, -2.0]
    # The released code: of scores alone, dL/ds - inv_gamma (dL/ds)^2.
    assert bip(theta, [1.0, 1.0], c, m, inv_gamma=0.5, implicit="repo") == [-8.0 - 0.5 * 64, 0.0]


def test_a_small_quadratic_by_finite_differences():
    """l(z) = c z + h z^2 / 2. With its Hessian the implicit formula is dF/dm; without, it is off by O(h / gamma)."""
    c, m, gamma, step = (
        torch.tensor([1.0, -2.0, 0.5, 1.5]).double(),
        torch.tensor([0.9, 0.5, 0.7, 1.0]).double(),
        1.0,
        1e-6,
    )

    def solved(mask, h):
        return -mask * c / (gamma + h * mask**2)  # of mask * (c + h mask theta) + gamma theta = 0

    def loss(mask, h):
        z = mask * solved(mask, h)
        return c * z + h * z**2 / 2  # separable: the derivative of each term is that of the sum

    errors = []
    for h in (0.1, 0.01):
        true = (loss(m + step, h) - loss(m - step, h)) / (2 * step)
        theta = solved(m, h)
        g = c + h * m * theta
        exact = theta * g - (m * g) * (g + m * h * theta) / (gamma + h * m**2)
        torch.testing.assert_close(exact, true, rtol=1e-6, atol=1e-8)
        sparsifier = hand_slots("bip", theta[None], options={"inv_gamma": 1 / gamma})
        (slot,) = sparsifier.slots
        slot.mask, slot.param.grad = m[None], g[None].clone()  # a soft mask: the formula does not ask for bits
        slot.learned.data = torch.ones_like(theta)[None]
        with torch.no_grad():
            errors.append(float((sparsifier.method.learn(slot)[0] - true).abs().max()))
    assert 0.05 < errors[1] / errors[0] < 0.15, errors


def test_no_implicit_term_is_straight_through_training_of_scores():
    assert bip([2.0, -1.0], [3.0, -1.0], [0.5, 4.0], inv_gamma=0.0) == bip(
        [2.0, -1.0], [3.0, -1.0], [0.5, 4.0], implicit="off", inv_gamma=7.0
    )


def kept(scores, density, sparsity):
    sparsifier = hand_slots("bip", torch.ones(1, len(scores)), sparsity)
    (slot,) = sparsifier.slots
    slot.learned.data = torch.tensor([scores])
    return sparsifier.method.remask(slot, round(density * len(scores)), UpdateContext(1, 2, 0.0, 0))[0]


def test_the_largest_scores_stay():
    assert kept([0.1, -0.9, 0.5, 0.2], 0.5, 0.5).tolist() == [False, True, True, False]
    assert int(hand_started(torch.randn(1, 10), 0.75).mask.sum()) == 3  # numel - int((1 - k) numel) with k = 0.25


def hand_started(weights, sparsity):
    sparsifier = hand_slots("bip", weights, sparsity)
    sparsifier.start()
    return sparsifier.slots[0]


def test_filters_go_whole_by_their_norm_and_equally_many_of_each_layer():
    weights = torch.tensor(
        [[3.0, 0.0], [2.0, 2.0], [2.5, 1.0], [0.1, 0.1]]
    )  # norms 3, 2.83, 2.69, 0.14; sums 3, 4, 3.5
    slot = hand_started(weights, "channel:0.75")
    assert slot.mask.tolist() == [[True, True], [False, False], [False, False], [False, False]]
    both = hand_slots("bip", [torch.randn(8, 3), 50 * torch.randn(16, 8)], "channel:0.5")
    both.start()
    assert [int(slot.mask.any(1).sum()) for slot in both.slots] == [4, 8]
    assert all(torch.equal(slot.mask.any(1), slot.mask.all(1)) for slot in both.slots)


def test_input_channels_go_whole_by_their_norm_and_equally_many_of_each_layer():
    """Norm over the kernel, then over the outputs, of |scores|: what all outputs read of one input, as one vector."""
    weights = torch.tensor([[3.0, 2.0, 2.5, 0.1], [0.0, 2.0, 1.0, 0.1]])  # norms 3, 2.83, 2.69, 0.14; sums 3, 4, 3.5
    slot = hand_started(weights, "in_channel:0.75")
    assert slot.mask.tolist() == [[True, False, False, False]] * 2
    filters = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    slot = hand_started(filters, "in_channel:0.5")
    norms = filters.norm(dim=(2, 3)).norm(dim=0)
    kept = slot.mask.any(3).any(2).any(0)
    assert set(kept.nonzero().flatten().tolist()) == set(norms.topk(4).indices.tolist())
    assert torch.equal(slot.mask, kept[None, :, None, None].expand_as(slot.mask))
    both = hand_slots("bip", [torch.randn(3, 8), 50 * torch.randn(8, 16)], "in_channel:0.5")
    both.start()
    assert [int(slot.mask.any(0).sum()) for slot in both.slots] == [4, 8]


def test_scores_have_storage_of_their_own_and_levels_do_not_touch_each_other():
    """Fails where scores share the weights' storage, as in the released code's initialisation."""
    generator = torch.Generator().manual_seed(0)
    sparsifier = hand_slots("bip", torch.randn(4, 6, generator=generator), 0.5)
    (slot,) = sparsifier.slots
    optimizer = sgd(sparsifier, momentum=0.9, weight_decay=0.1)
    optimizer.add_param_group({"params": [slot.learned], "weight_decay": 0.0})
    assert slot.learned.data_ptr() not in (slot.master.data_ptr(), slot.param.data_ptr())
    sparsifier.start()
    moved = set()
    for step in range(1, 13):
        before = slot.master.clone(), slot.learned.detach().clone(), slot.mask.clone()
        update(sparsifier, optimizer, step, [torch.randn(4, 6, generator=generator)])
        weights, scores, mask = slot.master, slot.learned.detach(), slot.mask
        if step % 2:
            assert (
                torch.equal(scores, before[1]) and torch.equal(mask, before[2]) and not torch.equal(weights, before[0])
            )
        else:
            assert torch.equal(weights, before[0]) and not torch.equal(scores, before[1])
            moved.add(torch.equal(mask, before[2]))
        assert int(slot.mask.sum()) == 12
    assert False in moved, "the mask never moved"


def test_turns():
    def turns(method, total, **options):
        learner = hand_slots(method, torch.ones(1, 4), options=options).method
        return "".join("s" if learner.alternating_update(step, total).learned else "w" for step in range(1, total + 1))

    assert turns("bip", 8) == "wswswsws"
    assert turns("bip", 9, lower_steps=2) == "wwswwswws"
    assert turns("bip", 10, finetune=0.3) == "wswswswwww"
    assert turns("hydra_mask", 6) == "ssswww"
    both = hand_slots("hydra_mask", torch.ones(1, 4), options={"unmasked": "both"}).method
    assert both.alternating_update(1, 6) == AlternatingUpdate(weights=False, others=True)
    assert both.alternating_update(6, 6) == AlternatingUpdate(learned=False)


CELL = ["model=mlp", "model.hidden=[24,16]", "model.batch_norm=true", "sparsity=0.5", "optim.lr=0.02",
        "trainer.max_epochs=null",
        "trainer.max_steps=20", "trainer.batch_size=32", "trainer.evals=1", "trainer.progress=none",
        "trainer.accelerator=cpu", "optim=sgd", "trainer.clip=null", "targets.exclude=[]"]  # fmt: skip


def test_a_run_has_the_exact_total_after_every_update_and_layers_of_their_own(tmp_path, monkeypatch):
    """Twenty updates on digits. Biases and norms stand still while scores move; counts move between layers."""
    seen = []
    real = Loop.on_train_batch_end

    def end(loop, trainer, task, *arguments):
        real(loop, trainer, task, *arguments)
        slots = loop.sparsifier.slots
        rest = [p.detach().clone() for p in task.network.parameters() if p.ndim == 1]
        seen.append(([int(slot.mask.sum()) for slot in slots], rest, [slot.master.clone() for slot in slots]))
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        assert len(rates) == 2
        assert rates[1] == pytest.approx(0.1 * 0.1 ** ((trainer.global_step >= 10) + (trainer.global_step >= 15)))

    monkeypatch.setattr(Loop, "on_train_batch_end", end)
    typed = ["method=bip", *CELL, "optim.warmup=0", f"runs_dir={tmp_path}"]
    assert run_cell(plan_of(typed)) == 0
    total = sum(seen[0][0])
    sizes = [64 * 24, 24 * 16, 16 * 10]
    assert total == sum(sizes) // 2 and all(sum(counts) == total for counts, _, _ in seen)
    assert len({tuple(counts) for counts, _, _ in seen}) > 1
    assert len({round(count / size, 3) for count, size in zip(seen[-1][0], sizes, strict=True)}) == 3
    for step, ((_, rest, weights), (_, later, moved)) in enumerate(itertools.pairwise(seen), 2):
        still = step % 2 == 0
        assert all(torch.equal(a, b) for a, b in zip(rest, later, strict=True)) == still
        assert all(torch.equal(a, b) for a, b in zip(weights, moved, strict=True)) == still
