from __future__ import annotations

import re
import shlex

import pytest
from project_tables import tables

from sparselab.config.cell_ref import reseeded
from sparselab.core.errors import ConfigError
from sparselab.core.memo import sharing
from sparselab.experiments.tables.grid import expand
from sparselab.running import cell_ids
from sparselab.running.cell_ids import cell_id_of, identity_of
from sparselab.running.planning import plan_of

CELL = ["method=gmp", "sparsity=0.9", "model=mlp", "trainer.max_epochs=null", "trainer.max_steps=100"]

ENGINES = {
    "train": CELL,
    "estimate": ["engine=estimate", "problem=sem", "estimator=colide"],
    "online": ["engine=online", "problem=random_bandit", "solver=lasso"],
    "inference": ["engine=inference", "model=llama_tiny", "dataset=stdlib", "activation=wina", "sparsity=0.5"],
    "measure": ["engine=measure", "kernel=csr", "workload=mobilenet_v1", "sparsity=0.9"],
}


def test_ids_of_many_seeds_are_those_of_their_plans(monkeypatch):
    read = []
    monkeypatch.setattr(cell_ids, "identity_of", lambda *args: read.append(args) or identity_of(*args))
    for rest in (CELL, [*CELL, "optim.lr=0.01"]):
        with sharing():
            ids = [cell_id_of([*rest, f"seed={seed}"]) for seed in (0, 1, 7, 10**17)]
        assert ids == [plan_of([f"seed={seed}", *rest]).id for seed in (0, 1, 7, 10**17)]
    assert len(read) == 2
    assert cell_id_of(CELL) == cell_id_of([*CELL, "seed=0"])


@pytest.mark.parametrize("seeds", [["seed=-1"], ["seed=1.5"], ["seed=9223372036854775808"], ["seed=x"]])
def test_a_seed_that_is_none_is_refused(seeds):
    with pytest.raises(ConfigError):
        cell_id_of([*CELL, *seeds])


def test_of_two_seeds_the_later_counts():
    assert cell_id_of([*CELL, "seed=1", "seed=2"]) == plan_of([*CELL, "seed=2"]).id


@pytest.mark.parametrize("cell", ENGINES.values(), ids=ENGINES)
def test_no_plan_holds_its_seed_elsewhere(cell):
    """What lets ids be made without plans: the identities of two seeds differ in the config's seed and in nothing else."""
    one, two = (plan_of([*cell, f"seed={seed}"]).identity for seed in (3, 4))
    assert one[0].pop("seed") == 3 and two[0].pop("seed") == 4
    assert one == two


def test_the_ids_of_tables_are_those_of_their_plans():
    """At their smallest tier, every table; what cannot be planned here has no id, or one that nothing bears."""
    with sharing():
        for table in tables():
            for cell in expand(table, min(table.tiers, key=("smoke", "cpu", "gpu", "paper").index)):
                try:
                    id = plan_of(list(cell.overrides)).id
                except ConfigError:
                    continue
                assert cell_id_of(list(cell.overrides)) == id, (table.label, cell)


def test_an_id_needs_no_account_and_no_checks(monkeypatch):
    """What makes it cheap; and a cell that fails a check still has no plan."""
    monkeypatch.setattr("sparselab.training.engine.foresee", lambda parts: pytest.fail("the account was worked out"))
    monkeypatch.setattr("sparselab.training.plan.choose_layers", lambda *_: pytest.fail("layers were chosen"))
    assert len(cell_id_of(CELL)) == 12
    monkeypatch.undo()
    with pytest.raises(ConfigError):
        plan_of([*CELL, "targets.include=[nothing]"])


def test_a_network_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        cell_id_of([*CELL, f"model.weights={tmp_path}/none.safetensors"])


def phased(seed: int, first: int | str, *more: str) -> list[str]:
    """A cell that starts from the network of another one, of the seed ``first``, which starts from a third."""
    third = f"method=dense model=mlp seed={first}"
    second = shlex.quote(f"model.weights='cell:{third}'")
    quoted = re.sub(r"(\\*)'", lambda run: run[1] * 2 + "\\'", f"cell:method=dense model=mlp {second} seed={first}")
    return [*CELL, f"model.weights='{quoted}'", *more, f"seed={seed}"]


def test_cells_that_start_from_cells_of_their_seed_are_read_once(monkeypatch):
    read = []
    monkeypatch.setattr(cell_ids, "identity_of", lambda *args: read.append(args) or identity_of(*args))
    with sharing():
        own = [cell_id_of(phased(seed, seed)) for seed in range(5)]
        assert len(read) == 3  # each of the three
        fixed = [cell_id_of(phased(seed, 0)) for seed in range(5)]
    assert own == [plan_of(phased(seed, seed)).id for seed in range(5)]
    assert fixed == [plan_of(phased(seed, 0)).id for seed in range(5)]
    assert own[0] == fixed[0] and len({*own, *fixed}) == 9


def recorded(seed: int, first: int) -> list[str]:
    """A cell whose data are activations of another one's network, which a mapping within a mapping names."""
    first_cell = f"{{method: dense, model: gpt_tiny, dataset: stdlib, dataset.max_bytes: 60000, seed: {first}}}"
    model = f"dataset.model={{name: gpt, width: 96, depth: 3, heads: 4, weights: {{cell: {first_cell}}}}}"
    text = "dataset.text={name: stdlib, max_bytes: 60000, block: 32}"
    return ["model=sae", "dataset=activations", "method=dense", model, text, "dataset.layer=0", f"seed={seed}"]


