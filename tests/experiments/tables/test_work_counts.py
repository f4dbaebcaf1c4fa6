"""How much planning and a report do, counted: figures of a machine's clock are in docs/decisions.md."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sparselab.experiments.tables import grid, results
from sparselab.experiments.tables.claims.fit import _straight
from sparselab.experiments.tables.load import load

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


def test_equal_overrides_are_not_read_to_be_compared(monkeypatch):
    monkeypatch.setattr(results, "merge", pytest.fail)
    assert results.same_cell(PLAN, list(PLAN))


def test_a_line_is_scipy_s_and_needs_none_of_it(monkeypatch):
    from scipy.stats import linregress

    x, y = [0.3, 1.1, 2.7, 4.0, 8.5], [1.2, 0.7, 3.3, 2.9, 6.1]
    wanted = linregress(x, y)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    found = _straight(x, y)
    assert found.slope == wanted.slope and found.r2 == wanted.rvalue**2
    assert _straight(x, [2.0] * 5).r2 == 1 and _straight(x, [-v for v in x]).r2 == 1


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
