from __future__ import annotations

import pytest

from sparselab import planning
from sparselab.planning import cell_id_of, plan_of
from sparselab.spec.faults import Refused
from sparselab.spec.memo import sharing

CELL = ["method=gmp", "sparsity=0.9", "model=mlp", "trainer.max_epochs=null", "trainer.max_steps=100"]


def test_ids_of_many_seeds_are_those_of_their_plans(monkeypatch):
    planned = []
    monkeypatch.setattr(planning, "plan_of", lambda overrides: planned.append(overrides) or plan_of(overrides))
    for rest in (CELL, [*CELL, "optim.lr=0.01"]):
        with sharing():
            ids = [cell_id_of([*rest, f"seed={seed}"]) for seed in (0, 1, 7, 10**17)]
        assert ids == [plan_of([f"seed={seed}", *rest]).id for seed in (0, 1, 7, 10**17)]
    assert len(planned) == 2
    assert cell_id_of(CELL) == cell_id_of([*CELL, "seed=0"])


@pytest.mark.parametrize("seeds", [["seed=-1"], ["seed=1.5"], ["seed=9223372036854775808"], ["seed=x"]])
def test_a_seed_that_is_none_is_refused(seeds):
    with pytest.raises(Refused):
        cell_id_of([*CELL, *seeds])


def test_of_two_seeds_the_later_counts():
    assert cell_id_of([*CELL, "seed=1", "seed=2"]) == plan_of([*CELL, "seed=2"]).id


def test_no_plan_of_such_an_engine_holds_its_seed_elsewhere():
    """What lets ids be made without plans: the identities of two seeds differ in the config's seed and in nothing else."""
    one, two = (plan_of([*CELL, f"seed={seed}"]).identity for seed in (3, 4))
    assert one is not None and two is not None
    assert one[0].pop("seed") == 3 and two[0].pop("seed") == 4
    assert one == two
