"""Several parents in one mapping, and cycles whose start is the mean of the cycle before: which cells they stand for."""

from __future__ import annotations

import pytest

from sparselab.config.cell_ref import CellRef, canonical, several
from sparselab.config.plain import written
from sparselab.core.errors import ConfigError
from sparselab.running.cell_ids import cell_id_of
from sparselab.running.planning import plan_of

OWN = {
    "method": "magnitude",
    "schedule.at": 0,
    "sparsity": 0.5,
    "model": "mlp",
    "dataset.limit_train": 400,
    "trainer.threads": 1,
}
BASE = [f"{key}={value}" for key, value in OWN.items()]
SOUP = {"merge": "uniform", "trainer.max_steps": 0}


def ask(value: object) -> list[str]:
    return [*BASE, "merge=uniform", "trainer.max_steps=0", f"model.weights={written(value)}"]


def test_copies_are_the_list_of_cells():
    copies = {"cell": OWN, "vary": {"seed": [3, 4], "optim.lr": [0.1, 0.2]}, "take": "weights"}
    apart = [
        {"cell": {**OWN, "seed": 3, "optim.lr": 0.1}, "take": "weights"},
        {"cell": {**OWN, "seed": 4, "optim.lr": 0.2}, "take": "weights"},
    ]
    assert several(copies, "model.weights") == apart
    assert several([copies, "a.safetensors"], "model.weights") == [*apart, "a.safetensors"]
    text = f"model.weights={written(copies)}"
    assert canonical(text) == text, "copies of copies would be many words as lists"
    assert cell_id_of(ask(copies)) == cell_id_of(ask(apart))


def test_copies_of_a_chain_start_from_the_mean_of_the_link_before():
    """Two cycles of two copies by hand: the second cycle's start is a cell of the first one's sparsity that merges."""
    chain = {"cell": OWN, "vary": {"seed": [3, 4]}, "chain": {"sparsity": [0.5, 0.8]}, "merged": SOUP}
    first = [{"cell": {**OWN, "seed": seed}} for seed in (3, 4)]
    soup = {"cell": {**OWN, **SOUP, "model.weights": first}}
    by_hand = [{"cell": {**OWN, "sparsity": 0.8, "model.weights": soup, "seed": seed}} for seed in (3, 4)]
    asked = [*ask(chain), "sparsity=0.8"]
    assert cell_id_of(asked) == cell_id_of([*ask(by_hand), "sparsity=0.8"])
    plan = plan_of(asked)
    assert len(plan.parent_plans) == 2
    middle = plan.parent_plans[0].parent_plans[0]
    assert [parent.config["seed"] for parent in middle.parent_plans] == [3, 4], (
        "the soup between is one cell, shared by both"
    )
    assert {parent.parent_plans[0].id for parent in plan.parent_plans} == {middle.id}


def test_a_chain_of_one_link_needs_no_cell_between():
    one = {"cell": OWN, "vary": {"seed": [3, 4]}, "chain": {"sparsity": [0.5]}, "merged": SOUP}
    assert cell_id_of(ask(one)) == cell_id_of(ask({"cell": OWN, "vary": {"seed": [3, 4]}}))


def test_seeds_of_a_table_reach_into_copies():
    """Cells that differ in the seed alone are read once for all of them: so is one whose copies have seeds of their own."""

    def of(seed: int) -> list[str]:
        vary = {"optim.lr": [0.1, 0.2], "seed": [seed, 9]}
        return [*ask({"cell": {**OWN, "seed": seed}, "vary": vary}), f"seed={seed}"]

    asked, other = of(0), of(5)
    from sparselab.running.cell_ids import identity_of
    from sparselab.storage.ids import cell_id

    assert cell_id_of(other) == cell_id(*identity_of(other)) != cell_id_of(asked) == cell_id(*identity_of(asked))


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"vary": {}}, "model.weights.vary={}: is no list of networks — write vary: {seed: [1, 2, 3]}"),
        ({"vary": {"seed": []}}, "model.weights.vary={seed: []}: is no list of networks — write vary: {seed: [1, 2, 3]}"),
        ({"vary": {"seed": [1]}},
         "model.weights.vary: names one network, of which nothing is merged — write two values or more"),
        ({"vary": {"seed": [1, 2], "optim.lr": [0.1]}},
         "model.weights.vary: has lists of 1 and 2 values — give each key a value for each network"),
        ({"vary": {"seed": [1, 2]}, "chain": {"sparsity": []}, "merged": SOUP},
         "model.weights.chain={sparsity: []}: is no chain"),
        ({"vary": {"seed": [1, 2]}, "chain": {"sparsity": [0.5, 0.8]}},
         "model.weights.chain: nothing makes one network of the 2 before each link — add merged: {merge"),
        ({"vary": {"seed": [1, 2]}, "chain": {"seed": [1, 2]}, "merged": SOUP},
         "model.weights.vary.seed: is what the links of the chain differ in — leave one of them out"),
        ({"vary": {"seed": [1, 2]}, "merged": SOUP},
         "model.weights.merged: is about the links of a chain, and there is none"),
        ({"merged": SOUP},
         "model.weights.merged: is about the copies of a chain, and there are none without vary — leave it out"),
    ],
)  # fmt: skip
def test_what_stands_for_no_networks(more, line):
    with pytest.raises(ConfigError) as refused:
        plan_of(ask({"cell": OWN, **more}))
    found = [f"{issue.where}: {issue.problem} — {issue.fix}" for issue in refused.value.issues]
    assert any(text.startswith(line) for text in found), found


def test_copies_stand_for_networks_alone():
    with pytest.raises(ConfigError, match="takes one cell, not several"):
        plan_of([*BASE, f"targets.masks={written({'cell': OWN, 'vary': {'seed': [1, 2]}})}"])
    with pytest.raises(ConfigError, match="stands for several networks"):
        CellRef.of({"cell": OWN, "vary": {"seed": [1, 2]}}, "targets.masks")
