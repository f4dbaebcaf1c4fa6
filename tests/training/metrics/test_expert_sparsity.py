"""Token- and chunk-level sparsity of experts: by hand, their order, and in the records of cells (arXiv 2507.08771)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparselab.core.errors import Stopped
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.loop.stopping import StopFlag
from sparselab.training.metrics.experts import chunks
from sparselab.training.runner import execute

CELL = [
    "model=llama_moe", "model.width=16", "model.depth=2", "model.heads=2", "model.experts=8", "model.expert_width=4",
    "dataset=stdlib", "dataset.max_bytes=60000", "dataset.limit_test=500", "dataset.block=32", "optim=adamw",
    "trainer.max_steps=4",
    "trainer.batch_size=4", "trainer.evals=0", 'trainer.precision="32"', "trainer.threads=1", "trainer.accelerator=cpu",
    "trainer.progress=none", "metric=[expert_sparsity]", "metric.expert_sparsity.windows=[1, 4, 8]",
]  # fmt: skip


def numbers(used, windows, there=None):
    used = torch.as_tensor(used)[None, None]
    there = torch.ones(used.shape[1:3], dtype=torch.bool) if there is None else there
    pairs, reuse, none, tokens, *rest = chunks(used & there.unsqueeze(-1), there, windows).tolist()
    return reuse / max(pairs, 1), none / tokens, [1 - a / b for a, b in zip(rest[::2], rest[1::2], strict=True)]


def of_sets(sets, experts):
    return [[i in chosen for i in range(1, experts + 1)] for chosen in sets]


def test_item_3_active_sets_of_the_paper():
    """{2,6}, {2,3,6}, {2,6}, {2,3,6} of 6: TLS 7/12, CLS_4 1/2, reuse 8/9."""
    reuse, none, (tls, cls) = numbers(of_sets([{2, 6}, {2, 3, 6}, {2, 6}, {2, 3, 6}], 6), [1, 4])
    assert (reuse, none, tls, cls) == pytest.approx((8 / 9, 0, 7 / 12, 1 / 2))


def test_item_4_chunks_of_one_are_tokens_and_longer_ones_are_never_sparser():
    torch.manual_seed(0)
    used = torch.rand(64, 12) < 0.2
    _, _, values = numbers(used, [1, 2, 4, 8, 16, 32, 64])
    assert values[0] == pytest.approx(1 - float(used.float().mean()))
    assert values == sorted(values, reverse=True) and values[0] > values[-1]


def test_item_4_equal_sets_have_one_sparsity_at_every_length():
    reuse, _, values = numbers(of_sets([{1, 4}] * 8, 5), [1, 2, 4, 8])
    assert values == pytest.approx([0.6] * 4) and reuse == 1


def test_tokens_without_an_expert_and_after_the_end_of_the_text():
    reuse, none, values = numbers(of_sets([{1}, set(), {2}, {2}], 4), [1, 2])
    assert none == 0.25 and reuse == 0.5 and values == pytest.approx([1 - 3 / 16, 0.75])
    there = torch.tensor([[True, True, True, False]])
    reuse, none, values = numbers(of_sets([{1}, set(), {2}, {2}], 4), [1, 2], there)
    assert none == pytest.approx(1 / 3) and reuse == 0 and values == pytest.approx([1 - 2 / 12, 0.75])


def record(tmp_path, *words):
    plan = plan_of([*CELL, *words, f"runs_dir={tmp_path}"])
    assert run_cell(plan) == 0
    return json.loads((Path(plan.folder) / "record.json").read_text())


def test_a_cell_has_its_sparsities_and_the_cost_of_experts_that_are_used(tmp_path):
    """TopK uses k of N: so do its multiply-accumulates, in the plan and as measured."""
    found = record(tmp_path, "method=dense", "model.router={name: topk, k: 2}")
    metrics = found["metrics"]
    assert metrics["test.tls"] == metrics["test.cls_1"] == 0.75 and metrics["test.no_expert"] == 0
    assert metrics["test.cls_8"] <= metrics["test.cls_4"] <= 0.75
    assert metrics["test.expert_macs_share"] == pytest.approx(0.25)
    layers = [
        layer for layer in found["account"]["layers"] if ".mlp.up_proj" in layer["name"] or ".mlp.down" in layer["name"]
    ]
    assert metrics["test.expert_macs"] == pytest.approx(sum(layer["macs"] for layer in layers))


def test_sparse_weights_and_sparse_activations_in_one_cell(tmp_path):
    """A quarter of the experts of which half the weights are left: an eighth of the work, by both sparsities."""
    words = [
        "method=gmp",
        "sparsity=0.5",
        "schedule=one_shot",
        "schedule.at=0.5",
        "targets.exclude=[@head,@embedding,@router]",
    ]
    words += ["distribution=uniform", "model.router={name: topk, k: 2}"]
    metrics = record(tmp_path, *words)["metrics"]
    assert metrics["test.tls"] == 0.75
    assert metrics["test.expert_macs_share"] == pytest.approx(0.125, abs=0.02)


def test_losses_go_on_where_a_run_stopped(tmp_path):
    """The factors of both adaptive losses are in checkpoints: stopped half-way and run again, bit for bit."""
    words = [*CELL, "method=dense", "loss=[activation_locality,chunk_sparsification,remoe_l1]", "loss.remoe_l1.k=2"]
    words += [
        "loss.chunk_sparsification.length=8",
        "loss.chunk_sparsification.settle=0",
        "loss.chunk_sparsification.every=1",
    ]
    words += ["loss.remoe_l1.weight=1e-3", "trainer.accumulate=2"]
    whole = execute(plan_of([*words, f"runs_dir={tmp_path / 'whole'}"]))

    class Late(StopFlag):
        looks = 0

        def __bool__(self):
            self.looks += 1
            return self.looks > 4

    flag = Late()
    flag.name = "test"
    with pytest.raises(Stopped):
        execute(plan_of([*words, f"runs_dir={tmp_path / 'cut'}"]), flag)
    again = execute(plan_of([*words, f"runs_dir={tmp_path / 'cut'}"]))
    assert again.resumed_from
    assert all(torch.equal(whole.state[name], tensor) for name, tensor in again.state.items())
