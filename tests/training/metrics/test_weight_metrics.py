"""Near-zero weights and cosines of masks: by hand, by chance, and in the records of cells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn, tensor

from sparselab.cli import application
from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import ConfigError
from sparselab.core.model_spec import Layer
from sparselab.running.planning import plan_of
from sparselab.training.metrics.metric import METRICS, Subject
from sparselab.training.metrics.weights import by_chance, cosine, near_zero

WORDS = ["model=mlp", "model.hidden=[32]", "targets.exclude=[]", "trainer.max_epochs=null", "trainer.max_steps=0",
         'trainer.precision="32"']  # fmt: skip


def pair(a, b):
    return tensor(a).bool(), tensor(b).bool()


def test_cosine_by_hand():
    """The dossier's: [1,1,0,0] and [1,0,1,0] give 1/2, equal masks 1."""
    assert cosine([pair([1, 1, 0, 0], [1, 0, 1, 0])]) == 0.5
    assert cosine([pair([1, 1, 0, 1], [1, 1, 0, 1])]) == 1
    assert cosine([pair([1, 1, 0, 0], [0, 0, 1, 1])]) == 0
    assert cosine([pair([0, 0], [1, 1])]) == 0
    assert cosine([pair([1, 1], [1, 0]), pair([0, 1], [1, 1])]) == pytest.approx(
        2 / 3
    )  # over both layers: 2 / sqrt(3 * 3)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_two_random_masks_of_density_d_score_d(density):
    generator = torch.Generator().manual_seed(0)
    masks = [(torch.rand(100_000, generator=generator) < density) for _ in range(2)]
    assert cosine([(masks[0], masks[1])]) == pytest.approx(density, abs=0.01)
    assert by_chance([(masks[0], masks[1])]) == pytest.approx(density, abs=0.01)


def test_near_zero_is_in_units_of_the_matrix():
    weight = tensor([[-1.0, 1.0], [0.5, -0.5]])  # mean 0, standard deviation sqrt(5/8)
    assert [near_zero(weight, level) for level in (0.0, 0.5, 0.7, 2.0)] == [0, 0, 2, 4]
    assert near_zero(100 * weight, 0.7) == 2
    assert near_zero(torch.zeros(3), 0.0) == 3


def test_near_zeros_are_counted_over_all_layers_and_where_they_lie():
    weights = {
        Layer("a", "linear", (1, 4), 0, frozenset({"ff"})): tensor([[0.0, 0.0, 1.0, -1.0]]),
        Layer("b", "linear", (1, 4), 0, frozenset({"q"})): tensor([[0.0, 2.0, 1.0, -1.0]]),
    }
    subject = Subject(nn.Identity(), lambda x: x, lambda: iter(()), None, (), (), weights=weights)
    metric = METRICS["near_zero"](METRICS["near_zero"].Options(below=[0.0, 10.0]))
    assert metric.measure(subject) == {
        "near_zero_0": 3 / 8, "near_zero_0_ff": 2 / 3, "near_zero_10": 1.0, "near_zero_10_ff": 0.5,
    }  # fmt: skip


def test_they_are_for_any_data():
    for name in ("near_zero", "mask_cosine"):
        metric = METRICS[name](METRICS[name].Options())
        assert metric.issues(DataSpec.__new__(DataSpec)) == []


def test_cells_report_them_and_an_id_names_the_other_cell(tmp_path):
    """A dense network has near-zeros, and a mask is itself; another seed's random mask is met by chance."""
    runs = f"runs_dir={tmp_path}"
    other = "metric.mask_cosine.masks={cell: {model: mlp, model.hidden: [32], targets.exclude: [], method: random,"
    other += " distribution: uniform, sparsity: 0.5, trainer.max_epochs: null, trainer.max_steps: 0,"
    other += " trainer.precision: '32', seed: %d}}"

    def metrics(*words):
        assert application.main([*WORDS, runs, *words]) == 0
        plan = plan_of([*WORDS, runs, *words])
        return plan.id, json.loads((Path(plan.folder) / "record.json").read_text())["metrics"]

    _, dense = metrics("method=dense", "metric=[near_zero]", "metric.near_zero.below=[0,100]")
    assert dense["test.near_zero_0"] < 0.01 and dense["test.near_zero_100"] == 1
    random = ["method=random", "distribution=uniform", "sparsity=0.5", "metric=[mask_cosine]"]
    first, same = metrics(*random, other % 0)
    second, another = metrics(*random, other % 1)
    assert same["test.mask_cosine"] == 1 and same["test.mask_cosine_chance"] == pytest.approx(0.5, abs=0.01)
    assert another["test.mask_cosine"] == pytest.approx(0.5, abs=0.05)
    assert first != second


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["method=random", "sparsity=0.5"],
            "metric.mask_cosine.masks: names no masks — write a masks.safetensors, or {cell: …}",
        ),
        (
            ["method=dense", "metric.mask_cosine.masks=x/masks.safetensors"],
            "metric.mask_cosine: a dense cell has no masks — write a sparsity, or leave the metric out",
        ),
        (
            ["method=random", "sparsity=0.5", "metric.mask_cosine.masks=x/masks.safetensors"],
            "metric.mask_cosine.masks=x/masks.safetensors: no such file — give the path of a .safetensors file",
        ),
    ],
)  # fmt: skip
def test_bad_requests_are_one_line(words, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*WORDS, "distribution=uniform", "metric=[mask_cosine]", *words])
    assert line in [str(issue) for issue in refused.value.issues]
