"""What a test can check exactly of Sparse Model Soups (arXiv 2306.16788). "item N" is the N-th of that list.

Items 5 (learning rates) and 9's way through a merge stand in test_retraining.py and test_merges.py, too.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparselab.config.plain import written
from sparselab.core.errors import ConfigError
from sparselab.experiments.tables.load import load
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage.tensors import load_masks
from sparselab.training.merges.merge import MERGES, average
from sparselab.training.merging import recalibrate

torch.set_num_threads(1)
OWN = {
    "model": "mlp", "model.hidden": [16], "model.batch_norm": True, "dataset.limit_train": 400, "dataset.limit_test": 200,
    "dataset.val": 100, "trainer.max_epochs": None, "trainer.max_steps": 4, "trainer.batch_size": 20, "trainer.precision": "32",
    "trainer.threads": 1, "trainer.progress": "none", "trainer.evals": 0, "trainer.accelerator": "cpu", "optim": "sgd",
    "optim.lr": 0.05, "targets.exclude": [],
}  # fmt: skip
PRUNED = {"method": "magnitude", "schedule.at": 0, "distribution": "global"}
CYCLES = (0.728558, 0.926319, 0.98)


def words(values: dict[str, object]) -> list[str]:
    return [f"{key}={written(value)}" for key, value in values.items()]


def share(goal: float, cycles: int) -> float:
    """The share p of the remaining weights that each cycle removes."""
    return 1 - (1 - goal) ** (1 / cycles)


@pytest.mark.parametrize(
    ("goal", "p", "after"),
    [(0.9, 0.535841, (0.535841, 0.784557, 0.9)), (0.98, 0.728558, (0.728558, 0.926319, 0.98))],
)
def test_item_1_sparsity_after_each_cycle(goal, p, after):
    assert share(goal, 3) == pytest.approx(p, abs=1e-6)
    assert [1 - (1 - share(goal, 3)) ** i for i in (1, 2, 3)] == pytest.approx(after, abs=1e-6)


def test_item_1_the_table_has_these_sparsities():
    rows = next(table for table in load("sparse_soups") if not table.name).rows
    found = [float(text.partition("=")[2]) for name in list(rows)[1:] for text in rows[name]]
    assert found == pytest.approx([1 - 0.02 ** (i / 3) for i in (1, 2, 3)], abs=1e-8)


@pytest.fixture(scope="module")
def soups(tmp_path_factory):
    """Three cycles of two copies, and the whole lineage by id: (plan of the last soup, plans by id)."""
    folder = tmp_path_factory.mktemp("soups")
    dense = {"cell": {**OWN, "method": "dense"}}
    value = {
        "cell": {**OWN, **PRUNED, "optim.schedule": "llr", "optim.warmup": 0.1, "model.weights": dense},
        "vary": {"seed": [1, 2]},
        "chain": {"sparsity": list(CYCLES)},
        "merged": {"merge": "uniform", "trainer.max_steps": 0},
    }
    last = plan_of(
        [*words({**OWN, **PRUNED, "sparsity": 0.98, "trainer.max_steps": 0, "merge": "uniform", "model.weights": value}),
         "metric=[ingredients,corrupted]", "metric.ingredients.corrupted=[contrast]", "merge.recalibrate_share=0.2",
         f"runs_dir={folder}"]
    )  # fmt: skip
    plans: dict[str, object] = {}

    def run(plan):
        if plan.id not in plans:
            for parent in plan.parent_plans:
                run(parent)
            assert run_cell(plan) == 0
            plans[plan.id] = plan

    run(last)
    return last, plans


def masks(plan) -> dict[str, torch.Tensor]:
    return load_masks(Path(plan.folder) / "masks.safetensors")


def test_a_soup_is_a_cell_whose_parents_are_cells_and_each_runs_once(soups):
    """Dense, three cycles of two copies, three soups: ten cells, whoever needs them."""
    last, plans = soups
    assert len(plans) == 10 and len(last.parent_plans) == 2


def test_item_2_the_soup_has_the_zeros_of_each_ingredient_and_its_exact_sparsity(soups):
    last, _ = soups
    soup = load_file(f"{last.folder}/model.safetensors")
    for parent in last.parent_plans:
        own = load_file(f"{parent.folder}/model.safetensors")
        for name, mask in masks(parent).items():
            assert torch.equal(own[name] != 0, soup[name] != 0) and torch.equal(own[name] != 0, mask), name
            assert torch.equal(mask, masks(last)[name])
    kept = sum(int(mask.sum()) for mask in masks(last).values())
    total = sum(mask.numel() for mask in masks(last).values())
    assert kept == round(total * 0.02)


def test_item_2_the_mean_of_identical_networks_is_each_of_them():
    network = {"w": torch.randn(7, 5), "n": torch.tensor(3)}
    assert all(torch.equal(average([network] * 3)[name], network[name]) for name in network)


def test_item_3_the_union_of_random_masks():
    """Density 0.1, three masks: 1 - 0.9^3 = 0.271 of the mean's weights are not zero."""
    generator = torch.Generator().manual_seed(0)
    networks = [{"w": (torch.rand(1000, 1000, generator=generator) < 0.1).float()} for _ in range(3)]
    assert float((average(networks)["w"] != 0).float().mean()) == pytest.approx(0.271, abs=0.002)


