"""MdGf and SdGf (arXiv 2402.04744) against closed forms, their predecessor's vectors, and plain torch."""

from __future__ import annotations

import copy

import pytest
import torch
from data_specs import image_data
from hand_slots import hand_slots, sgd, update
from torch import nn, tensor

from sparselab.core.sparsity import Sparsity
from sparselab.inputs.models.family import MODELS
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.schedules.base import FADED

W = tensor([[0.1, -0.4, 0.3, 0.2]])
ONES = torch.ones(1, 4)
BACKWARD = pytest.mark.parametrize("backward", ["ste", "scaled"])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mdgf(weights, backward="ste", sparsity="2:4", schedule="mask_linear", soft_coefficient=None, **moments):
    """A started sparsifier; ``leak`` replaces the schedule's by a constant."""
    sparsifier = hand_slots("mdgf", weights, sparsity, schedule, options={"backward": backward}, **moments)
    if soft_coefficient is not None:
        sparsifier.schedule.soft_coefficient = lambda step, total: soft_coefficient
    sparsifier.start()
    return sparsifier


def trained(sparsifier, gradients, make=sgd, **options):
    """The effective weights after each update with ``gradients``."""
    optimizer, seen = make(sparsifier, **options), []
    for step, gradient in enumerate(gradients, 1):
        update(sparsifier, optimizer, step, [gradient])
        seen.append(sparsifier.slots[0].param.data.clone())
    return seen


# -- one update by hand ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backward", "want"), [("ste", [1, 1, 1, 1]), ("scaled", [0.25, 1, 1, 0.25])])
def test_effective_weights_and_what_the_optimiser_sees(backward, want):
    """A linear decay over four updates: after the third a quarter of every pruned weight is left."""
    sparsifier = mdgf(W, backward, total=4, end=1.0)
    slot = sparsifier.slots[0]
    assert torch.equal(slot.param.data, W), "beta(0) = 1"
    for step in (1, 2, 3):
        update(sparsifier, None, step, [torch.zeros(1, 4)])
    assert slot.soft_coefficient == 0.25
    torch.testing.assert_close(slot.param.data, tensor([[0.025, -0.4, 0.3, 0.05]]), rtol=0, atol=1e-8)
    slot.param.grad = ONES.clone()
    sparsifier.before_step(4)
    assert slot.param.grad.tolist() == [want]
    assert torch.equal(slot.param.data, W), "the optimiser moves the dense weights"
    sparsifier.after_step(4, None)
    assert slot.param.data.tolist() == tensor([[0.0, -0.4, 0.3, 0.0]]).tolist(), "hard at the end"


@pytest.mark.parametrize("u", [1, 10])
def test_the_vectors_of_the_jax_code(u):
    """google/aqt, aqt/jax_legacy/jax/sparsity: mask decay of 0.1 an update."""
    sparsifier = mdgf(tensor([[3.0, 4, 6, 8], [1, 2, 1, 4]]), schedule="mask_linear", coef=0.1, end=1.0, total=20)
    for step in range(1, u + 1):
        update(sparsifier, None, step, [torch.zeros(2, 4)])
    want = {1: [[2.7, 3.6, 6, 8], [0.9, 2, 0.9, 4]], 10: [[0, 0, 6, 8], [0, 2, 0, 4]]}[u]
    torch.testing.assert_close(sparsifier.slots[0].param.data, tensor(want, dtype=torch.float32), rtol=0, atol=1e-6)


# -- the ends of beta --------------------------------------------------------------------------------------------------


@BACKWARD
@pytest.mark.parametrize("make", [sgd, lambda s, **o: torch.optim.AdamW([x.param for x in s.slots], **o)])
def test_where_nothing_has_faded_training_is_dense_bit_for_bit(backward, make):
    weights, gradients = normal(4, 8), [normal(4, 8, seed=s) for s in range(1, 7)]
    sparsifier = mdgf(weights, backward, soft_coefficient=1.0)
    seen = trained(sparsifier, gradients, make, lr=0.1, weight_decay=0.1)
    dense = nn.Parameter(weights.clone())
    optimizer = make(type("One", (), {"slots": [type("S", (), {"param": dense})]}), lr=0.1, weight_decay=0.1)
    for gradient, effective in zip(gradients, seen, strict=True):
        dense.grad = gradient.clone()
        optimizer.step()
        assert torch.equal(dense.data, effective)


