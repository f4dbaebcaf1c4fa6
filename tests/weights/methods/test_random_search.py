"""Random search over masks: what is drawn, scored and kept (the dossier's "What a test can check exactly")."""

from __future__ import annotations

import math

import pytest
import torch
from hand_slots import hand_probe, hand_slots

from sparselab.core.errors import RunFailed
from sparselab.weights.methods.random_search import RandomSearch, numbers, parted

LAYERS = [(12, 8), (8, 12), (2, 8)]


def searching(trials, weights=0, seed=3, sparsity="unit:0.5", **options):
    generator = torch.Generator().manual_seed(weights)
    layers = [torch.randn(size, generator=generator) for size in LAYERS]
    return hand_slots("random_search", layers, sparsity, seed=seed, options={"trials": trials, **options})


def batches(count=4, size=16):
    generator = torch.Generator().manual_seed(9)
    return [
        (torch.randn(size, 8, generator=generator), torch.randn(size, 2, generator=generator)) for _ in range(count)
    ]


def started(sparsifier, examples=None):
    sparsifier.start(hand_probe(sparsifier, examples or batches()))
    return sparsifier


def told(sparsifier):
    return sparsifier.method.measures(sparsifier.slots)


def test_one_trial_is_the_random_mask_bit_for_bit():
    """Item 3: T = 1 gives searched == random."""
    ours = started(searching(1))
    generator = torch.Generator().manual_seed(0)
    theirs = hand_slots("random", [torch.randn(size, generator=generator) for size in LAYERS], "unit:0.5", seed=3)
    theirs.start()
    for one, other in zip(ours.slots, theirs.slots, strict=True):
        assert torch.equal(one.mask, other.mask) and torch.equal(one.param, other.param)
    assert told(ours)["score_first"] == told(ours)["score_best"] and told(ours)["trial"] == 1


def test_the_best_score_never_rises_with_the_number_of_trials():
    """Item 3: candidates are nested, so the best of more is at least as good."""
    found = [told(started(searching(trials, examples=32))) for trials in (1, 2, 4, 8, 32)]
    best = [one["score_best"] for one in found]
    assert best == sorted(best, reverse=True) and best[-1] < best[0]
    assert len({one["score_first"] for one in found}) == 1
    assert all(one["trial"] <= trials for one, trials in zip(found, (1, 2, 4, 8, 32), strict=True))


def test_candidates_depend_on_the_seed_alone_and_have_exact_counts():
    """Item 4: separate generators, and exactly k ones in each layer."""
    one, other, third = searching(4, weights=0), searching(4, weights=1), searching(4, seed=4)
    for a, b, c in zip(one.slots, other.slots, third.slots, strict=True):
        for trial in range(4):
            assert torch.equal(numbers(3, a, trial), numbers(3, b, trial))
            assert not torch.equal(numbers(3, a, trial), numbers(4, c, trial))
            units = a.pattern.mask(numbers(3, a, trial), 0.5).any(1)
            assert int(units.sum()) == len(a.param) // 2
    masks = {a.pattern.mask(numbers(3, one.slots[0], trial), 0.5).any(1).nonzero().flatten().tolist().__str__()
             for a in one.slots[:1] for trial in range(8)}  # fmt: skip
    assert len(masks) > 4


def test_the_least_of_uniform_scores_is_on_average_one_over_trials_plus_one(monkeypatch):
    """Item 7: E[min of T uniforms] = 1 / (T + 1), with a score that is drawn."""
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(
        RandomSearch, "rate", lambda *a: float(torch.rand((), generator=generator, dtype=torch.float64))
    )
    for trials in (1, 4):
        found = [told(started(searching(trials, examples=64)))["score_best"] for _ in range(400)]
        variance = trials / ((trials + 1) ** 2 * (trials + 2))
        assert abs(sum(found) / 400 - 1 / (trials + 1)) < 4 * math.sqrt(variance / 400)


def test_the_mask_that_is_kept_is_the_one_with_the_best_score():
    sparsifier = started(searching(16, examples=32))
    number = int(told(sparsifier)["trial"]) - 1
    again = searching(1)
    for slot, other in zip(sparsifier.slots, again.slots, strict=True):
        assert torch.equal(slot.mask, other.pattern.mask(numbers(3, other, number), 0.5))
    probe = hand_probe(again, batches())
    masks = {slot.name: slot.mask for slot in sparsifier.slots}
    searched, held = parted(probe, 32)
    assert again.method.rate(probe, again.slots, masks, searched) == told(sparsifier)["score_best"]
    assert again.method.rate(probe, again.slots, masks, held) == told(sparsifier)["held_best"]


def test_a_score_is_the_loss_of_the_masked_network_by_hand():
    sparsifier = started(searching(1, examples=32))
    searched = batches()[:2]
    x, y = (torch.cat(part) for part in zip(*searched, strict=True))
    for slot in sparsifier.slots[:-1]:
        x = (x @ slot.param.T).relu()
    loss = ((x @ sparsifier.slots[-1].param.T - y) ** 2).mean()
    assert told(sparsifier)["score_first"] == pytest.approx(float(loss), rel=1e-6)


def test_the_network_itself_is_not_moved_by_a_search():
    sparsifier = searching(8)
    before = [slot.param.clone() for slot in sparsifier.slots]
    started(sparsifier)
    for slot, weight in zip(sparsifier.slots, before, strict=True):
        assert torch.equal(slot.param, weight * slot.mask)


def test_examples_are_those_of_the_first_epoch_and_the_ones_after_are_held_out():
    probe = hand_probe(searching(1), batches(4, 5))
    first, held = parted(probe, 8)
    whole = torch.cat([inputs for inputs, _ in batches(4, 5)])
    assert torch.equal(torch.cat([x for x, _ in first]), whole[:8])
    assert torch.equal(torch.cat([x for x, _ in held]), whole[8:16])
    first, held = parted(probe, 2000)
    assert sum(len(x) for x, _ in first) == 20 and held == []


@pytest.mark.parametrize(
    ("sizes", "examples", "expected"),
    [
        ([501, 501], 501, ([501], [501])),  # not 500 and 1
        ([1001], 500, ([500], [500])),
        ([1001], 1001, ([500, 501], [])),
        ([301], 300, ([300], [])),  # one example is left: nothing is held out
        ([1100], 1100, ([500, 500, 100], [])),
    ],
)
def test_no_batch_of_a_score_has_a_single_example(sizes, examples, expected):
    """Batch norms have no statistics of one example."""
    probe = hand_probe(searching(1), [(torch.zeros(size, 8), torch.zeros(size, 2)) for size in sizes])
    assert tuple([len(x) for x, _ in part] for part in parted(probe, examples)) == expected


def test_scores_that_are_not_finite_are_refused_before_training():
    """Updates that diverge leave nothing to compare: one line, not a record that cannot be written in the end."""
    with pytest.raises(RunFailed, match=r"method\.score=probe_loss is not finite — lower method\.probe_lr"):
        started(searching(4, examples=32, score="probe_loss", probe_steps=20, probe_lr=1e30))


def test_updates_before_the_score_keep_the_mask_and_lower_the_loss():
    plain = told(started(searching(4, examples=32)))
    probed = started(searching(4, examples=32, score="probe_loss", probe_steps=20, probe_lr=0.01))
    assert told(probed)["score_first"] < plain["score_first"]


def test_any_pattern_is_searched():
    for sparsity in (0.5, "2:4", "channel:0.5"):
        kept = [slot.kept for slot in started(searching(4, sparsity=sparsity, **{"examples": 8})).slots[:2]]
        assert kept == [48, 48]