def test_item_4_greedy_takes_what_is_as_good_and_leaves_what_is_worse():
    """Validation 70, 71, 69: from 71 on, with 70 it is 71.0 (taken), with 69 then 70.9 (left out)."""
    networks = [{"w": torch.tensor([float(i)])} for i in (70, 71, 69)]
    alone, trials = (
        [70.0, 71.0, 69.0],
        [71.0, 70.9],
    )  # validation accuracy of each, then of the two means that are tried
    answers = iter([*alone, *trials])
    asked: list[float] = []

    def score(state):
        asked.append(float(state["w"]))
        return next(answers)

    soup = MERGES["greedy"](MERGES["greedy"].Options()).merge(networks, score)
    assert asked == [70.0, 71.0, 69.0, 70.5, 70.0], "the second trial is the mean of all three"
    assert soup["w"].tolist() == [70.5]


def test_item_7_a_later_cycle_prunes_what_is_left_and_masks_are_nested(soups):
    """Of n weights that a cycle starts with, p n go; none that was gone comes back."""
    _, plans = soups
    of = {(plan.config["sparsity"], plan.steps): plan for plan in plans.values() if plan.config["sparsity"] is not None}
    counts = []
    for before, after in itertools.pairwise(CYCLES):
        first, second = masks(of[before, 4]), masks(of[after, 4])
        assert all(not (second[name] & ~first[name]).any() for name in first)
        counts.append([sum(int(mask.sum()) for mask in cycle.values()) for cycle in (first, second)])
    for left, kept in counts:
        assert kept == pytest.approx((1 - 0.728558) * left, abs=1), "to a weight"


def test_item_8_measured_again_only_statistics_change():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    recalibrate(network, lambda net, batch: net(batch), [torch.randn(8, 3) for _ in range(3)])
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_item_8_a_moving_average_keeps_a_part_of_what_was_reset():
    """Momentum 0.1, B batches of mean mu: mu (1 - 0.9^B); B = 15 gives 0.794109 mu. A plain mean gives mu."""
    network = nn.BatchNorm1d(1)
    batches = [torch.tensor([[2.0], [4.0]])] * 15
    recalibrate(network, lambda net, batch: net(batch), batches, momentum=0.1)
    assert float(network.running_mean) == pytest.approx(3.0 * 0.794109, abs=1e-5)
    recalibrate(network, lambda net, batch: net(batch), batches)
    assert float(network.running_mean) == pytest.approx(3.0) and network.momentum == 0.1


def test_scores_of_the_ingredients(soups):
    """The record's numbers are those of the copies' own records, but for statistics that were measured again."""
    last, _ = soups
    metrics = json.loads(Path(last.folder, "record.json").read_text())["metrics"]
    assert metrics["test.over_mean"] == pytest.approx(
        metrics["test.accuracy"] - metrics["test.ingredients_mean"], abs=1e-6
    )
    assert metrics["test.over_best"] == pytest.approx(
        metrics["test.accuracy"] - metrics["test.ingredients_best"], abs=1e-6
    )
    assert metrics["test.ingredients_worst"] <= metrics["test.ingredients_mean"] <= metrics["test.ingredients_best"]
    first, second = (load_file(f"{plan.folder}/model.safetensors") for plan in last.parent_plans)
    names = [name for name in first if "running" not in name and "tracked" not in name]
    squares = sum(float((first[name] - second[name]).double().square().sum()) for name in names)
    assert metrics["test.distance"] == pytest.approx(squares**0.5, rel=1e-5) == metrics["test.distance_max"]
    assert metrics["test.to_mean_max"] == pytest.approx(metrics["test.distance"] / 2, rel=1e-4)
    assert 0 <= metrics["test.ensemble_agreement"] <= 1
    soup = load_file(f"{last.folder}/model.safetensors")
    for name in names:
        torch.testing.assert_close(soup[name], (first[name] + second[name]) / 2)
    moved = [name for name in soup if name.endswith("running_mean")]
    assert moved and not any(torch.equal(soup[name], (first[name] + second[name]) / 2) for name in moved)


