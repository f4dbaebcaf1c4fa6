"""Masks of independent draws: what is random about them, what is not, and what a run makes of their counts."""

from __future__ import annotations

import json
from math import exp, sqrt
from pathlib import Path

import pytest
import torch
from hand_slots import hand_probe, hand_slots, sgd, update
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.core.errors import RunFailed
from sparselab.core.model_spec import Layer
from sparselab.running.planning import engine_of, plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage import tensors
from sparselab.weights.capabilities import KeepsByChance
from sparselab.weights.count import FALSE_ALARM, chance_miss
from sparselab.weights.distributions import DISTRIBUTIONS
from sparselab.weights.method import Method
from sparselab.weights.slot import UpdateContext

DRAWN = {"draw": "bernoulli"}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def at(seed):
    return UpdateContext(0, 12, 0.0, seed)


def started(weights, sparsity=0.75, seed=0, **options):
    sparsifier = hand_slots("random", weights, sparsity, seed=seed, options=DRAWN | options)
    sparsifier.start()
    return sparsifier


# -- the draw ---------------------------------------------------------------------------------------------------------


def test_the_count_has_mean_and_variance_of_independent_draws():
    """1,024 weights at 0.3 in 400 draws: 5 standard errors each, and no weight is favoured."""
    slot, kept, draws = hand_slots("random", torch.zeros(32, 32)).slots[0], 307, 400
    masks = torch.stack([at(seed).bernoulli(slot, kept) for seed in range(draws)]).double()
    p = kept / 1024
    counts = masks.sum((1, 2))
    assert abs(float(counts.mean()) - kept) <= 5 * sqrt(1024 * p * (1 - p) / draws)
    assert abs(float(counts.var()) / (1024 * p * (1 - p)) - 1) <= 5 * sqrt(2 / (draws - 1))
    assert float((masks.mean(0) - p).abs().max()) <= 5.5 * sqrt(p * (1 - p) / draws)


def test_all_layers_together_keep_the_request_on_average():
    """ERK of an MLP 784-300-100-10 at 0.1, whose last layer is dense: the mean density over 100 draws is 0.1."""
    shapes = {"layer0": (300, 784), "layer1": (100, 300), "layer2": (10, 100)}
    layers = [Layer(name, "linear", shape, shape[0] * shape[1]) for name, shape in shapes.items()]
    rule = DISTRIBUTIONS["erk"](DISTRIBUTIONS["erk"].Options())
    kept, shares = rule.allocate(layers, 0.1), rule.densities(layers, 0.1)
    assert all(abs(kept[x.name] / x.numel - shares[x.name]) < 1 / x.numel for x in layers)  # what weights are kept with
    total = sum(x.numel for x in layers)
    assert sum(kept.values()) == total // 10
    slots = hand_slots("random", [torch.zeros(shape) for shape in shapes.values()]).slots
    counts = [sum(int(at(seed).bernoulli(slot, kept[slot.layer.name]).sum()) for slot in slots) for seed in range(100)]
    variance = sum(kept[x.name] * (1 - kept[x.name] / x.numel) for x in layers)
    assert abs(sum(counts) / 100 - 0.1 * total) <= 5 * sqrt(variance / 100)
    assert at(0).bernoulli(slots[2], kept["layer2"]).all()  # density 1 leaves nothing to chance


def test_it_comes_from_the_seed_and_the_layer_s_name_alone():
    def masks(seed, init):
        torch.manual_seed(init)
        sparsifier = started([normal(8, 16, seed=init), normal(8, 16, seed=init + 1)], seed=seed)
        return [slot.mask.clone() for slot in sparsifier.slots]

    first = masks(seed=1, init=0)
    assert all(map(torch.equal, first, masks(seed=1, init=5))), "the weights' initialisation has no say"
    assert not torch.equal(first[0], masks(seed=2, init=0)[0])
    assert not torch.equal(first[0], first[1]), "layers of one shape draw different masks"


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), few=st.integers(0, 48), more=st.integers(0, 48))
def test_draws_of_one_seed_are_nested(seed, few, more):
    """They hold the largest of the seed's numbers, as the exact mask does: only how many is left to chance."""
    few, more = sorted((few, more))
    slot, context = hand_slots("random", torch.zeros(6, 8)).slots[0], at(seed)
    small, large = context.bernoulli(slot, few), context.bernoulli(slot, more)
    assert not (small & ~large).any()
    assert torch.equal(large, slot.pattern.mask(context.random(slot), int(large.sum()) / 48))
    assert not context.bernoulli(slot, 0).any() and context.bernoulli(slot, 48).all()


def test_snip_and_grasp_draw_with_the_densities_that_scores_give():
    weights, batches = [normal(8, 6), normal(6, 8)], [(normal(5, 6, seed=5), normal(5, 6, seed=6))]
    for method in ("snip", "grasp"):
        sparsifier = hand_slots(method, weights, options={"positions": "bernoulli"})
        sparsifier.method.prepare(sparsifier.slots, hand_probe(sparsifier, batches))
        for slot, kept in zip(sparsifier.slots, (5, 29), strict=True):
            assert torch.equal(sparsifier.method.remask(slot, kept, at(0)), at(0).bernoulli(slot, kept))
        assert not sparsifier.method.scores