def test_where_all_has_faded_ste_is_plain_straight_through_training():
    weights, gradients = normal(4, 8), [normal(4, 8, seed=s) for s in range(1, 9)]
    faded = trained(mdgf(weights, soft_coefficient=0.0), gradients, momentum=0.9)
    for method, options in (("ste", {}), ("srste", {"lambda_w": 0.0}), ("sdgf", {})):
        schedule = "stepwise" if method == "sdgf" else "constant"
        plain = hand_slots(method, weights, "3:4" if method == "sdgf" else "2:4", schedule, options=options)
        same = (
            faded
            if method != "sdgf"
            else trained(mdgf(weights, sparsity="3:4", soft_coefficient=0.0), gradients, momentum=0.9)
        )
        plain.start()  # 3:4 has a single stage
        assert all(torch.equal(a, b) for a, b in zip(same, trained(plain, gradients, momentum=0.9), strict=True))


def test_where_all_has_faded_scaled_is_hard_masking():
    """The true derivative of W E: a pruned weight gets no gradient at all and stays where it is."""
    weights = normal(4, 8)
    sparsifier = mdgf(weights, "scaled", soft_coefficient=0.0)
    slot, optimizer, inputs = sparsifier.slots[0], sgd(sparsifier), normal(5, 8, seed=9)
    start, mask = slot.master.clone(), slot.mask.clone()
    for step in range(1, 7):
        leaf = slot.master.clone().requires_grad_()
        (inputs @ (leaf * slot.mask).T).square().sum().mul(1e-3).backward()
        upstream = torch.autograd.grad((inputs @ slot.param.T).square().sum().mul(1e-3), slot.param)[0]
        slot.param.grad = upstream.clone()
        sparsifier.before_step(step)
        torch.testing.assert_close(slot.param.grad, leaf.grad, rtol=1e-6, atol=1e-8)
        optimizer.step()
        sparsifier.after_step(step, optimizer)
        assert torch.equal(slot.mask, mask)
    assert torch.equal(slot.master[~mask], start[~mask]) and not torch.equal(slot.master[mask], start[mask])


@pytest.mark.parametrize("schedule", ["mask_linear", "mask_exp"])
def test_scaled_is_the_derivative_of_the_effective_weights_and_ste_is_not(schedule):
    weights, inputs = normal(6, 8), normal(5, 8, seed=2)
    found = {}
    for backward in ("ste", "scaled"):
        sparsifier = mdgf(weights, backward, schedule=schedule, total=10)
        slot = sparsifier.slots[0]
        for step in (1, 2, 3):
            update(sparsifier, sgd(sparsifier), step, [normal(6, 8, seed=10 + step)])
        leaf = slot.master.clone().requires_grad_()
        (inputs @ (leaf * (slot.mask + ~slot.mask * slot.soft_coefficient)).T).square().sum().backward()
        slot.param.grad = torch.autograd.grad((inputs @ slot.param.T).square().sum(), slot.param)[0]
        assert 0 < slot.soft_coefficient < 1
        sparsifier.before_step(4)
        found[backward] = torch.allclose(slot.param.grad, leaf.grad, rtol=1e-5)
    assert found == {"ste": False, "scaled": True}


# -- whole runs --------------------------------------------------------------------------------------------------------


@BACKWARD
@pytest.mark.parametrize("schedule", ["mask_linear", "mask_exp"])
def test_masks_are_exact_at_every_update_and_zeros_are_exact_once_the_mask_is_hard(schedule, backward):
    sparsifier = mdgf(normal(4, 16), backward, "1:8", schedule, total=20, end=0.7)
    slot, optimizer = sparsifier.slots[0], sgd(sparsifier)
    for step in range(1, 21):
        update(sparsifier, optimizer, step, [normal(4, 16, seed=step)])
        assert slot.pattern.holds(slot.mask) and int(slot.mask.sum()) == slot.kept == 8
        alive = int(torch.count_nonzero(slot.param.data[~slot.mask]))
        assert alive == (0 if step >= 14 else 56)
        assert slot.computing == (8 if step >= 14 or slot.soft_coefficient < FADED else 64)


