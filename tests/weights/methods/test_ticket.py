"""Masks that another network found: positions by hand, and a pruned network that is trained on as it is."""

from __future__ import annotations

import pytest
import torch
from hand_slots import hand_slots
from safetensors.torch import load_file, save_file

from sparselab.core.errors import ConfigError
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.weights.distributions.ranked import Global

CELL = [
    "model=mlp", "model.hidden=[16]", "trainer.max_epochs=null", "trainer.max_steps=12", "trainer.batch_size=16",
    "trainer.precision=32", "trainer.threads=1", "trainer.progress=none", "optim=sgd", "trainer.evals=0",
]  # fmt: skip


def test_the_sources_positions_and_the_networks_own_weights(tmp_path):
    save_file({"layer0.weight": torch.tensor([[1.0, -4.0, 0.0, 2.0]])}, tmp_path / "source.safetensors")
    sparsifier = hand_slots(
        "ticket", torch.tensor([[9.0, 8.0, 7.0, 6.0]]), options={"source": str(tmp_path / "source.safetensors")}
    )
    sparsifier.method.prepare(sparsifier.slots, None)
    sparsifier.start()
    assert sparsifier.slots[0].param.tolist() == [[0.0, 8.0, 0.0, 6.0]]


def test_without_a_source_a_sparse_network_keeps_its_own_mask():
    sparsifier = hand_slots("ticket", torch.tensor([[0.0, 1e-9, 0.0, -6.0]]))
    sparsifier.method.prepare(sparsifier.slots, None)
    sparsifier.start()
    assert sparsifier.slots[0].mask.tolist() == [[False, True, False, True]]


def test_a_layer_with_less_than_a_tenth_of_zeros_gets_no_mask():
    """9 of 100 zeros: whole, zeros included. 10 and 60 of 100: their own masks. Without the option every zero is masked."""
    weights = [torch.arange(1.0, 101).view(10, 10) for _ in range(3)]
    for weight, zeros in zip(weights, (9, 10, 60), strict=True):
        weight.view(-1)[:zeros] = 0
    kept = {}
    for spare in (0.1, 0.0):
        gone = (0 if spare else 9) + 10 + 60
        sparsifier = hand_slots("ticket", weights, options={"spare": spare}, sparsity=gone / 300)
        sparsifier.ranked = True
        sparsifier.allocate = lambda level, scores, gone=gone: Global(None).allocate_scored(scores, 1 - gone / 300)
        sparsifier.method.prepare(sparsifier.slots, None)
        sparsifier.start()
        kept[spare] = [int(slot.mask.sum()) for slot in sparsifier.slots]
        for slot, weight in zip(sparsifier.slots, weights, strict=True):
            assert slot.mask[weight != 0].all() and torch.equal(slot.param, weight)
    assert kept == {0.1: [100, 90, 40], 0.0: [91, 90, 40]}


def test_whole_layers_need_a_ranking_over_all_of_them():
    with pytest.raises(ConfigError, match=r"distribution=uniform: .* write distribution=global"):
        plan_of(["method=ticket", "sparsity=0.8", "method.spare=0.1", "distribution=uniform", *CELL])


def test_a_pruned_network_is_trained_on_and_no_zero_comes_back(tmp_path, monkeypatch):
    """A cell's network under its own mask, and a fresh one under the same: the zeros are the same in both."""
    monkeypatch.chdir(tmp_path)
    made = "cell:method=magnitude sparsity=0.8 distribution=global schedule.at=0.5 seed=3 " + " ".join(CELL)
    plans = [
        plan_of(["method=ticket", "sparsity=0.8", "seed=4", *CELL, f"{key}='{made}'"])
        for key in ("model.weights", "method.source")
    ]
    assert plans[0].parent_plans[0].id == plans[1].parent_plans[0].id and plans[0].id != plans[1].id
    for plan in (plans[0].parent_plans[0], *plans):
        assert run_cell(plan) == 0
    before, tuned, fresh = (
        load_file(f"{plan.folder}/model.safetensors")["layers.0.weight"] for plan in (plans[0].parent_plans[0], *plans)
    )
    assert torch.equal(tuned != 0, before != 0) and torch.equal(fresh != 0, before != 0)
    assert not torch.equal(tuned, before) and not torch.equal(fresh, tuned)


