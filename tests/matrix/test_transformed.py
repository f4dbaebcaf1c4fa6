"""Transformed networks under the methods that make them sparse: the invariant, counts and costs hold there too."""

from __future__ import annotations

import pytest
from matrix_cells import Row

from sparselab.inputs.models.transform import TRANSFORMS
from sparselab.weights.cost import cost_of

METHODS = (("random", "constant"), ("set", "periodic"), ("rigl", "periodic"))


MEMBERS = [name for name in TRANSFORMS if "sparsity" in TRANSFORMS[name].Options.model_fields]


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize(("method", "schedule"), METHODS)
def test_members_compose_with_static_set_and_rigl(name, method, schedule, run):
    """Each batch is checked by ``matrix_cells.check``: masked weights are 0, and a layer's count never moves."""
    model = {"batch_norm": True, "transform": {"name": name, "sparsity": 0.75}}
    row = Row(method, "unstructured", schedule)
    finished = run(row, "distribution=uniform", "optim=sgd", model=model)
    slots = finished.sparsifier.slots
    assert len(slots) >= 2 and all(slot.kept for slot in slots)
    counts = {tuple(kept.items()) for _, kept in finished.sparsifier.ledger}
    assert len(counts) == 1  # through every exchange
    model_spec = finished.task.family.model_spec(finished.task.data)
    assert cost_of(model_spec, dict(counts.pop())).macs <= 1.1 * model_spec.plain_macs or name == "sparse_wide"


@pytest.mark.parametrize(("method", "schedule"), METHODS)
def test_iso_costs_the_same_after_training(method, schedule, run, monkeypatch):
    import matrix_cells

    monkeypatch.setitem(matrix_cells.SPARSITIES, "unstructured", "iso")
    model = {"transform": {"name": "sparse_wide", "sparsity": 0.5}, "hidden": [24, 24]}
    finished = run(Row(method, "unstructured", schedule), "distribution=uniform", model=model)
    model_spec = finished.task.family.model_spec(finished.task.data)
    spent = cost_of(model_spec, {slot.layer.name: slot.kept for slot in finished.sparsifier.slots}).macs
    assert abs(spent - model_spec.plain_macs) <= 1e-3 * model_spec.plain_macs