def test_what_an_exponential_decay_leaves_at_the_end_is_what_the_hard_mask_gives():
    """beta(T) = exp(-16) is 1.1e-7: the network of the last soft update computes what the hard one does."""
    sparsifier = mdgf(normal(8, 16), schedule="mask_exp", sparsity="1:4", rate=16.0, total=100, end=1.0)
    slot, optimizer, inputs = sparsifier.slots[0], sgd(sparsifier, lr=0.01), normal(32, 16, seed=3)
    for step in range(1, 100):
        update(sparsifier, optimizer, step, [normal(8, 16, seed=step)])
    soft, hard = inputs @ slot.param.data.T, inputs @ (slot.master * slot.mask).T
    assert torch.count_nonzero(slot.param.data) == slot.mask.numel()
    assert float((soft - hard).norm() / hard.norm()) < 1e-6
    update(sparsifier, None, 100, [torch.zeros(8, 16)])
    assert torch.equal(slot.param.data, slot.master * slot.mask)


@pytest.mark.parametrize(
    ("method", "schedule", "options"),
    [
        ("mdgf", "mask_linear", {}),
        ("mdgf", "mask_exp", {}),
        ("sdgf", "stepwise", {}),
        ("sdgf", "geometric", {"k_max": 2}),
    ],
)
def test_before_the_sparse_phase_the_layer_is_dense(method, schedule, options):
    """The parameter is the dense weight itself, and a layer's bias is nobody's business."""
    layer = nn.Linear(16, 4)
    sparsifier = hand_slots(method, layer.weight.detach(), "2:4", schedule, total=10, begin=0.4, end=0.8, **options)
    sparsifier.start()
    slot, inputs = sparsifier.slots[0], normal(3, 16)
    for step in (1, 2, 3):
        assert torch.equal(nn.functional.linear(inputs, slot.param, layer.bias), layer(inputs))
        assert slot.mask.all() and slot.soft_coefficient == 0 and sparsifier.ledger == [(0, {"layer0": 64})]
        update(sparsifier, None, step, [torch.zeros(4, 16)])
    update(sparsifier, None, 4, [torch.zeros(4, 16)])
    assert not slot.mask.all()


def test_structures_follow_their_stages_and_the_ledger_has_each():
    sparsifier = hand_slots("sdgf", normal(2, 16), "1:8", "stepwise", total=20, end=0.8)
    sparsifier.start()
    slot, optimizer = sparsifier.slots[0], sgd(sparsifier)
    seen = [str(slot.pattern.sparsity)]
    for step in range(1, 21):
        update(sparsifier, optimizer, step, [normal(2, 16, seed=step)])
        assert slot.pattern.holds(slot.mask) and slot.pattern.holds(slot.param.data != 0)
        seen.append(str(slot.pattern.sparsity))
    sparsifier.finish()
    assert seen == ["7:8"] * 4 + ["4:8"] * 4 + ["2:8"] * 4 + ["1:8"] * 9
    assert sparsifier.ledger == [(0, {"layer0": 28}), (4, {"layer0": 16}), (8, {"layer0": 8}), (12, {"layer0": 4})]
    assert sparsifier.stage() == {"n": 1, "m": 8}


def test_a_geometric_decay_keeps_its_density_and_narrows_its_groups():
    sparsifier = hand_slots("sdgf", normal(2, 64), "1:8", "geometric", total=16, end=1.0)
    sparsifier.start()
    slot, groups = sparsifier.slots[0], {}
    for step in range(1, 17):
        update(sparsifier, None, step, [torch.zeros(2, 64)])
        assert int(slot.mask.sum()) == 16
        groups[step] = sorted({int(n) for n in slot.mask.view(-1, 8).sum(1)})
    assert groups[1] != [1] and groups[16] == [1], "8:64 need not be 1:8"
    assert sparsifier.ledger == [(0, {"layer0": 16})]


