"""SynFlow: the flow by hand, what is gone stays gone, no layer is emptied early, and no data are needed."""

from __future__ import annotations

import torch
from hand_slots import hand_probe, hand_slots

from sparselab.weights.slot import UpdateContext

START = UpdateContext(0, 12, 0.0, 0)


def scores(weights, sparsity=0.5, inputs=None, **options):
    sparsifier = hand_slots("synflow", weights, sparsity, options=options)
    inputs = torch.randn(3, weights[0].shape[1]) if inputs is None else inputs
    sparsifier.method.prepare(sparsifier.slots, hand_probe(sparsifier, [(inputs, torch.zeros(3, 1))]))
    return [sparsifier.method.score(slot, START).exp() for slot in sparsifier.slots]


def test_the_flow_by_hand():
    """R = 1^T |W2| |W1| 1: of W1's entry (i, j) |w| times the column sum of |W2|, of W2's |w| times the row sum of |W1|."""
    w1, w2 = torch.tensor([[1.0, -2.0], [3.0, 0.5]]), torch.tensor([[-1.0, 2.0]])
    first, second = scores([w1, w2], rounds=1)
    torch.testing.assert_close(first, torch.tensor([[1.0, 2.0], [6.0, 1.0]]).double())
    torch.testing.assert_close(second, torch.tensor([[3.0, 7.0]]).double())
    assert float(first.sum()) == float(second.sum())  # what flows through one layer flows through the next


def test_inputs_and_signs_say_nothing():
    w1, w2 = torch.randn(5, 4), torch.randn(3, 5)
    one, other = scores([w1, w2], rounds=10), scores([-w1, w2.abs()], rounds=10, inputs=torch.zeros(3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_is_gone_stays_gone_and_no_layer_loses_everything():
    """At a density at which one look would empty a layer, rounds leave a path through all of them."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(20, 20, generator=generator), 0.01 * torch.randn(20, 20, generator=generator)]
    kept = [int((score > 1e-250).sum()) for score in scores(weights, 0.98, rounds=100)]
    assert sum(kept) <= 0.021 * 800 + 4 and min(kept) > 0
