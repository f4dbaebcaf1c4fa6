from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project_tables import tables

from sparselab.config.compose import CONFIGS, compose
from sparselab.config.members import groups
from sparselab.config.overrides import for_hydra, said
from sparselab.core import processor
from sparselab.core.errors import ConfigError
from sparselab.core.memo import sharing
from sparselab.experiments.sweeps import cells
from sparselab.experiments.sweeps.start import quoted
from sparselab.experiments.tables import grid, load
from sparselab.running.planning import plan_of

SMALL = ["model=mlp", "trainer.max_epochs=null", "trainer.max_steps=3"]


def lines(error: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return [str(issue) for issue in error.value.issues]


def test_a_product_of_values() -> None:
    asked = cells.read(
        ["method=srste,ste", "sparsity=2:4,1:4", "seed=range(0,2)", "model=mlp", "hydra/launcher=joblib"]
    )
    assert [cell.title for cell in asked.cells[:3]] == [
        "method=srste sparsity=2:4 seed=0", "method=srste sparsity=2:4 seed=1", "method=srste sparsity=1:4 seed=0"]  # fmt: skip
    assert asked.cells[0].overrides == ("method=srste", "sparsity=2:4", "seed=0", "model=mlp")
    assert asked.hydra == ["hydra/launcher=joblib"] and len(asked.cells) == 8


def test_a_table() -> None:
    asked = cells.read(["paper=srste", "tier=smoke", "trainer.threads=1", "runs_dir=x"])
    table = load.load("srste/")[0]
    expanded = [cell for table in load.load("srste") if "smoke" in table.tiers for cell in grid.expand(table, "smoke")]
    assert [cell.overrides for cell in asked.cells] == [
        (*e.overrides, "trainer.threads=1", "runs_dir=x") for e in expanded
    ]
    assert (asked.paper, asked.tier, asked.metric) == ("srste", "smoke", table.metric.key)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["paper=srst", "tier=cpu"], 'paper=srst: no such paper — did you mean "srste"?'),
        (["paper=srste", "tier=cup"], 'tier=cup: paper=srste has no such tier — did you mean "cpu"?'),
        (["paper=srste"], "tier: one size of the table is needed — add tier=smoke, cpu, gpu or paper"),
        (["paper=srste", "tier=cpu,gpu"], "tier: one size of the table is needed — add tier=smoke, cpu, gpu or paper"),
        (["paper=srste/x", "tier=cpu"], 'paper=srste/x: srste has no such table — one of: resnet18'),
        (["paper=srste", "tier=cpu", "optim.lr=1"], "optim.lr=1: the cells are the table's — leave it out, or sweep"),
        (["paper=srste", "tier=cpu", "trainer.threads=1,2"], "paper: a table cannot be crossed with other values"),
    ],
)  # fmt: skip
def test_bad_requests(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        cells.read(words)
    assert len(lines(error)) == 1 and lines(error)[0].startswith(line)


def test_all_faults_before_anything_runs(tmp_path: Path) -> None:
    words = [*SMALL, "method=asp,srste", "sparsity=2:4,3:5,channel:0.5", f"runs_dir={tmp_path}/runs"]
    with pytest.raises(ConfigError) as error:
        cells.plan(cells.read(words))
    assert any(line.startswith("sparsity=3:5: layers.0 has 64 inputs") for line in lines(error))
    assert any(line.startswith("sparsity=channel:0.5: method=asp") for line in lines(error))
    assert not (tmp_path / "runs").exists()


def test_the_same_cell_is_planned_once() -> None:
    asked = cells.read([*SMALL, "method=dense", "optim.lr=0.1,1e-1", "seed=0,1"])
    plan = cells.schedule(cells.plan(asked))
    assert len(plan.cells) == 2 and plan.count == 4 and len(plan.asked) == 2


def test_one_runs_folder() -> None:
    with pytest.raises(ConfigError) as error:
        cells.schedule(cells.plan(cells.read([*SMALL, "method=dense", "runs_dir=a,b"])))
    assert lines(error) == ["runs_dir: a sweep has one runs folder, not 2 — start a sweep for each"]


TEACHER = "loss.distill.teacher='cell:method=dense model=mlp trainer.max_epochs=null trainer.max_steps=3'"


def test_a_needed_cell_goes_first_and_once(tmp_path: Path) -> None:
    words = [
        *SMALL,
        "method=srste,ste",
        "sparsity=2:4",
        "loss=[distill]",
        TEACHER,
        f"runs_dir={tmp_path}",
        "trainer.threads=1",
    ]
    plan = cells.schedule(cells.plan(cells.read(words)))
    levels = [[cell.title for cell in level] for level in plan.levels()]
    assert [len(level) for level in levels] == [1, 2]
    teacher = next(cell for cell in plan.cells.values() if cell.id not in plan.asked)
    dense = plan_of([*SMALL, "method=dense"])
    assert teacher.id == dense.id and {"trainer.threads=1", f"runs_dir={tmp_path}"} <= set(teacher.overrides)
    assert all(cell.dependencies == (teacher.id,) for cell in plan.cells.values() if cell.id in plan.asked)


def test_a_needed_cell_that_was_asked_for_too_is_one_cell() -> None:
    asked = cells.read([*SMALL, "method=srste", "sparsity=2:4", "loss=[distill]", TEACHER])
    dense = cells.Wanted("dense", (*SMALL, "method=dense"))
    plan = cells.schedule(cells.plan(cells.Asked("both", [*asked.cells, dense], [])))
    assert len(plan.cells) == 2 and plan.cells[plan_of(list(dense.overrides)).id].title == "dense"


def test_ids_follow_the_needed_cell() -> None:
    words = [*SMALL, "method=srste", "sparsity=2:4", "loss=[distill]"]
    one, other = (plan_of([*words, TEACHER.replace("max_steps=3", f"max_steps={n}")]) for n in (3, 4))
    assert one.id != other.id and one.parent_plans[0].id != other.parent_plans[0].id
    assert one.recorded_config()["loss"]["distill"]["teacher"] == f"cell:{one.parent_plans[0].id}"
    weights = plan_of([*SMALL, "method=dense", TEACHER.replace("loss.distill.teacher", "model.weights")])
    assert weights.parent_plans[0].id == one.parent_plans[0].id and weights.id != one.parent_plans[0].id


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("cell:", "teacher=cell:: names no cell — write 'loss.distill.teacher={cell: {method: dense, model: mlp}}'"),
        ("cell:method=dens model=mlp", 'loss.distill.teacher: method=dens: no such method — did you mean "dense"?'),
        ('cell:method="dense', "names no cell"),
    ],
)  # fmt: skip
def test_bad_needs(value: str, line: str) -> None:
    words = [*SMALL, "method=srste", "sparsity=2:4", "loss=[distill]", f"loss.distill.teacher={quoted(value)}"]
    with pytest.raises(ConfigError) as error:
        plan_of(words)
    assert line in "\n".join(lines(error))