@pytest.mark.parametrize(
    ("method", "schedule", "moments"),
    [
        ("mdgf", "mask_linear", {"end": 0.8}),
        ("mdgf", "mask_exp", {}),
        ("sdgf", "stepwise", {"end": 0.8}),
        ("srste", "geometric", {"k_max": 4, "end": 0.8}),
    ],
)
@pytest.mark.parametrize("at", [0, 3, 7, 10])
def test_a_saved_state_goes_on_bit_for_bit(method, schedule, moments, at):
    """Structure and beta are functions of the update; nothing of them is lost when a run is resumed."""
    gradients = [normal(4, 32, seed=s) for s in range(1, 11)]

    def fresh():
        return hand_slots(method, normal(4, 32), "2:8", schedule, total=10, **moments)

    whole = fresh()
    whole.start()
    optimizer = sgd(whole)
    state = weights = None
    for step in range(11):
        if step:
            update(whole, optimizer, step, [gradients[step - 1]])
        if step == at:
            state, weights = copy.deepcopy(whole.state_dict()), whole.slots[0].param.data.clone()
    resumed = fresh()
    resumed.slots[0].param.data.copy_(weights)
    resumed.load_state_dict(state)
    resumed.verify()
    optimizer = sgd(resumed)
    for step in range(at + 1, 11):
        update(resumed, optimizer, step, [gradients[step - 1]])
    whole.finish()
    resumed.finish()
    for a, b in zip(whole.slots, resumed.slots, strict=True):
        assert torch.equal(a.param.data, b.param.data) and torch.equal(a.mask, b.mask)
        assert a.pattern == b.pattern and a.soft_coefficient == b.soft_coefficient == 0
    assert whole.ledger == resumed.ledger


def test_a_hardening_whose_update_was_skipped_is_made_at_the_finish():
    sparsifier = mdgf(normal(2, 8), schedule="mask_exp", rate=3.0, total=4, end=1.0)
    for step in (1, 2, 3):
        update(sparsifier, None, step, [torch.zeros(2, 8)])
    slot = sparsifier.slots[0]
    assert torch.count_nonzero(slot.param.data) == 16
    sparsifier.before_step(4)
    sparsifier.unswap()
    sparsifier.finish()
    assert torch.equal(slot.param.data, slot.master * slot.mask) and torch.count_nonzero(slot.param.data) == 8
    assert sparsifier.ledger == [(0, {"layer0": 16}), (4, {"layer0": 8})]


# -- where it is put ---------------------------------------------------------------------------------------------------


def test_rows_and_columns_are_grouped_apart():
    asked, weights = Sparsity.parse("1:2"), tensor([[1.0, 2.0], [3.0, 4.0]])
    assert (weights * Pattern.of(asked, axis="in").mask(weights)).tolist() == [[0, 2], [0, 4]]
    assert (weights * Pattern.of(asked, axis="out").mask(weights)).tolist() == [[0, 0], [3, 4]]


def test_feed_forward_layers_are_64_percent_of_a_block_of_vit_b():
    """8 T D^2 / (12 T D^2 + 2 T^2 D) with T = 197 and D = 768."""
    family = MODELS["vit"](MODELS["vit"].Options(width=768, depth=12, heads=12))
    model_spec = family.model_spec(image_data((3, 224, 224), 1000))
    ff = sum(layer.macs for layer in model_spec.layers if "ff" in layer.roles)
    blocks = sum(layer.macs for layer in model_spec.layers if layer.name.startswith("blocks.")) + sum(
        model_spec.fixed_macs.values()
    )
    t, d = 197, 768
    assert ff / blocks == pytest.approx(8 * t * d**2 / (12 * t * d**2 + 2 * t**2 * d), rel=1e-12)
    assert round(ff / blocks, 3) == 0.639
    for pattern, relative in (("2:4", 0.680), ("1:4", 0.521), ("1:8", 0.441), ("1:16", 0.401), ("1:32", 0.381)):
        density = Sparsity.parse(pattern).density
        forward = 1 - ff / blocks * (1 - density)
        assert forward == pytest.approx(relative, abs=6e-4)