def test_a_cell_within_a_mapping_keeps_a_seed_that_the_table_fixes():
    for first in ([recorded(seed, 0) for seed in range(3)], [recorded(seed, seed) for seed in range(3)]):
        same_ids(*first)
    assert (
        reseeded(recorded(1, 1)[3], 1, 4) == recorded(4, 4)[3]
        and reseeded(recorded(1, 0)[3], 1, 4) == recorded(4, 0)[3]
    )


FIRST = "cell:method=dense model=mlp trainer.max_epochs=null trainer.max_steps=2"


def same_ids(*cells: list[str]) -> None:
    """Asked for one after another, in both orders, each cell has the id of its plan, or is refused with its plan's line."""
    told = []
    for cell in cells:
        try:
            told.append(plan_of(cell).id)
        except ConfigError as refused:
            told.append(str(refused))
    for order in (slice(None), slice(None, None, -1)):
        with sharing():
            found = []
            for cell in cells[order]:
                try:
                    found.append(cell_id_of(cell))
                except ConfigError as refused:
                    found.append(str(refused))
        assert found == told[order]


def test_cells_that_are_one_at_one_seed_alone_are_told_apart():
    def two(seed: int) -> list[str]:
        teacher = ["loss=[distill]", f"loss.distill.teacher='{FIRST}'"]  # of the usual seed, 0
        return [*CELL, f"model.weights='{FIRST} seed={seed}'", *teacher, f"seed={seed}"]

    same_ids(*map(two, range(3)))


def test_what_is_wrong_with_one_seed_is_not_with_another(tmp_path):
    def cell(seed: int) -> list[str]:
        inner = f"model.weights=\\'{tmp_path}/seed={seed}.safetensors\\'"
        return [*CELL, f"model.weights='{FIRST} \"{inner}\" seed={seed}'", f"seed={seed}"]

    (tmp_path / "seed=1.safetensors").write_bytes(b"")
    kinds = []
    for seed in (1, 2):
        with pytest.raises(ConfigError) as refused:
            plan_of(cell(seed))
        kinds.append(str(refused.value))
    assert "seed=1" in kinds[0] and "seed=2" in kinds[1]
    with sharing():
        with pytest.raises(ConfigError, match=r"model\.weights: model\.weights=.*cannot be read"):
            cell_id_of(cell(2))
        assert len(cell_id_of(cell(1))) == 12
        with pytest.raises(ConfigError, match=r"model\.weights: model\.weights=.*cannot be read"):
            cell_id_of(cell(2))


def test_where_a_cell_runs_is_not_of_its_seed(tmp_path):
    """A folder with a seed in its name is the same folder for every seed."""
    runs = tmp_path / "seed=1"
    runs.mkdir()
    same_ids(*([*CELL, f"model.weights='{FIRST} seed={s}'", f"runs_dir='{runs}'", f"seed={s}"] for s in (1, 2)))


def test_a_cell_may_run_elsewhere_than_the_one_that_starts_from_it(tmp_path):
    plan = plan_of([*CELL, f"model.weights='{FIRST} runs_dir={tmp_path}/o'", f"runs_dir={tmp_path}/r"])
    (first,) = plan.parent_plans
    assert first.folder == f"{tmp_path}/o/{first.id}"
    assert plan.config["model"]["weights"] == f"{first.folder}/model.safetensors"


@pytest.mark.parametrize("later", ["seed=5_0", "seed=+5", "seed=-0", "seed= 5", "+seed=5"])
def test_of_two_seeds_the_later_counts_however_it_is_written(later):
    same_ids([*CELL, "seed=1", later])


@pytest.mark.parametrize("key", ["data_dir", "runs_dir", "trainer.threads"])
def test_where_and_how_cells_run_is_no_cell(key):
    with pytest.raises(ConfigError, match=f"{key}=.*takes no cell"):
        plan_of([*CELL, f"{key}='{FIRST}'"])


def test_patterns_of_some_layers_of_a_dense_network_are_refused():
    with pytest.raises(ConfigError, match="method=dense"):
        plan_of(["method=dense", "model=mlp", "sparsity=0.9", "targets.patterns={head: 0.5}"])


def test_both_forms_of_a_cell_are_one_cell_whose_seed_flows():
    """A chain of three, as mappings and as the older text: the same ids, and one reading for all seeds."""

    def mapped(seed: int, first: int) -> list[str]:
        third = f"{{cell: {{method: dense, model: mlp, seed: {first}}}}}"
        second = f"{{cell: {{method: dense, model: mlp, model.weights: {third}, seed: {first}}}}}"
        return [*CELL, f"model.weights={second}", f"seed={seed}"]

    with sharing():
        assert [cell_id_of(mapped(seed, seed)) for seed in range(3)] == [
            cell_id_of(phased(seed, seed)) for seed in range(3)
        ]
        assert [cell_id_of(mapped(seed, 0)) for seed in range(3)] == [cell_id_of(phased(seed, 0)) for seed in range(3)]
    same_ids(*(mapped(seed, seed) for seed in range(2)))
    plan = plan_of(mapped(1, 1))
    assert [place for place, _ in plan.parents] == ["model.weights"]
    assert (
        plan.parents[0][1].id == plan.parent_plans[0].id and plan.parents[0][1].path == plan.config["model"]["weights"]
    )