# -- training -----------------------------------------------------------------------------------------------------------


def test_a_drawn_mask_never_changes_and_momentum_brings_nothing_back():
    sparsifier = started(normal(8, 16))
    slot, optimizer = sparsifier.slots[0], sgd(sparsifier, momentum=0.9, nesterov=True, weight_decay=0.1)
    first = slot.mask.clone()
    assert 0 < int(first.sum()) != 32
    for step in range(1, 51):
        update(sparsifier, optimizer, step, [normal(8, 16, seed=step)])
        assert torch.equal(slot.mask, first)
        assert torch.count_nonzero(slot.param.data[~first]) == 0
        assert torch.count_nonzero(slot.param.data) == slot.kept == int(first.sum())


def test_rescaling_divides_by_the_root_of_the_density_that_was_asked_for():
    plain, scaled = started(normal(8, 16)), started(normal(8, 16), rescale=True)
    assert torch.equal(scaled.slots[0].param.data, 2 * plain.slots[0].param.data)
    assert plain.slots[0].kept == scaled.slots[0].kept != 32


CELL = ["method=random", "method.draw=bernoulli", "model=mlp", "targets.exclude=[]",
        "distribution=uniform", "trainer.max_epochs=null", "trainer.max_steps=3", "trainer.batch_size=32",
        "trainer.evals=1", "trainer.progress=none", "trainer.accelerator=cpu", "optim=sgd"]  # fmt: skip


def test_a_layer_that_loses_everything_is_left_so(tmp_path):
    """As in the released code. 40 weights at 0.05 are all lost in one draw of eight."""
    slot = hand_slots("random", torch.zeros(10, 4)).slots[0]
    slot.layer = Layer("head", "linear", (10, 4), 40)
    seed = next(seed for seed in range(100) if not at(seed).bernoulli(slot, 2).any())
    plan = plan_of([*CELL, "model.hidden=[4]", "sparsity=0.95", f"seed={seed}", f"runs_dir={tmp_path}"])
    assert plan.parts.kept["head"] == 2 and run_cell(plan) == 0
    body = json.loads(Path(plan.folder, "record.json").read_text())
    first, head = body["sparsity"]["layers"]
    assert (head["name"], head["density"], head["nonzero"]) == ("head.weight", 0.0, 0)
    assert body["account"]["macs"] == body["sparsity"]["kept"] == round(first["density"] * 256)
    assert not tensors.load(Path(plan.folder) / "model.safetensors")["head.weight"].any()


@pytest.mark.instructions
def test_check_says_that_counts_are_means(tmp_path):
    drawn, exact = (plan_of([*CELL, "sparsity=0.9", f"method.draw={draw}"]) for draw in ("bernoulli", "exact"))
    assert drawn.cost == exact.cost and drawn.id != exact.id
    assert [note for note in drawn.notes if "are means" in note] and not exact.notes


# -- what is asked of a finished mask -----------------------------------------------------------------------------------


def test_how_far_chance_may_lead():
    """Bernstein's inequality, put in again; nothing where every density is 0 or 1."""
    assert chance_miss([(0, 7), (9, 9)]) == 0
    miss, variance = chance_miss([(50, 100), (100, 400), (3, 3)]), 25 + 75
    assert 2 * exp(-(miss**2) / (2 * (variance + miss / 3))) == pytest.approx(FALSE_ALARM)
    assert 7 * sqrt(variance) < miss < 9 * sqrt(variance)


class TooMany(KeepsByChance, Method):
    """Draws with half as much again."""

    by_chance = "another method"

    def remask(self, slot, kept, context):
        return context.bernoulli(slot, 3 * kept // 2)


class Drifts(Method):
    """Loses a weight at each update, and tells nobody."""

    def after_step(self, slot):
        slot.mask.view(-1)[int(slot.mask.view(-1).nonzero()[0])] = False


@pytest.mark.parametrize(
    ("cls", "line"),
    [
        (TooMany, r"sparsity: 1,[23]\d\d of 3,552 weights are kept, 888 were asked for"),
        (Drifts, r"layers\.0\.weight: 765 weights are kept, 768 when the mask was made"),
    ],
)
def test_a_mask_that_is_not_what_was_asked_for_fails_the_cell(cls, line, tmp_path):
    wrong = type("Wrong", (cls,), {"name": "wrong"})
    plan = plan_of([*CELL, "model.hidden=[48]", "sparsity=0.75", f"runs_dir={tmp_path}"])
    plan.parts.method = wrong(plan.parts.method.options)
    with pytest.raises(RunFailed, match=line):
        engine_of(plan.config).run(plan)
