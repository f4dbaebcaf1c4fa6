"""Checks of any mask: shuffled, inverted, under other initial weights; and what a cell cost with all that it stands on."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage import record

COMMON = {
    "model": "mlp", "model.hidden": "[16,8]", "dataset.limit_train": 400, "dataset.limit_test": 100, "dataset.val": 0,
    "trainer.max_epochs": "null", "trainer.batch_size": 100, "trainer.precision": '"32"', "trainer.threads": 1,
    "trainer.progress": "none", "trainer.accelerator": "cpu", "trainer.evals": 0, "optim": "sgd", "optim.lr": 0.05,
}  # fmt: skip


def words(**more):
    return [f"{key}={value}" for key, value in {**COMMON, **{k.replace("__", "."): v for k, v in more.items()}}.items()]


def cell(take="", **more):
    return f"{{cell: {{{', '.join(text.replace('=', ': ', 1) for text in words(**more))}}}{take}}}"


def ran(folder, **more):
    plan = plan_of([*words(**more), f"runs_dir={folder}"])
    for parent in (*plan.parent_plans, plan):
        assert run_cell(parent) == 0
    return record.read(plan.folder), load_file(f"{plan.folder}/masks.safetensors")


MASKED = [
    {"method": "magnitude", "schedule__at": 0},
    {"method": "snip"},
    {"method": "grasp"},
    {"method": "synflow", "method__rounds": 5},
    {"method": "random", "distribution": "erk"},
    {"method": "cts", "schedule__at": 1.0, "optim__lr": 0.1, "trainer__max_steps": 8},
]


@pytest.mark.parametrize("made", MASKED, ids=lambda made: made["method"])
def test_a_shuffled_mask_keeps_as_many_in_each_layer_and_an_inverted_one_shares_nothing(made, tmp_path):
    made = {"sparsity": 0.8, "trainer__max_steps": 0, **made}
    _, plain = ran(tmp_path, **made)
    _, shuffled = ran(tmp_path / "shuffled", **made, targets__shuffle="true")
    for name, mask in plain.items():
        assert shuffled[name].sum() == mask.sum() and not torch.equal(shuffled[name], mask)
    if made["method"] == "random":  # nothing to invert
        return
    _, inverted = ran(tmp_path / "inverted", **made, targets__keep="smallest")
    assert sum(int(mask.sum()) for mask in inverted.values()) == sum(int(mask.sum()) for mask in plain.values())
    assert not any(bool((inverted[name] & mask).any()) for name, mask in plain.items())


def test_a_mask_of_another_cell_is_shuffled_and_put_on_other_initial_weights(tmp_path):
    """Re-initialisation: the masks of one seed, the initial weights of another. The cost counts both parents once."""
    found = {"method": "snip", "sparsity": 0.8, "trainer__max_steps": 0, "seed": 0}
    other = {"method": "dense", "trainer__max_steps": 0, "seed": 7}
    told, plain = ran(tmp_path, **found)
    trained = {"method": "ticket", "sparsity": 0.8, "trainer__max_steps": 4, "distribution": "global"}
    its = {"targets__masks": cell(**found), "model__weights": cell(**other)}
    whole, masks = ran(tmp_path, **trained, **its)
    assert all(torch.equal(masks[name], plain[name]) for name in plain)
    _, moved = ran(tmp_path, **trained, **its, targets__shuffle="true")
    assert all(moved[name].sum() == plain[name].sum() for name in plain)
    assert any(not torch.equal(moved[name], plain[name]) for name in plain)
    assert whole["times"]["lineage_steps"] == 4 and told["id"] in whole["times"]["lineage"]
    assert len(whole["times"]["lineage"]) == 2
    assert whole["times"]["lineage_fit"] == pytest.approx(
        whole["times"]["fit"] + sum(fit for fit, *_ in whole["times"]["lineage"].values()), abs=2e-3
    )
    assert whole["times"]["lineage_flops"] == whole["account"]["flops_train"] > 0  # of parents that never trained


def test_early_weights_cost_the_part_of_the_run_up_to_them(tmp_path):
    """Rounds of pruning: the masks after k rounds of one run, of which k rounds count."""
    early = {"method": "dense", "trainer__max_steps": 3, "optim__schedule": "constant", "optim__warmup": 0.0}
    rounds = {"method": "imp", "sparsity": 0.36, "schedule__rounds": 2, "method__rewind": 0.0, "optim__cycles": 3,
              "trainer__max_steps": 12, "trainer__keep_at": "[4, 8]", "model__weights": cell(**early)}  # fmt: skip
    start, _ = ran(tmp_path, **early)
    for at, sparsity in ((4, 0.2), (8, 0.36)):
        told, masks = ran(
            tmp_path, method="ticket", sparsity=sparsity, distribution="global", trainer__max_steps=4,
            model__weights=cell(**early), method__source=cell(f", at: {at}", **rounds),
        )  # fmt: skip
        total = sum(mask.numel() for mask in masks.values())
        assert sum(int(mask.sum()) for mask in masks.values()) == pytest.approx((1 - sparsity) * total, abs=1)
        assert told["times"]["lineage_steps"] == 3 + at + 4
        assert told["times"]["lineage"][start["id"]][1:] == [3, start["account"]["flops_train"]]
        parent = record.read(tmp_path / told["config"]["method"]["source"].removeprefix("cell:").partition("@")[0])
        flops = [
            start["account"]["flops_train"],
            parent["account"]["flops_train"] * at / 12,
            told["account"]["flops_train"],
        ]
        assert told["times"]["lineage_flops"] == pytest.approx(sum(flops))


def test_what_a_mask_preserves(tmp_path):
    """Of the network itself the divergence is 0; of a sparse one it is positive, both ways."""
    start = {"method": "dense", "trainer__max_steps": 4}
    asked = {"metric": "[against_dense]", "metric__against_dense__dense": cell(**start), "model__weights": cell(**start),
             "trainer__max_steps": 0}  # fmt: skip
    dense, _ = ran(tmp_path, method="dense", **asked)
    assert dense["metrics"]["test.kl_reverse"] == dense["metrics"]["test.kl_forward"] == 0
    sparse, _ = ran(tmp_path, method="magnitude", schedule__at=0, sparsity=0.9, **asked)
    assert min(sparse["metrics"]["test.kl_reverse"], sparse["metrics"]["test.kl_forward"]) > 0
    assert sparse["metrics"]["test.loss_batch"] == pytest.approx(sparse["metrics"]["test.loss"], rel=1e-4)  # no norms


@pytest.mark.parametrize("more", [{"model__dropout": 0.5}, {"model__batch_norm": "true", "dataset__limit_test": 101}])
def test_what_a_mask_preserves_has_no_noise_and_leaves_no_example_alone(tmp_path, more):
    """Dropout would tell a network from itself; 101 examples in batches of 100 leave one without statistics."""
    start = {"method": "dense", "trainer__max_steps": 2, **more}
    told, _ = ran(
        tmp_path, method="dense", metric="[against_dense]", metric__against_dense__dense=cell(**start),
        model__weights=cell(**start), **{**more, "trainer__max_steps": 0},
    )  # fmt: skip
    assert told["metrics"]["test.kl_reverse"] == told["metrics"]["test.kl_forward"] == 0
