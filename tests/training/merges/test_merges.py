"""Merges: means by hand, what a greedy soup takes, batch normalisation measured again, parents that do not go together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from sparselab.core.errors import ConfigError
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.merges.merge import MERGES, average
from sparselab.training.merging import one_mask, recalibrate

torch.set_num_threads(1)
CELL = [
    "model=mlp", "model.hidden=[8]", "dataset.limit_train=400", "dataset.limit_test=200", "dataset.val=100",
    "trainer.max_epochs=null", "trainer.max_steps=4", "trainer.batch_size=20", "trainer.precision=32", "trainer.threads=1",
    "trainer.progress=none", "optim=sgd", "optim.lr=0.05", "trainer.evals=0",
]  # fmt: skip


def state(*values: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(values), "count": torch.tensor(int(values[0]))}


def merged(name: str, parents: list[dict[str, torch.Tensor]], score=lambda state: 0.0) -> list[float]:
    return MERGES[name](MERGES[name].Options()).merge(parents, score)["w"].tolist()


def test_a_uniform_soup_is_the_mean():
    parents = [state(1.0, 0.0), state(2.0, 0.0), state(6.0, 3.0)]
    assert merged("uniform", parents) == [3.0, 1.0]
    assert int(average(parents)["count"]) == 1 and parents[0]["w"].tolist() == [1.0, 0.0]


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_the_mean_of_equals_is_each_of_them_and_zeros_stay(values, number):
    parent = {"w": torch.tensor([*values, 0.0])}
    assert torch.equal(average([parent] * number)["w"], parent["w"])


def test_a_greedy_soup_takes_what_does_not_lower_the_score():
    """Scores are -|mean - 4|. Alone: 5 and 3.5 and 9 have -1, -0.5, -5. From 3.5 on: with 5 it is 4.25 (taken), with 9 5.83."""
    parents = [state(5.0), state(3.5), state(9.0)]
    asked: list[float] = []

    def score(tensors: dict[str, torch.Tensor]) -> float:
        asked.append(float(tensors["w"]))
        return -abs(asked[-1] - 4)

    assert merged("greedy", parents, score) == [4.25]
    assert asked == pytest.approx([5, 3.5, 9, 4.25, 17.5 / 3])


def test_a_greedy_soup_of_equal_scores_takes_all():
    assert merged("greedy", [state(1.0), state(2.0)]) == [1.5]


def test_batch_normalisation_is_measured_again():
    """Means over batches of their means and unbiased variances: (1, 3) and (5, 9) of [[0], [2]] and [[2], [8]], doubled."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1), nn.Dropout(0.9)).train()
    nn.init.constant_(network[0].weight, 2.0)
    network[1].running_mean.fill_(77.0)
    batches = [torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0], [8.0]])]
    recalibrate(network, lambda net, batch: net(batch), batches)
    assert network[1].running_mean.tolist() == [(2.0 + 10.0) / 2]
    assert network[1].running_var.tolist() == [(8.0 + 72.0) / 2]
    assert network[1].momentum == 0.1 and network.training and network[1].training
    with pytest.raises(ConfigError, match=r"no batch normalisation — write merge\.recalibrate=0"):
        recalibrate(nn.Linear(1, 1), lambda net, batch: net(batch), batches)


def test_parents_of_different_masks_are_refused(tmp_path: Path):
    """By the masks beside the files where all have them, so that a kept zero is no difference; else by their zeros."""
    paths, states = [], []
    for number, mask in enumerate(([True, False], [True, False], [False, True])):
        folder = tmp_path / str(number)
        folder.mkdir()
        states.append({"w": torch.tensor([[float(number), 0.0]])})  # the first one's kept weight happens to be zero
        save_file(states[-1], folder / "model.safetensors")
        save_file({"w": torch.tensor([mask])}, folder / "masks.safetensors")
        paths.append(str(folder / "model.safetensors"))
    one_mask(paths[:2], states[:2])
    with pytest.raises(ConfigError, match="another mask than the first one's: merged, sparsity would be lost"):
        one_mask(paths, states)
    (tmp_path / "1" / "masks.safetensors").unlink()
    with pytest.raises(ConfigError, match="another mask than the first"):
        one_mask(paths[:2], states[:2])
    one_mask(paths[1:], states[1:])


def cell(seed: int, *more: str) -> str:
    return (
        f"{{cell: {{method: dense, {', '.join(text.replace('=', ': ', 1) for text in (*CELL, *more))}, seed: {seed}}}}}"
    )


def test_a_soup_of_cells_runs_its_parents_first(tmp_path, monkeypatch):
    """Three parents, one of a file; the merged network is their mean, and its id tells parents, order and rule."""
    monkeypatch.chdir(tmp_path)
    asked = [*CELL, "trainer.max_steps=0", "method=dense", "merge=uniform"]
    plan = plan_of([*asked, f"model.weights=[{cell(0)}, {cell(1)}]"])
    assert [len(plan.parent_plans), len(plan.parents)] == [2, 2]
    assert plan.recorded_config()["model"]["weights"] == [f"cell:{first.id}" for first in plan.parent_plans]
    ids = {plan_of([*asked, "merge=greedy", f"model.weights=[{cell(0)}, {cell(1)}]"]).id,
           plan_of([*asked, f"model.weights=[{cell(1)}, {cell(0)}]"]).id, plan.id}  # fmt: skip
    assert len(ids) == 3
    for one in (*plan.parent_plans, plan):
        assert run_cell(one) == 0
    first, second, mean = (load_file(f"{one.folder}/model.safetensors") for one in (*plan.parent_plans, plan))
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)
    greedy = plan_of([*asked, "merge=greedy", f"model.weights=[{cell(0)}, {cell(1)}]"])
    assert run_cell(greedy) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([f"model.weights=[{cell(0)}, {cell(1)}]"], "model.weights: 2 networks: nothing makes one of them — add merge=uniform"),
        (["merge=uniform"], "merge=uniform: there are no several networks — write model.weights=[{cell: …}, {cell: …}]"),
        (["merge=uniform", f"model.weights=[{cell(0)}, {cell(0)}]"], "weights[1]: is model.weights[0] again — name each"),
        (["merge=greedy", "dataset.val=0", f"model.weights=[{cell(0)}, {cell(1)}]"], "there are none — set dataset.val"),
        (["loss=[distill]", f"loss.distill.teacher=[{cell(0)}, {cell(1)}]"], "takes one cell, not several — keep one of them"),
        (["merge=uniform", f"model.weights=[{cell(0)}, nowhere.safetensors]"], "no such file — give the path of a"),
    ],
)  # fmt: skip
def test_bad_soups(words, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*CELL, "method=dense", *words])
    assert line in "\n".join(map(str, refused.value.issues))
