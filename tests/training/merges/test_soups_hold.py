"""What holds of a merged network whatever was merged: means of equals, runs that break."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.loop.loop import Loop

torch.set_num_threads(1)
CELL = [
    "model=mlp", "model.hidden=[16]", "model.batch_norm=true", "dataset.limit_train=200", "dataset.limit_test=100",
    "dataset.val=60", "trainer.batch_size=20", "trainer.max_epochs=null", "trainer.precision=32", "trainer.threads=1",
    "trainer.progress=none", "trainer.evals=0", "trainer.accelerator=cpu", "optim=sgd", "optim.lr=0.05", "targets.exclude=[]",
]  # fmt: skip


def made(folder: Path, *words: str) -> tuple[Path, dict]:
    plan = plan_of([*CELL, *words, f"runs_dir={folder}"])
    assert run_cell(plan) == 0
    return Path(plan.folder), json.loads((Path(plan.folder) / "record.json").read_text())


@pytest.fixture(scope="module")
def pruned(tmp_path_factory) -> list[Path]:
    """Two networks of one mask, and a copy of the first."""
    folder = tmp_path_factory.mktemp("pruned")
    start, _ = made(folder, "method=magnitude", "schedule.at=0", "sparsity=0.8", "trainer.max_steps=5")
    both = [f"model.weights={start / 'model.safetensors'}", f"targets.masks={start / 'masks.safetensors'}"]
    found = [
        made(folder, "method=ticket", "sparsity=0.8", *both, f"seed={s}", "trainer.max_steps=6")[0] for s in (1, 2)
    ]
    return [*found, Path(shutil.copytree(found[0], folder / "again"))]


def soup_of(*folders: Path) -> str:
    return f"model.weights=[{', '.join(str(folder / 'model.safetensors') for folder in folders)}]"


@pytest.mark.parametrize("merge", ["uniform", "greedy"])
def test_the_mean_of_equal_networks_is_each_of_them_to_the_bit(merge, pruned, tmp_path):
    one, _, again = pruned
    words = ["method=dense", f"merge={merge}", soup_of(one, again), "trainer.max_steps=0", "metric=[ingredients]"]
    folder, record = made(tmp_path, *words)
    before, after = (load_file(place / "model.safetensors") for place in (one, folder))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    numbers = record["metrics"]
    assert numbers["test.over_mean"] == numbers["test.over_best"] == numbers["test.distance"] == 0
    assert numbers["test.ensemble_agreement"] == 1 and numbers["test.to_mean_max"] == 0
    assert (
        numbers["test.ensemble"]
        == numbers["test.ingredients_worst"]
        == pytest.approx(numbers["test.accuracy"], abs=1e-6)
    )


def test_the_order_of_parents_is_no_matter_to_a_mean(pruned, tmp_path):
    words = ["method=dense", "merge=uniform", "trainer.max_steps=0"]
    one, other = (made(tmp_path, *words, soup_of(*pair))[0] for pair in (pruned[:2], pruned[1::-1]))
    first, second = (load_file(place / "model.safetensors") for place in (one, other))
    assert all(torch.allclose(first[name], second[name], atol=1e-7) for name in first)


class Crash(BaseException):
    pass


def test_a_soup_that_is_retrained_goes_on_where_it_broke_and_is_not_merged_again(pruned, tmp_path, monkeypatch):
    words = [
        "method=magnitude", "schedule.at=0", "sparsity=0.9", "merge=uniform", "merge.recalibrate_share=0.5",
        soup_of(*pruned[:2]), "trainer.max_steps=8", "optim.schedule=llr", "optim.warmup=0.1", "metric=[ingredients]",
    ]  # fmt: skip
    whole, told = made(tmp_path / "whole", *words)
    real = Loop.on_train_batch_start

    def dies(loop, trainer, task, batch, index):
        if trainer.global_step == 5:
            raise Crash
        real(loop, trainer, task, batch, index)

    plan = plan_of([*CELL, *words, "trainer.checkpoint_every=2", f"runs_dir={tmp_path / 'broken'}"])
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Loop, "on_train_batch_start", dies)
        run_cell(plan)
    assert run_cell(plan_of([*CELL, *words, "trainer.checkpoint_every=2", f"runs_dir={tmp_path / 'broken'}"])) == 0
    states = [load_file(Path(place) / "model.safetensors") for place in (whole, plan.folder)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    again = json.loads((Path(plan.folder) / "record.json").read_text())["metrics"]
    assert all(again[key] == told["metrics"][key] for key in again if key.startswith("test."))