@pytest.mark.parametrize(
    ("tiers", "seeds", "compared"),
    [(("cpu",), 2, 3), pytest.param(("smoke", "cpu"), 3, 6, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_planning_many_gives_what_planning_one_gives(
    monkeypatch: pytest.MonkeyPatch, tiers: tuple[str, ...], seeds: int, compared: int
) -> None:
    """The work that cells share is done once; that must not show. Some tables are pinned to bf16 LSTMs."""
    monkeypatch.setattr(processor, "processor_flags", lambda: processor.AVX512 | {"avx512_bf16"})
    for table in tables():
        for tier in [tier for tier in tiers if tier in table.tiers]:
            few = table.tiers[tier].seeds[:seeds]  # the others differ in their seed alone
            expanded = [cell for cell in grid.expand(table, tier) if cell.seed in few]
            try:
                alone = [plan_of(list(cell.overrides)) for cell in expanded[:: max(1, len(expanded) // compared)]]
            except ConfigError as refused:  # data that lie on no hub: there is nothing to plan without them
                assert all("no local copy" in line for line in map(str, refused.issues))
                continue
            with sharing():
                together = {cell.overrides: plan_of(list(cell.overrides)) for cell in expanded}
            for plan in alone:
                twin = together[tuple(plan.overrides)]
                assert (plan.id, plan.config, plan.cost) == (twin.id, twin.config, twin.cost)


GROUPS = groups()


def words_of(cell: grid.Cell) -> set[str]:
    """Members that a cell chooses, and keys that it sets."""
    return {text if text.partition("=")[0] in GROUPS else text.partition("=")[0] for text in cell.overrides}


@pytest.mark.parametrize("most", [5, pytest.param(10_000, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize("paper", load.papers())
def test_a_cell_is_composed_as_hydra_would(paper: str, most: int) -> None:
    """Of a paper's cells those that bring a member or a key that the cells before them had not."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    mine = [table for table in tables() if table.paper == paper]
    seen: set[str] = set()
    for cell in (cell for table in mine for tier in table.tiers for cell in grid.expand(table, tier)):
        if not words_of(cell) <= seen and most:
            seen |= words_of(cell)
            most -= 1
            with initialize_config_dir(str(CONFIGS), version_base="1.3"):
                theirs: Any = OmegaConf.to_container(hydra_compose("config", for_hydra(list(cell.overrides))))
            replaced: list[str] = []  # by a mapping: Hydra merges it with what was there, and here it stands alone
            for key, value in map(said, cell.overrides):
                replaced += [key] * isinstance(value, dict)
                if any(f"{key}.".startswith(f"{name}.") for name in replaced):
                    *path, leaf = key.split(".")
                    functools.reduce(dict.__getitem__, path, theirs)[leaf] = value
            assert compose(list(cell.overrides)).config == theirs, cell
    assert seen


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=20))
def test_quoted_survives_hydras_grammar(text: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if "${" in text:
        return
    parsed = OverridesParser.create().parse_override(f"key=[{quoted(text)},{quoted(text)}]").value()
    assert parsed == [text, text]


def test_a_table_with_other_seeds():
    """Five more seeds than the tier plans, or these; a word that is neither is refused before anything is planned."""
    plain = cells.read(["paper=sparse_bandits/queries", "tier=smoke"])
    more = cells.read(["paper=sparse_bandits/queries", "tier=smoke", "seeds=+2"])
    assert len(more.cells) == 3 * len(plain.cells) and more.tables[0].tiers["smoke"].seeds == [0, 1, 2]
    few = cells.read(["paper=sparse_bandits/queries", "tier=smoke", "seeds=7"])
    assert all("seed=7" in cell.overrides for cell in few.cells) and len(few.cells) == len(plain.cells)
    with pytest.raises(ConfigError, match="seeds=five: is neither a number of further seeds nor a list of seeds"):
        cells.read(["paper=sparse_bandits/queries", "tier=smoke", "seeds=five"])
    with pytest.raises(ConfigError, match="seeds: is there twice"):
        cells.read(["paper=sparse_bandits/queries", "tier=smoke", "seeds=+1", "seeds=+2"])
