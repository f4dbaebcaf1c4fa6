"""LAMP (arXiv 2010.07611) and OWL (arXiv 2310.05175): their formulas by hand, and totals to the weight."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from sparselab.core.errors import ConfigError
from sparselab.core.model_spec import Layer
from sparselab.core.options import validate
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.weights.count import nearest_count
from sparselab.weights.distributions import DISTRIBUTIONS
from sparselab.weights.distributions.lamp import lamp_scores
from sparselab.weights.distributions.owl import band, outlier_share


def make(name, **options):
    cls = DISTRIBUTIONS[name]
    return cls(validate(cls.Options, options, "distribution"))


def test_lamp_scores_by_hand():
    """Squares 9, 4, 4, 1: the first of the two 4s is divided by 13, the second by 17."""
    assert lamp_scores(tensor([[-2.0, 3.0], [1.0, 2.0]])).tolist() == pytest.approx([1, 4 / 13, 4 / 17, 1 / 18])
    assert lamp_scores(torch.zeros(2, 2)).tolist() == [0.0] * 4
    assert lamp_scores(tensor([0.0, 5.0])).tolist() == [1.0, 0.0]


def test_lamp_does_not_see_a_layer_s_scale():
    """A global ranking empties the small layer; LAMP keeps of both what each has above its own rest."""
    weights = {"a": tensor([[3.0, 2.0, 2.0, 1.0]]), "b": tensor([[0.3, 0.2, 0.2, 0.1]])}
    assert make("global").allocate_scored(weights, 0.5) == {"a": 4, "b": 0}
    assert make("lamp").allocate_scored(weights, 0.5) == {"a": 2, "b": 2}
    assert make("lamp").allocate_scored(weights, 0.25) == {"a": 1, "b": 1}


def test_lamp_adds_up_many_small_squares():
    """Float32 sums would stop growing: a thousand million equal squares, here a million of 1e-8 beside 1."""
    scores = lamp_scores(torch.cat([torch.ones(1), torch.full((1_000_000,), 1e-4)]))
    assert float(scores[-1]) == pytest.approx(1e-8 / (1 + 1_000_000 * 1e-8), rel=1e-6)


def test_owl_densities_by_hand():
    """Shares 0, 1/2 and 1 within a band of 2 x 0.08: 0, 0.08 and 0.16, less their mean, more the density."""
    assert band([0.01, 0.02, 0.03], [1, 1, 1], 0.3, 0.08) == pytest.approx([0.22, 0.3, 0.38])
    assert band([0.02, 0.02], [1, 3], 0.3, 0.08) == [0.3, 0.3]
    assert band([0.0, 1.0], [3, 1], 0.5, 0.1) == pytest.approx([0.45, 0.65])  # unequal blocks: the weighted mean
    assert band([0.0, 1.0], [1, 1], 0.95, 0.08) == pytest.approx([0.9, 1.0])  # the band is narrowed, not cut


def test_owl_counts_outliers_of_a_whole_block():
    """The mean is the block's, not each matrix's: 10 of [1, 1, 1, 1] and [10, 1, 1, 1] is above 4 x 17/8."""
    ones, one = torch.ones(2, 2), tensor([[10.0, 1.0], [1.0, 1.0]])
    assert outlier_share([ones, one], 4.0) == 1 / 8
    assert outlier_share([ones, one], 5.0) == 0.0
    assert outlier_share([ones], 1.0) == 0.0  # an outlier exceeds the mean


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.layers.3.self_attn.q_proj", "model.layers.3"),
        ("transformer.h.11.mlp.c_fc", "transformer.h.11"),
        ("layer2.0.conv1", "layer2.0"),
        ("blocks.7.attn.qkv", "blocks.7"),
        ("layers.0", "layers.0"),
        ("linear", "linear"),
    ],
)
def test_owl_reads_blocks_off_names(name, part):
    assert make("owl")._part(name) == part
    assert make("owl", per="layer")._part(name) == name


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.15, 1.0), st.sampled_from(["lamp", "owl"]), st.floats(0, 0.9))
def test_totals_are_exact(seed, density, name, spread):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"h.0.a": (5, 7), "h.0.b": (3, 4), "h.1.a": (8, 2), "h.2.a": (6, 6), "head": (4, 9)}
    scores = {name: torch.randn(shape, generator=generator).abs() ** 3 for name, shape in shapes.items()}
    options = {"spread": spread, "threshold": 2.0} if name == "owl" else {}
    kept = make(name, **options).allocate_scored(scores, density)
    total = sum(score.numel() for score in scores.values())
    assert sum(kept.values()) == nearest_count(density, total)
    assert all(1 <= kept[name] <= scores[name].numel() for name in scores)


def test_a_block_with_more_outliers_keeps_more_and_its_layers_keep_alike():
    flat, peaked = torch.ones(10, 10), torch.ones(10, 10)
    peaked[0, 0] = 1000.0
    scores = {"h.0.a": flat, "h.0.b": flat, "h.1.a": peaked, "h.1.b": flat}
    kept = make("owl", spread=0.1).allocate_scored(scores, 0.5)
    assert kept == {"h.0.a": 40, "h.0.b": 40, "h.1.a": 60, "h.1.b": 60}
    assert make("owl", spread=0.0).allocate_scored(scores, 0.5) == dict.fromkeys(scores, 50)


@pytest.mark.parametrize("name", ["lamp", "owl"])
def test_what_is_not_finite_is_refused(name):
    with pytest.raises(ValueError, match="NaN"):
        make(name).allocate_scored({"a": tensor([[1.0, nan]])}, 0.5)
    with pytest.raises(NotImplementedError):
        make(name).allocate([Layer("a", "linear", (2, 2), 0)], 0.5)


def test_owl_does_not_read_inputs_at_every_update():
    with pytest.raises(ConfigError) as refused:
        plan_of(["method=srste", "sparsity=0.5", "model=mlp", "distribution=owl"])
    assert [str(issue) for issue in refused.value.issues] == [
        "distribution=owl: method=srste makes new masks at every update, and each would read inputs anew"
        " — choose another distribution, or a method that makes few masks"
    ]


@pytest.mark.parametrize("choice", ["lamp", "owl"])
def test_a_network_gets_the_counts_of_its_own_weights(choice, tmp_path):
    """The record's densities are those of the rule on the initial weights; wanda reads inputs for itself and for owl."""
    words = [
        "model=gpt_tiny", "model.width=16", "model.depth=2", "model.heads=2", "dataset=stdlib", "dataset.max_bytes=40000",
        "dataset.block=16", "trainer.max_epochs=null", "trainer.max_steps=0", "sparsity=0.4", f"distribution={choice}",
        "trainer.batch_size=8", f"runs_dir={tmp_path}", 'trainer.precision="32"',
    ]  # fmt: skip
    body = {}
    for method in ("magnitude", "wanda"):
        at = ["schedule.at=0"] if method == "magnitude" else ["method.samples=8"]
        narrow = ["distribution.samples=8", "distribution.threshold=2"] if choice == "owl" else []
        plan = plan_of([*words, f"method={method}", *at, *narrow])
        run_cell(plan)
        found = json.loads((Path(plan.folder) / "record.json").read_text())["sparsity"]
        assert found["kept"] == nearest_count(0.6, found["weights"])
        body[method] = {layer["name"]: layer["density"] for layer in found["layers"]}
    assert body["magnitude"] == body["wanda"]  # how many is the distribution's affair, which ones the method's
    assert len(set(body["magnitude"].values())) > 1