def test_networks_that_were_pruned_apart_average_only_where_that_is_asked_for(tmp_path):
    """The control: other masks are refused; with masks=any the mean is denser, or is pruned again to what is asked for."""
    apart = [
        {"cell": {**OWN, **PRUNED, "sparsity": 0.9, "seed": seed,
                  "model.weights": {"cell": {**OWN, "method": "dense", "seed": seed}}}}
        for seed in (1, 2)
    ]  # fmt: skip
    ask = {**OWN, "trainer.max_steps": 0, "merge": "uniform", "model.weights": apart}
    for parent in plan_of([*words({**ask, **PRUNED, "sparsity": 0.9}), f"runs_dir={tmp_path}"]).parent_plans:
        for one in (*parent.parent_plans, parent):
            assert run_cell(one) == 0
    with pytest.raises(ConfigError) as refused:
        plan_of([*words({**ask, **PRUNED, "sparsity": 0.9}), f"runs_dir={tmp_path}"])
    assert "merged, sparsity would be lost" in str(refused.value.issues[0])
    dense = plan_of([*words({**ask, "method": "dense"}), "merge.masks=any", f"runs_dir={tmp_path}"])
    pruned = words({**ask, **PRUNED, "sparsity": 0.9})
    again = plan_of([*pruned, "merge.masks=any", "merge.recalibrate=100", f"runs_dir={tmp_path}"])
    for plan in (dense, again):
        assert run_cell(plan) == 0
    counts = []
    for plan in (*dense.parent_plans, dense, again):
        state = load_file(f"{plan.folder}/model.safetensors")
        counts.append(sum(int((tensor != 0).sum()) for name, tensor in state.items() if tensor.ndim > 1))
    total = sum(tensor.numel() for tensor in state.values() if tensor.ndim > 1)
    assert counts[0] == counts[1] == counts[3] == round(total * 0.1)
    assert 0.14 < counts[2] / total <= 0.2, "about 1 - 0.9^2"


@pytest.mark.parametrize(
    ("words_", "line"),
    [
        (["merge.recalibrate=100", "merge.recalibrate_share=0.2"], "recalibrate and recalibrate_share say the same"),
        (["merge.momentum=0.1"], "momentum is of averages measured again, and nothing is measured"),
        (
            ["merge.recalibrate_share=0.01"],
            "merge.recalibrate_share=0.01: is less than a batch — write at least 0.05, or 0",
        ),
        (["merge.recalibrate_share=1.5"], "merge.recalibrate_share=1.5"),
        (["merge.recalibrate=401"], "merge.recalibrate=401: there are 400 training examples — write at most 400"),
        (["merge.recalibrate=1"], "merge.recalibrate=1: batch normalisation sees one value a channel in each batch"),
        (["merge.recalibrate_share=0.2", "trainer.batch_size=1"], "— write trainer.batch_size=2 or more"),
        (
            ["merge.recalibrate=100", "model.batch_norm=false"],
            "merge.recalibrate=100: the network has no batch normalisation — write model.batch_norm=true, or leave it out",
        ),
        (["merge.masks=some"], "merge.masks=some"),
        (["metric=[corrupted]", "metric.corrupted.severities=[6]"], "metric.corrupted.severities"),
        (["metric=[corrupted]", "metric.corrupted.kinds=[]"], "metric.corrupted.kinds"),
        (["metric=[corrupted]", "metric.corrupted.severities=[3,3]"], "names one twice"),
    ],
)
def test_bad_requests(words_, line):
    parents = [{"cell": {**OWN, "method": "dense", "seed": seed}} for seed in (1, 2)]
    with pytest.raises(ConfigError) as refused:
        plan_of([*words({**OWN, "method": "dense", "merge": "uniform", "model.weights": parents}), *words_])
    assert line in "\n".join(map(str, refused.value.issues))


def test_a_network_that_was_not_merged_has_no_ingredients():
    with pytest.raises(ConfigError) as refused:
        plan_of([*words({**OWN, "method": "dense"}), "metric=[ingredients]"])
    assert "metric=ingredients: looks at the networks that are merged, and there are none" in str(
        refused.value.issues[0]
    )


def test_networks_of_other_shapes_are_refused(tmp_path):
    parents = [{"cell": {**OWN, "method": "dense", "model.hidden": [width]}} for width in (16, 17)]
    ask = words({**OWN, "method": "dense", "trainer.max_steps": 0, "merge": "uniform", "model.weights": parents})
    for parent in plan_of([*ask, f"runs_dir={tmp_path}"]).parent_plans:
        assert run_cell(parent) == 0
    with pytest.raises(ConfigError) as refused:
        plan_of([*ask, f"runs_dir={tmp_path}"])
    assert len(refused.value.issues) == 1 and "17" in str(refused.value.issues[0])
