from __future__ import annotations

import pytest

from sparselab.config.cell_ref import CellRef
from sparselab.config.overrides import said
from sparselab.core.errors import ConfigError
from sparselab.experiments.tables.grid import excluded, expand, merge, places
from sparselab.experiments.tables.load import load
from sparselab.experiments.tables.schema import Extra, Table
from sparselab.running.planning import plan_of


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
    with pytest.raises(ConfigError, match='tier=papr: paper=demo has no such tier — did you mean "paper"'):
        expand(table, "papr")


def test_a_seed_may_be_part_of_another_override(table: Table):
    base = ["dataset=digits", "model.weights='cell:method=dense seed={seed}'"]
    tier = table.tiers["cpu"].model_copy(update={"base": base, "seeds": [3, 4]})
    cells = expand(table.model_copy(update={"tiers": {"cpu": tier}}), "cpu")
    assert "model.weights='cell:method=dense seed=3'" in cells[0].overrides and "seed=3" in cells[0].overrides
    assert "model.weights='cell:method=dense seed=4'" in cells[1].overrides


def phased(table: Table, **phases: list[str]) -> Table:
    tier = table.tiers["cpu"].model_copy(update={"seeds": [3]})
    base = ["dataset=digits", "model.weights={late}"]
    return table.model_copy(update={"tiers": {"cpu": tier}, "base": base, "phases": phases})


def test_a_phase_is_a_cell_of_the_base_and_its_own_overrides(table: Table):
    made = phased(table, late=["method=dense", "trainer.max_steps=5"])
    extra = Extra(phases=["late"], tiers=["cpu"], overrides=["trainer.max_steps=7", "model.weights=null"])
    cells = expand(made.model_copy(update={"extra": [extra]}), "cpu")
    asked = "dataset: digits, model: mlp, method: dense, trainer.max_steps: 7, model.weights: null, seed: 3"
    assert (
        f"model.weights={{cell: {{{asked}}}}}" in cells[0].overrides and "trainer.max_steps=7" not in cells[0].overrides
    )


def test_phases_that_start_from_phases_are_read_as_they_were_written(table: Table):
    """Whatever quoting the levels need: the plan of the last cell has the plans of the others, word for word."""
    early = ["method=dense", "model.weights=null", "loss=[l1]", "trainer.max_steps=2"]
    middle = ["method=ticket", "sparsity=0.5", "method.source={early}", "model.weights={early}", "trainer.max_steps=3"]
    late = ["method=ticket", "sparsity=0.5", "model.weights={middle}", "trainer.max_steps=4"]
    made = phased(table, early=early, middle=middle, late=late)
    cell = next(cell for cell in expand(made, "cpu") if cell.place == ("2:4", "srste"))
    plans, depth = [plan_of(list(cell.overrides))], []
    while plans:
        depth.append([plan.steps if hasattr(plan, "steps") else plan.config["trainer"]["max_steps"] for plan in plans])
        plans = [first for plan in plans for first in plan.parent_plans]
    assert depth[1:] == [[4], [3], [2]]  # the two places that name the first phase mean the same cell


@pytest.mark.parametrize(
    ("phases", "line"),
    [
        ({"early": []}, "base: model.weights={late}: the table has no such phase — one of: early"),
        ({"late": ["method.source={late}"]}, "phases.late: starts from itself — name a phase that does not need it"),
        (
            {"late": ["method.source={early}"], "early": ["model.weights={late}"]},
            "phases.late: starts from itself — name a phase that does not need it",
        ),
    ],
)
def test_phases_that_cannot_be_are_refused(table: Table, configs, phases, line):
    import yaml

    raw = yaml.safe_load((configs / "paper" / "demo.yaml").read_text())
    raw |= {"phases": phases, "base": ["model.weights={late}"]}
    (configs / "paper" / "demo.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError) as refused:
        load("demo", configs)
    assert any(str(issue).endswith(line) for issue in refused.value.issues), [*map(str, refused.value.issues)]


def test_a_table_says_more_of_a_phase_than_its_name(table: Table):
    """Several of one phase that differ in their seed, which goes with the cell's own; what is taken, and when."""
    made = phased(
        table,
        late=["method=dense", "trainer.max_steps=5", "trainer.keep_at=[2]", "model.weights=null", "targets.masks=null"],
    )
    base = ["dataset=digits", "model.weights=[{late}, {phase: late, with: {seed: 1{seed}, model.hidden: [8]}, at: 2}]",
            "targets.masks={phase: late, take: masks}"]  # fmt: skip
    cell = expand(made.model_copy(update={"base": base}), "cpu")[0]
    (weights,) = (text for text in cell.overrides if text.startswith("model.weights="))
    (masks,) = (text for text in cell.overrides if text.startswith("targets.masks="))
    assert "{phase" not in weights + masks and "seed: 3}}, {cell: {" in weights
    assert weights.endswith("seed: 13, model.hidden: [8]}, at: 2}]") and masks.endswith("seed: 3}, take: masks}")


def test_what_is_said_with_a_phase_is_of_that_phase_alone(table: Table):
    """Several copies retrained with seeds of their own start from the one network of the cell's seed."""
    phases = {"first": ["method=dense", "model.weights=null"], "copy": ["method=dense", "model.weights={first}"]}
    base = ["model.weights=[{copy}, {phase: copy, with: {seed: 1{seed}}}]"]
    cell = expand(phased(table, **phases).model_copy(update={"base": base}), "cpu")[0]
    own, other = (copy["cell"] for copy in said(cell.overrides[0])[1])
    assert (own["seed"], other["seed"]) == (3, 13)
    assert own["model.weights"] == other["model.weights"] and own["model.weights"]["cell"]["seed"] == 3


def test_a_phase_is_a_chain_in_one_line(table: Table):
    made = phased(table, task=["method=dense", "model.weights=null"])
    line = ["model.weights={phase: task, chain: {seed: [1{seed}, 2{seed}], dataset: [digits, mnist]}}"]
    cell = expand(made.model_copy(update={"base": line}), "cpu")[0]
    (weights,) = (text for text in cell.overrides if text.startswith("model.weights="))
    plain = CellRef.of(said(weights)[1], "model.weights").tree()["cell"]
    assert (plain["seed"], plain["dataset"]) == (23, "mnist")
    first = plain["model.weights"]["cell"]
    assert (first["seed"], first["dataset"], first["model.weights"]) == (13, "digits", None)


@pytest.mark.parametrize("value", ["{phase: none, take: masks}", "[{late}, {none}]"])
def test_a_phase_that_is_not_there_is_refused_wherever_it_stands(table: Table, configs, value):
    import yaml

    raw = yaml.safe_load((configs / "paper" / "demo.yaml").read_text())
    raw |= {"phases": {"late": ["model.weights=null"]}, "base": [f"model.weights={value}"]}
    (configs / "paper" / "demo.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError, match="the table has no such phase — one of: late"):
        load("demo", configs)