def test_a_source_that_is_not_there_or_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"method.source=nowhere.safetensors: no such file"):
        plan_of(["method=ticket", "sparsity=0.8", *CELL, "method.source=nowhere.safetensors"])
    save_file({"layers.0.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"method.source="):
        plan_of(["method=ticket", "sparsity=0.8", *CELL, f"method.source={tmp_path / 'other.safetensors'}"])


def test_weights_of_an_early_epoch_are_those_of_a_short_run_at_a_constant_rate(tmp_path, monkeypatch):
    """One-shot pruning with rewinding (arXiv 2304.04934): early weights under the finished network's mask.

    A longer run whose steps of the learning rate come later passes through the very same weights: here a rate of nearly
    nothing holds it there.
    """
    monkeypatch.chdir(tmp_path)
    cell = ["method=dense", *CELL, "optim.warmup=0", "optim.lr=0.05", "optim.weight_decay=5e-4"]
    early = [*cell, "trainer.max_steps=6", "optim.schedule=constant"]
    held = [*cell, "trainer.max_steps=12", "optim.schedule=step", "optim.milestones=[0.5]", "optim.gamma=1e-12"]
    weights = []
    for line in (early, held):
        plan = plan_of(line)
        run_cell(plan)
        weights.append(load_file(f"{plan.folder}/model.safetensors"))
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=1e-9)

    named = "'cell:" + " ".join(early) + "'"
    plan = plan_of(["method=ticket", "sparsity=0.8", f"method.source={named}", f"model.weights={named}", *CELL[:-1],
                    "trainer.evals=0", "trainer.max_steps=0"])  # fmt: skip
    assert [first.id for first in plan.parent_plans] == [plan_of(early).id]
    run_cell(plan)
    rewound = load_file(f"{plan.folder}/model.safetensors")
    kept = rewound["layers.0.weight"] != 0 if "layers.0.weight" in rewound else None
    for name, value in rewound.items():
        there = value != 0
        assert torch.equal(value[there], weights[0][name][there])
    assert kept is None or 0 < int(kept.sum()) < kept.numel()


def test_all_layers_are_ranked_together():
    """Pruning once, globally, by |w| (arXiv 2304.04934): [1, 2] and [3, 4] at one half leave nothing of the first."""
    weights = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -4.0]])]
    sparsifier = hand_slots("ticket", weights, sparsity=0.5)
    sparsifier.ranked = True
    sparsifier.allocate = lambda level, scores: Global(None).allocate_scored(scores, 0.5)
    sparsifier.method.prepare(sparsifier.slots, None)
    sparsifier.start()
    assert [slot.param.tolist() for slot in sparsifier.slots] == [[[0.0, 0.0]], [[3.0, -4.0]]]


def test_a_method_that_moves_its_masks_begins_with_the_given_ones():
    """SET keeps as many weights in each layer as the given masks do, whatever the distribution says."""
    torch.manual_seed(0)
    sparsifier = hand_slots("set", [torch.randn(4, 5), torch.randn(4, 5)], sparsity=0.5)
    given = {slot.name: torch.zeros(4, 5, dtype=torch.bool) for slot in sparsifier.slots}
    for mask, rows in zip(given.values(), (1, 3), strict=True):
        mask[:rows] = True
    sparsifier.given = given
    sparsifier.allocate = lambda level, scores: {
        slot.layer.name: int(given[slot.name].sum()) for slot in sparsifier.slots
    }
    sparsifier.start()
    for slot in sparsifier.slots:
        assert torch.equal(slot.mask, given[slot.name]) and slot.kept == int(given[slot.name].sum())
        assert torch.equal(slot.param.data != 0, slot.mask)
