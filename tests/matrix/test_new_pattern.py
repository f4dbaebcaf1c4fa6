"""The cost of a new pattern: one class. Registered for a test, it is parsed, refused, trained, recorded and inspected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from matrix_cells import SPARSITIES, Row, config_of, rows

from sparselab.core.errors import ConfigError
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import PATTERNS, Placed, Sparsity, density_of
from sparselab.running.planning import engine_of
from sparselab.running.run_cell import run_cell
from sparselab.storage import record
from sparselab.training.cost import foresee
from sparselab.weights.method import METHODS
from sparselab.weights.patterns.layout import matrix
from sparselab.weights.patterns.matrix import flattened
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.patterns.units import Units

if TYPE_CHECKING:
    from torch import Tensor


class Diagonal(Units):
    """``diagonal:0.5``: this fraction of the diagonals goes; each wraps around at the last input."""

    form = "diagonal"
    example = "diagonal:0.5"
    unit = "diagonal"

    def __str__(self) -> str:
        return f"diagonal:{self.removed}"

    @classmethod
    def read(cls, value: int | float | str, at: str) -> Sparsity | None:
        name, _, removed = str(value).partition(":")
        return cls(density_of(removed, at)) if name == "diagonal" else None

    def misfit(self, layer: Layer, axis: str) -> str | None:
        if layer.kind not in ("linear", "conv1d"):
            return f"{layer.name} is no plain matrix and has no diagonals"
        return super().misfit(layer, axis)

    def unit_size(self, kind: str, shape: tuple[int, ...]) -> int:
        return matrix(kind, shape)[0]

    def apart(self, on: Placed, tensor: Tensor) -> Tensor:
        rows = torch.arange(matrix(on.kind, tuple(tensor.shape))[0])[:, None]
        inputs = flattened(on.kind, tensor)
        return inputs[rows, (rows + torch.arange(inputs.shape[1])) % inputs.shape[1]].t()


@pytest.fixture(autouse=True)
def diagonal(monkeypatch, borrowed):
    before = list(PATTERNS)
    borrowed(PATTERNS).register("diagonal")(Diagonal)
    monkeypatch.setitem(SPARSITIES, "diagonal", "diagonal:0.5")
    yield
    monkeypatch.undo()
    assert list(PATTERNS) == before


def test_its_mask_keeps_whole_diagonals():
    score = torch.tensor([[1.0, 0.0, 5.0, 0.0], [0.0, 1.0, 0.0, 4.0], [3.0, 0.0, 1.0, 0.0]])
    expected = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]).bool()  # diagonals 0 (sum 3) and 2 (sum 12)
    for kind, given in (("linear", score), ("conv1d", score.t().contiguous())):
        pattern = Pattern.of(Sparsity.parse("diagonal:0.5"), kind)
        mask = pattern.mask(given)
        assert torch.equal(mask if kind == "linear" else mask.t(), expected)
        assert pattern.units(given.shape) == 4 and pattern.kept(given.shape) == 6 == int(mask.sum())
        assert pattern.holds(mask, 0.5) and not pattern.holds(~mask, 0.25)
        broken = mask.clone()
        broken[0, 0] = False
        assert not pattern.holds(broken) and pattern.broken(broken) == (4, 4)


def test_its_refusals_name_the_layer_and_the_fix(tmp_path):
    with pytest.raises(ConfigError, match=r"unit:0\.5, diagonal:0\.5 or dense"):
        Sparsity.parse("diagonl:0.5")
    with pytest.raises(ConfigError, match="must be in"):
        Sparsity.parse("diagonal:2")
    with pytest.raises(ValueError, match="no diagonals"):
        Pattern.of(Sparsity.parse("diagonal:0.5"), "conv").mask(torch.rand(4, 4, 3, 3))
    config = config_of(Row("srste", "diagonal", "constant"), tmp_path, "model=resnet20")
    with pytest.raises(
        ConfigError, match=r"sparsity=diagonal:0\.5: .* is no plain matrix and has no diagonals — exclude it"
    ):
        engine_of(config).plan(config, [])
    config = config_of(Row("rigl", "diagonal", "periodic"), tmp_path)
    with pytest.raises(ConfigError, match=r"sparsity=diagonal:0\.5: method=rigl is not defined for diagonal — write"):
        engine_of(config).plan(config, [])


def test_methods_and_schedules_that_take_any_pattern_take_it():
    methods = {method for method in METHODS for row in rows(method) if row.kind == "diagonal"}
    assert {"srste", "ste", "gmp", "imp", "snip"} <= methods and not methods & {"dense", "rigl", "wanda", "cast"}


@pytest.mark.parametrize(("method", "schedule"), [("srste", "constant"), ("gmp", "cubic")])
def test_it_trains_is_recorded_and_is_inspected(method, schedule, tmp_path):
    row = Row(method, "diagonal", schedule)
    config = config_of(row, tmp_path, trainer={"max_steps": 2}, targets={"exclude": []})
    plan = engine_of(config).plan(config, [])
    assert run_cell(plan) == 0
    found = record.read(plan.folder, plan.id)
    assert found["account"]["updates"] == 2
    assert found["sparsity"]["requested"] == "diagonal:0.5" and found["sparsity"]["pattern_holds"]
    assert found["sparsity"]["kept"] * 2 == found["sparsity"]["weights"]
    assert foresee(plan.parts)["params_nonzero"] >= found["account"]["params_nonzero"] > 0  # a kept weight may be 0

    from sparselab.cli.inspect import examine

    seen = {row.name: row for row in examine(tmp_path / plan.id).rows}
    assert not any(row.broken for row in seen.values())
    assert seen["layers.0.weight"].requested == "diagonal:0.5: 64 of 64"


def test_one_layer_of_its_own(run):
    finished = run(Row("srste", "nm", "constant"), targets={"patterns": {"layers.1": "diagonal:0.25"}})
    kept = {slot.name: slot.kept / slot.mask.numel() for slot in finished.sparsifier.slots}
    assert kept["layers.1.weight"] == 0.75 and kept["layers.0.weight"] == 0.5
