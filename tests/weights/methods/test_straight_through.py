"""SR-STE and STE against the closed forms of arXiv 2102.04010 and its repository."""

from __future__ import annotations

import pytest
import torch
from hand_slots import hand_slots, sgd, update
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from sparselab.core.model_spec import Layer, ModelSpec
from sparselab.core.sparsity import Sparsity
from sparselab.weights.cost import cost_of
from sparselab.weights.patterns.pattern import Pattern

W = tensor([[1.0, -2.0, 3.0, 4.0]])
ONES = torch.ones(1, 4)


def test_the_mask_keeps_the_largest_magnitudes_of_each_group():
    sparsifier = hand_slots("srste", tensor([[0.1, -0.4, 0.3, 0.2]]), "2:4")
    sparsifier.start()
    assert sparsifier.slots[0].mask.tolist() == [[False, True, True, False]]
    assert sparsifier.slots[0].param.data.tolist() == tensor([[0.0, -0.4, 0.3, 0.0]]).tolist()


def test_ties_keep_exactly_n():
    sparsifier = hand_slots("ste", torch.ones(3, 8), "2:4")
    sparsifier.start()
    assert sparsifier.slots[0].mask.view(-1, 4).sum(1).tolist() == [2] * 6


@pytest.mark.parametrize(
    ("method", "options", "want"),
    [
        ("ste", {}, [1.0, 1.0, 1.0, 1.0]),
        ("srste", {"lambda_w": 0.1}, [1.1, 0.8, 1.0, 1.0]),
        ("srste", {"lambda_w": 0.0}, [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_gradient_that_the_optimiser_sees(method, options, want):
    sparsifier = hand_slots(method, W, "2:4", options=options)
    sparsifier.start()
    slot = sparsifier.slots[0]
    assert slot.param.data.tolist() == [[0.0, 0.0, 3.0, 4.0]]
    slot.param.grad = ONES.clone()
    sparsifier.before_step(1)
    assert torch.allclose(slot.param.grad, tensor([want]), rtol=0, atol=1e-7)
    assert torch.equal(slot.param.data, W), "the optimiser moves the dense weights"


def test_the_default_is_the_repository_s_lambda():
    assert hand_slots("srste", W, "2:4").method.options.lambda_w == 2e-4


def test_pruned_weights_decay_geometrically_where_the_loss_is_flat():
    """w0 (1 - h lambda)^t for pruned weights, nothing for kept ones: plain SGD, no gradient of the loss."""
    h, lam, t = 0.5, 0.1, 7
    sparsifier = hand_slots("srste", W, "2:4", options={"lambda_w": lam}, total=t)
    sparsifier.start()
    optimizer = sgd(sparsifier, lr=h)
    for step in range(1, t + 1):
        update(sparsifier, optimizer, step, [torch.zeros(1, 4)])
    master = sparsifier.slots[0].master
    assert torch.allclose(master[0, :2], W[0, :2] * (1 - h * lam) ** t, rtol=1e-6)
    assert torch.equal(master[0, 2:], W[0, 2:])


def test_momentum_accumulates_the_term_and_weight_decay_comes_on_top():
    """In numbers: v = mu v + g + lambda (1 - E) w + d w; w -= h v, with gradients that move the mask."""
    h, lam, mu, decay, steps = 0.1, 0.2, 0.9, 0.01, 9
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    gradients = [torch.randn(3, 8, generator=generator, dtype=torch.float64) for _ in range(steps)]
    sparsifier = hand_slots("srste", weights, "2:4", options={"lambda_w": lam}, total=steps)
    sparsifier.start()
    optimizer = sgd(sparsifier, lr=h, momentum=mu, weight_decay=decay)
    w, v, masks = weights.clone(), torch.zeros_like(weights), set()
    for step, gradient in enumerate(gradients, 1):
        order = w.abs().view(-1, 4).argsort(1, descending=True)
        keep = torch.zeros(6, 4, dtype=torch.float64).scatter_(1, order[:, :2], 1.0).view_as(w)
        v = mu * v + gradient + lam * (1 - keep) * w + decay * w
        w = w - h * v
        update(sparsifier, optimizer, step, [gradient])
        slot = sparsifier.slots[0]
        torch.testing.assert_close(slot.master, w, rtol=1e-12, atol=1e-12)
        order = w.abs().view(-1, 4).argsort(1, descending=True)
        keep = torch.zeros(6, 4, dtype=torch.float64).scatter_(1, order[:, :2], 1.0).view_as(w)
        torch.testing.assert_close(slot.param.data, w * keep, rtol=1e-12, atol=1e-12)
        masks.add(str(keep.tolist()))
    assert len(masks) > 2, "the gradients were meant to move the mask"


def test_pruned_weights_come_back_when_they_outgrow_others():
    sparsifier = hand_slots("ste", tensor([[1.0, 0.9, 0.1, 0.1]]), "2:4")
    sparsifier.start()
    update(sparsifier, sgd(sparsifier, lr=1.0), 1, [tensor([[0.0, 0.5, -1.0, 0.0]])])
    assert torch.allclose(sparsifier.slots[0].param.data, tensor([[1.0, 0.0, 1.1, 0.0]]))
    assert torch.allclose(sparsifier.slots[0].master, tensor([[1.0, 0.4, 1.1, 0.1]]))


@given(
    st.integers(0, 2**32), st.sampled_from(["2:4", "1:4", "1:2", 0.5, "channel:0.5", "in_channel:0.5"]), st.floats(0, 1)
)
@settings(max_examples=30)
def test_the_term_is_that_of_pruned_weights_only(seed, sparsity, lam):
    generator = torch.Generator().manual_seed(seed)
    weights, gradient = torch.randn(4, 8, generator=generator), torch.randn(4, 8, generator=generator)
    sparsifier = hand_slots("srste", weights, sparsity, options={"lambda_w": lam})
    sparsifier.start()
    slot = sparsifier.slots[0]
    slot.param.grad = gradient.clone()
    sparsifier.before_step(1)
    assert torch.equal(slot.param.grad[slot.mask], gradient[slot.mask])
    want = gradient + lam * weights
    assert torch.allclose(slot.param.grad[~slot.mask], want[~slot.mask], atol=1e-6)


def test_groups_run_along_input_channels_or_along_the_filter():
    """(1, 4, 1, 1) keeps channels 2 and 3; (1, 1, 2, 2) in filter order the last two positions; (1, 4, 2, 2) differ."""
    asked = Sparsity.parse("2:4")
    along, filters = Pattern.of(asked, "conv", "in"), Pattern.of(asked, "conv", "kernel")
    values = tensor([1.0, 2.0, 3.0, 4.0])
    assert along.mask(values.view(1, 4, 1, 1)).flatten().tolist() == [False, False, True, True]
    assert filters.mask(values.view(1, 1, 2, 2)).flatten().tolist() == [False, False, True, True]
    large = torch.arange(16.0).view(1, 4, 2, 2)
    assert not torch.equal(along.mask(large), filters.mask(large))


@pytest.mark.parametrize(("sparsity", "n", "m"), [("2:4", 2, 4), ("1:4", 1, 4), ("2:8", 2, 8), ("1:16", 1, 16)])
def test_forward_flops_are_n_of_m_of_the_dense_ones(sparsity, n, m):
    layer = Layer("layer", "linear", (32, 64), 32 * 64 * 5)
    kept = int(Pattern.of(Sparsity.parse(sparsity)).mask(torch.randn(32, 64)).sum())
    cost = cost_of(ModelSpec("one", (layer,), 32 * 64), {"layer": kept})
    assert cost.flops * m == cost.flops_dense * n
