"""The recurrent tables of gmp: narrow networks as large as pruned ones, and non-zeros as Distiller printed them."""

from __future__ import annotations

import os

import pytest

from sparselab.core import processor
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load
from sparselab.running.planning import plan_of

LSTM = load("gmp/lstm")[0]
# Vocabulary, width and layers of the large network.
SIZES = {"smoke": (256, 32, 1), "cpu": (66, 256, 1), "gpu": (256, 1500, 2), "paper": (33_278, 1500, 2)}
# Distiller's own networks, which are not matched.
GIVEN = {("paper", "70 %"): 650, ("paper", "90 %"): 200}


def weights(vocabulary: int, width: int, depth: int) -> int:
    """A tied embedding, and per layer four gates that read the input and the hidden state, both as wide as the layer."""
    return vocabulary * width + depth * 4 * width * (width + width)


def biases(vocabulary: int, width: int, depth: int) -> int:
    return vocabulary + depth * 2 * 4 * width


@pytest.fixture(autouse=True)
def avx512(monkeypatch):
    """These tables are pinned to bf16, and other processors compute no LSTM in it."""
    monkeypatch.setattr(processor, "processor_flags", lambda: processor.AVX512 | {"avx512_bf16"})


@pytest.fixture
def hub_on(monkeypatch, tmp_path):
    (tmp_path / "something_else").mkdir()
    monkeypatch.setenv("SPARSELAB_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def cells(tier: str, column: str):
    """(row, sparsity, overrides by key) of the first seed."""
    for cell in expand(LSTM, tier):
        if cell.column == column and cell.seed == LSTM.tiers[tier].seeds[0]:
            asked = float(LSTM.rows[cell.row][0].partition("=")[2])
            yield cell.row, asked, dict(item.split("=", 1) for item in cell.overrides)


@pytest.mark.parametrize("tier", SIZES)
def test_the_width_is_the_nearest(tier):
    vocabulary, large, depth = SIZES[tier]
    found = 0
    for row, asked, options in cells(tier, "small-dense"):
        kept = (1 - asked) * weights(vocabulary, large, depth) + biases(vocabulary, large, depth)
        sizes = {
            width: weights(vocabulary, width, depth) + biases(vocabulary, width, depth) for width in range(1, large)
        }
        nearest = min(sizes, key=lambda width: abs(sizes[width] - kept))
        assert int(options["model.width"]) == GIVEN.get((tier, row), nearest), (row, nearest)
        found += 1
    assert found == {"smoke": 1, "cpu": 3, "gpu": 4, "paper": 4}[tier]


@pytest.mark.parametrize("tier", ["smoke", "cpu", "gpu"])
def test_the_account_says_so_too(tier):
    """Non-zero parameters of both networks of a row, as a record counts them, within one unit of width."""
    if tier == "cpu" and not os.environ.get("SPARSELAB_DATA"):
        pytest.skip("the text is not here")
    large = {row: plan_of([f"{k}={v}" for k, v in o.items()]) for row, _, o in cells(tier, "large-sparse")}
    for row, _, options in cells(tier, "small-dense"):
        small = plan_of([f"{k}={v}" for k, v in options.items()]).cost["params_nonzero"]
        kept = large[row].cost["params_nonzero"]
        assert abs(small - kept) / kept < (0.15 if tier == "smoke" else 0.01), row


def test_non_zeros_are_those_that_distiller_printed(hub_on):
    """docs-src/docs/tutorial-lang_model.md, table 1, without biases; its small network as the second table has it."""
    printed = {"70 %": 25_487_550, "80.4 %": 16_847_550, "90 %": 8_591_700, "95 %": 4_295_850}
    for row, asked, options in cells("paper", "large-sparse"):
        plan = plan_of([f"{k}={v}" for k, v in options.items()])
        assert sum(plan.parts.kept.values()) == printed[row]
        assert abs(1 - printed[row] / 85_917_000 - asked) < 5e-5
        assert plan.cost["params_nonzero"] == printed[row] + biases(*SIZES["paper"])
    dense = {"70 %": 28_390_700, "90 %": 7_295_600}
    for row, _, options in cells("paper", "small-dense"):
        plan = plan_of([f"{k}={v}" for k, v in options.items()])
        width = int(options["model.width"])
        if row in dense:
            assert plan.cost["params_nonzero"] == dense[row] + biases(33_278, width, 2)


def test_masks_come_every_three_epochs_from_the_first_to_the_22nd(hub_on):
    """Distiller: ((25 - 1 - 1) // 3) * 3 = 21 epochs of 2,983 updates, 7 intervals, 8 masks."""
    for _, _, options in cells("paper", "large-sparse"):
        plan = plan_of([f"{k}={v}" for k, v in options.items()])
        assert plan.steps == 40 * 2983
        assert plan.parts.schedule.updates(plan.steps) == [2983 * epoch for epoch in range(1, 23, 3)]


def test_the_papers_networks_have_the_papers_sizes(hub_on):
    """4.6, 19.8 and 66 million parameters, untied."""
    millions = {"small": 4.6, "medium": 19.8, "large": 66.0}
    for cell in expand(load("gmp/ptb")[0], "paper"):
        if cell.row == "dense" and cell.seed == 0:
            model_spec = plan_of([*cell.overrides]).parts.model_spec
            assert round(sum(layer.numel for layer in model_spec.layers) / 1e6, 1) == millions[cell.column]
