from __future__ import annotations

import pytest

from sparselab.spec.faults import Refused
from sparselab.tables.grid import excluded, expand, merge, places
from sparselab.tables.schema import Table


def test_later_overrides_win_and_keep_one_place():
    assert merge(["a=1", "b=2"], ["a=3"]) == ("b=2", "a=3")
    assert merge(["sparsity=2:4"], ["sparsity=null"]) == ("sparsity=null",)


def test_another_member_of_a_group_drops_what_was_said_about_the_first():
    assert merge(["model=mlp", "model.hidden=[64]"], ["model=vit_s"]) == ("model=vit_s",)
    assert merge(["model=mlp", "model.hidden=[64]"], ["model=mlp"]) == ("model.hidden=[64]", "model=mlp")
    assert merge(["model=mlp", "modelling.x=1"], ["model=vit_s"]) == ("modelling.x=1", "model=vit_s")


def test_cells_in_order_without_the_excluded_ones(table: Table):
    assert places(table, "cpu") == [
        ("dense", "dense"), ("2:4", "ste"), ("2:4", "srste"), ("1:4", "ste"), ("1:4", "srste"),
    ]  # fmt: skip
    cells = expand(table, "cpu")
    assert len(cells) == 15
    assert cells[4].overrides == ("dataset=digits", "model=mlp", "sparsity=2:4", "method=ste", "seed=1")
    assert str(cells[4]) == "(2:4, ste, seed 1)"
    assert excluded(table, "dense", "ste") == "no mask"
    assert excluded(table, "2:4", "ste") is None


def test_a_tier_chooses_rows_and_seeds(table: Table):
    assert [cell.place for cell in expand(table, "paper")] == [("dense", "dense"), ("2:4", "ste"), ("2:4", "srste")]


def test_an_unknown_tier_names_the_nearest(table: Table):
    with pytest.raises(Refused, match='tier=papr: paper=demo has no such tier — did you mean "paper"'):
        expand(table, "papr")


def test_a_seed_may_be_part_of_another_override(table: Table):
    base = ["dataset=digits", "model.weights='cell:method=dense seed={seed}'"]
    tier = table.tiers["cpu"].model_copy(update={"base": base, "seeds": [3, 4]})
    cells = expand(table.model_copy(update={"tiers": {"cpu": tier}}), "cpu")
    assert "model.weights='cell:method=dense seed=3'" in cells[0].overrides and "seed=3" in cells[0].overrides
    assert "model.weights='cell:method=dense seed=4'" in cells[1].overrides
