"""How much planning and a report do, counted: figures of a machine's clock are in docs/decisions.md."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sparselab.core.memo import sharing
from sparselab.experiments.tables import grid, results
from sparselab.experiments.tables.laws import straight
from sparselab.experiments.tables.load import load
from sparselab.running import cell_ids

PLAN = ["method=rigl", "sparsity=0.9", "model=vit_ti", "dataset=digits"]
PLANS = [PLAN, ["estimator=colide"], ["solver=elimination"]]
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "lightning",
    "hydra",
    "omegaconf",
    "scipy",
    "sklearn",
    "PIL",
    "rich",
}


def test_what_seeds_share_is_written_once(monkeypatch):
    filled, usual = [], grid._filled
    monkeypatch.setattr(grid, "_filled", lambda text, *more: filled.append(text) or usual(text, *more))
    (table, *_) = load("srste")
    cells = grid.expand(table, "cpu")
    assert cells and all("{" in text for text in filled)
    assert len(filled) < 3 * len(cells) < sum(len(cell.overrides) for cell in cells)


def test_a_phase_is_filled_once_for_all_cells_that_start_from_it(monkeypatch):
    (table,) = load("cts/objectives")
    tier = table.tiers["cpu"].model_copy(update={"seeds": [0]})
    read, usual = [], grid.said
    monkeypatch.setattr(grid, "said", lambda text: read.append(text) or usual(text))
    with sharing():
        cells = grid.expand(table.model_copy(update={"tiers": {"cpu": tier}}), "cpu")
    assert len(read) == len(set(read)) < sum("cell:" in text for cell in cells for text in cell.overrides)


def test_a_cell_that_many_start_from_is_named_once(monkeypatch):
    named, usual = [], cell_ids._named
    monkeypatch.setattr(cell_ids, "_named", lambda words, path: named.append(tuple(words)) or usual(words, path))
    start = "model.weights={cell: {method: dense, model: mlp, trainer.max_steps: 1, seed: 0}}"
    with sharing():
        ids = [
            cell_ids.cell_id_of(["model=mlp", "method=dense", start, f"optim.lr={lr}", "seed=0"]) for lr in (0.1, 0.2)
        ]
    assert len(set(ids)) == 2 and len(named) == len(set(named)) == 3


def test_equal_overrides_are_not_read_to_be_compared(monkeypatch):
    monkeypatch.setattr(results, "merge", pytest.fail)
    assert results.same_cell(PLAN, list(PLAN))


def test_a_line_is_scipy_s_and_needs_none_of_it(monkeypatch):
    from scipy.stats import linregress

    x, y = [0.3, 1.1, 2.7, 4.0, 8.5], [1.2, 0.7, 3.3, 2.9, 6.1]
    wanted = linregress(x, y)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    found = straight(x, y)
    assert found.slope == wanted.slope and found.r2 == wanted.rvalue**2
    assert straight(x, [2.0] * 5).r2 == 1 and straight(x, [-v for v in x]).r2 == 1


@pytest.mark.parametrize("plan", PLANS, ids=" ".join)
def test_a_check_imports_what_it_plans_with(plan):
    program = (
        "import sys\n"
        "from sparselab.running.planning import plan_of\n"
        "plan_of(sys.argv[1:])\n"
        "print(len(sys.modules), *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    for _ in range(2):  # the first composes the tree, and keeps it
        said = subprocess.run([sys.executable, "-c", program, *plan], capture_output=True, text=True, check=True)
    count, *names = said.stdout.split()
    assert int(count) < 900 and HEAVY & set(names) == set()
