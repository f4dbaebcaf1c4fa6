"""The account in the record of a finished run against sums made by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from matrix_cells import SPARSITIES, Row, config_of

from sparselab.cli.run import run_cell
from sparselab.planning import engine_of
from sparselab.store import tensors

BATCH, UPDATES = 8, 12
A, B, HEAD = 64 * 16, 16 * 8, 8 * 10  # weights, and multiply-accumulates of one image: layers.0, layers.1, head (dense)
BIASES = 16 + 8 + 10
DENSE = A + B + HEAD


def record(tmp_path, row, *overrides, **groups):
    config = config_of(Row(*row.split()), tmp_path, *overrides, **groups)
    plan = engine_of(config).plan(config, [])
    assert run_cell(plan) == 0
    return json.loads(Path(plan.folder, "record.json").read_text())


def flops(*updates):
    """2 FLOPs per multiply-accumulate, a batch of images; an update is given as (forward, weight gradient) in MACs."""
    return 2 * BATCH * sum(2 * forward + weights for forward, weights in updates)


def test_dense(tmp_path):
    account = record(tmp_path, "dense dense constant")["account"]
    assert account["params"] == account["params_nonzero"] == DENSE + BIASES
    assert account["macs"] == account["macs_dense"] == DENSE
    assert account["flops"] == 2 * DENSE
    assert (
        account["flops_train"]
        == account["flops_train_dense"]
        == flops(*[(DENSE, DENSE)] * UPDATES)
        == 2 * 8 * 3 * DENSE * 12
    )


def test_straight_through_runs_sparse_forward_and_learns_from_the_whole_gradient(tmp_path):
    body = record(tmp_path, "srste nm constant")
    half = A // 2 + B // 2 + HEAD
    account = body["account"]
    assert account["macs"] == half and account["params_nonzero"] == half + BIASES
    assert account["flops_train"] == flops(*[(half, DENSE)] * UPDATES)
    assert body["sparsity"]["realised"] == 0.5 and body["sparsity"]["pattern_holds"]


def test_a_ramp_is_charged_as_it_was_climbed(tmp_path):
    """From update 0 to 8 every 2: new masks after updates 2, 4, 6 and 8, of 1 - (1 - t/8)^3 of the final sparsity."""
    ramp = {"begin": 0.0, "end": 2 / 3, "every": 2}
    body = record(tmp_path, "gmp unstructured cubic", "distribution=uniform", schedule=ramp)
    kept = {}
    for step, level in ((0, 0), (2, 37 / 64), (4, 7 / 8), (6, 63 / 64), (8, 1)):
        kept[step] = sum(size - round(level * (size - size // 4)) for size in (A, B)) + HEAD
    in_force = [kept[max(s for s in kept if s < update)] for update in range(1, UPDATES + 1)]
    account = body["account"]
    assert account["macs"] == A // 4 + B // 4 + HEAD
    assert account["flops_train"] == flops(*[(macs, macs) for macs in in_force])
    assert body["sparsity"]["realised"] == 0.75


def test_growth_by_gradient_is_charged_for_its_dense_gradients(tmp_path):
    """Exchanges after updates 2, 4, 6, 8 (before 0.75 of the run): those four have a dense weight gradient."""
    often = {"every": 2, "stop": 0.75}
    body = record(tmp_path, "rigl unstructured periodic", "distribution=uniform", schedule=often)
    sparse = A // 4 + B // 4 + HEAD
    account = body["account"]
    assert account["flops_train"] == flops(*[(sparse, sparse)] * 8, *[(sparse, DENSE)] * 4)


STAGES = {"schedule": {"begin": 0.0, "end": 0.75}}  # 9 updates for 3:4, 2:4 and 1:4


@pytest.mark.parametrize("backward", ["ste", "scaled"])
def test_structure_decay_is_charged_stage_by_stage(backward, tmp_path, monkeypatch):
    monkeypatch.setitem(SPARSITIES, "nm", "1:4")
    body = record(tmp_path, "sdgf nm stepwise", method={"backward": backward}, **STAGES)
    stages = [n * (A + B) // 4 + HEAD for n in [3] * 3 + [2] * 3 + [1] * 6]
    assert body["account"]["flops_train"] == flops(*[(n, DENSE if backward == "ste" else n) for n in stages])
    assert body["account"]["macs"] == stages[-1] and body["sparsity"]["pattern_holds"]


@pytest.mark.parametrize("backward", ["ste", "scaled"])
def test_mask_decay_is_dense_as_long_as_pruned_weights_take_part(backward, tmp_path):
    """beta is 1, 5/6 ... 1/6 in the first six updates, and then 0."""
    decay = {"schedule": {"begin": 0.0, "end": 0.5}}
    body = record(tmp_path, "mdgf nm mask_linear", method={"backward": backward}, **decay)
    half = (A + B) // 2 + HEAD
    hard = (half, DENSE if backward == "ste" else half)
    assert body["account"]["flops_train"] == flops(*[(DENSE, DENSE)] * 6, *[hard] * 6)
    assert body["metrics"]["train.leak_end"] == 0


def test_what_an_exponential_decay_leaves_at_the_end_is_told(tmp_path):
    body = record(tmp_path, "mdgf nm mask_exp", schedule={"begin": 0.0, "end": 1.0, "rate": 3.0})
    assert body["metrics"]["train.leak_end"] == pytest.approx(math.exp(-3 * 11 / 12))
    assert body["account"]["flops_train"] == body["account"]["flops_train_dense"]
    assert body["sparsity"]["realised"] == 0.5 and body["sparsity"]["pattern_holds"]


@pytest.mark.parametrize(
    ("method", "schedule"), [("magnitude", "one_shot"), ("random", "constant"), ("set", "periodic")]
)
def test_masked_training_is_charged_for_what_it_keeps(method, schedule, tmp_path):
    body = record(tmp_path, f"{method} unstructured {schedule}", "distribution=uniform")
    sparse = A // 4 + B // 4 + HEAD
    dense = UPDATES // 2 if method == "magnitude" else 0
    assert body["account"]["flops_train"] == flops(*[(DENSE, DENSE)] * dense, *[(sparse, sparse)] * (UPDATES - dense))


@pytest.mark.parametrize(
    ("row", "option"),
    [
        ("random unstructured constant", {"draw": "bernoulli"}),
        ("random unstructured one_shot", {"draw": "bernoulli"}),
        ("snip unstructured constant", {"positions": "bernoulli"}),
    ],
)
def test_independent_draws_are_charged_for_what_they_kept(row, option, tmp_path):
    body = record(tmp_path, row, "distribution=uniform", method=option)
    masks = tensors.load_masks(tmp_path / body["id"] / "masks.safetensors")
    a, b = (int(masks[f"layers.{i}.weight"].sum()) for i in (0, 1))
    sparse = a + b + HEAD
    assert (a, b) != (A // 4, B // 4)
    account, sparsity = body["account"], body["sparsity"]
    assert account["macs"] == sparse and account["params_nonzero"] == sparse + BIASES
    dense = UPDATES // 2 if "one_shot" in row else 0
    assert account["flops_train"] == flops(*[(DENSE, DENSE)] * dense, *[(sparse, sparse)] * (UPDATES - dense))
    assert sparsity["requested"] == "0.75" and sparsity["pattern_holds"]
    assert sparsity["realised"] == 1 - (a + b) / (A + B) and sparsity["kept"] == a + b
    assert [layer["density"] for layer in sparsity["layers"]] == [a / A, b / B]


def test_what_check_foresees_is_what_the_run_costs(tmp_path):
    for method, kind, schedule in (
        ("srste", "nm", "constant"),
        ("gmp", "unstructured", "cubic"),
        ("asp", "nm", "one_shot"),
        ("mdgf", "nm", "mask_exp"),
        ("sdgf", "nm", "stepwise"),
        ("sdgf", "nm", "geometric"),
    ):
        config = config_of(Row(method, kind, schedule), tmp_path / method)
        plan = engine_of(config).plan(config, [])
        assert run_cell(plan) == 0
        account = json.loads(Path(plan.folder, "record.json").read_text())["account"]
        assert {key: account[key] for key in plan.account} == plan.account


@pytest.mark.parametrize("sparsity", ["channel:0.3", "in_channel:0.35", "block:4x2:0.37"])
@pytest.mark.parametrize("schedule", ["one_shot", "cubic"])
def test_what_check_foresees_of_whole_tiles_is_what_the_run_costs(sparsity, schedule, tmp_path):
    """Shares that no number of channels or blocks has exactly, at the end and on the way."""
    config = config_of(Row("gmp", sparsity.partition(":")[0], schedule), tmp_path)
    config["sparsity"] = sparsity
    plan = engine_of(config).plan(config, [])
    assert run_cell(plan) == 0
    account = json.loads(Path(plan.folder, "record.json").read_text())["account"]
    assert {key: account[key] for key in plan.account} == plan.account


@pytest.mark.parametrize("method", ["magnitude", "dense"])
def test_zeros_are_counted_in_the_weights_whoever_put_them_there(method, tmp_path):
    """From a file of which nine tenths are zero, 2:4 leaves at most two of four, and what is zero stays uncounted."""
    torch.manual_seed(0)
    state = {}
    for name, shape in {"layers.0": (16, 64), "layers.1": (8, 16), "head": (10, 8)}.items():
        weight = torch.randn(shape)
        state |= {f"{name}.weight": weight * (torch.rand(shape) < 0.1), f"{name}.bias": torch.zeros(shape[0])}
    tensors.save(tmp_path / "sparse.safetensors", state)
    row = "magnitude nm one_shot" if method == "magnitude" else "dense dense constant"
    given = {"weights": str(tmp_path / "sparse.safetensors")}
    body = record(tmp_path, row, model=given, trainer={"max_steps": 0})
    made = tensors.load(tmp_path / body["id"] / "model.safetensors")
    there = {name: int(made[f"{name}.weight"].count_nonzero()) for name in ("layers.0", "layers.1", "head")}
    account, sparsity = body["account"], body["sparsity"]
    assert account["params_nonzero"] == sum(there.values()) + BIASES < 0.2 * DENSE + BIASES
    assert account["macs"] == sum(there.values()) and account["macs_dense"] == DENSE
    if method == "magnitude":
        assert sparsity["pattern_holds"] and [layer["holds"] for layer in sparsity["layers"]] == [True, True]
        assert [layer["density"] for layer in sparsity["layers"]] == [0.5, 0.5] and sparsity["kept"] == (A + B) // 2
        assert sparsity["realised"] == 1 - (there["layers.0"] + there["layers.1"]) / (A + B)
