"""Table blockffn: its networks are of equal size, and its baselines' experts of a token are those of the paper."""

from __future__ import annotations

import pytest

from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load
from sparselab.experiments.tables.schema import Table
from sparselab.running.planning import plan_of


@pytest.fixture(scope="module")
def table() -> Table:
    return next(table for table in load("blockffn") if not table.name)


def test_dense_and_mixtures_have_as_many_parameters(table: Table) -> None:
    cells = {cell.row: cell for cell in expand(table, "cpu") if cell.seed == 0}
    sizes = {row: plan_of([*cells[row].overrides]).cost["params"] for row in ("Dense", "TopK", "ReMoE", "BlockFFN")}
    assert max(sizes.values()) / min(sizes.values()) < 1.001


@pytest.mark.parametrize("column", ["Small", "Medium", "Large", "XLarge"])
def test_the_dense_network_of_the_papers_sizes_is_as_large(table: Table, column: str) -> None:
    """Three matrices of the dense network's feed-forward layer; two of all experts, the router and its gain."""

    def number(row: str, key: str) -> int:
        words = [*table.columns[column]]
        words += [word for extra in table.extra if extra.meets(row, column, "paper") for word in extra.overrides]
        return int([word for word in words if word.startswith(f"{key}=")][-1].partition("=")[2])

    width, experts = number("Dense", "model.width"), number("BlockFFN", "model.experts")
    mixture = 2 * width * experts * number("BlockFFN", "model.expert_width") + experts * (width + 1)
    assert 3 * width * number("Dense", "model.ff") == pytest.approx(mixture, rel=2e-4)


def test_in_the_figures_each_row_is_a_curve_of_its_own() -> None:
    """TopK, DeepSeekMoE and GRIN differ in the router alone: without ``along`` one line would join them."""
    axes = [table.axis for table in load("blockffn")]
    assert len(axes) == 2 and all(not isinstance(axis, str) and axis.along == "columns" for axis in axes)


def test_multiply_accumulates_count_the_experts_of_a_token(table: Table) -> None:
    """Of 24 experts 5: what TopK saves of BlockFFN's upper bound is 19/24 of the experts' products."""
    cells = {cell.row: cell for cell in expand(table, "cpu") if cell.seed == 0}
    bound, counted = (plan_of([*cells[row].overrides]).cost["macs"] for row in ("BlockFFN", "TopK"))
    assert bound - counted == 3 * 128 * 2 * 128 * 16 * (24 - 5)


@pytest.mark.parametrize(
    ("column", "k", "experts"), [("Small", 10, 48), ("Medium", 6, 40), ("Large", 8, 48), ("XLarge", 10, 56)]
)
def test_experts_of_a_token_are_the_papers(table: Table, column: str, k: int, experts: int) -> None:
    said = [word for extra in table.extra if extra.meets("TopK", column, "paper") for word in extra.overrides]
    assert f"model.experts={experts}" in said and f"model.router={{name: topk, k: {k}}}" in said


def test_both_tables_are_of_the_same_cells() -> None:
    main, chunks = sorted(load("blockffn"), key=lambda table: table.name)
    for tier in main.tiers:
        cells = [{(c.row, c.column, c.seed): c.overrides for c in expand(table, tier)} for table in (main, chunks)]
        assert all(cells[0][place] == overrides for place, overrides in cells[1].items())
