"""Tables and records made by hand or by a seed; nothing here trains."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparselab.store.record import sealed
from sparselab.tables.grid import Cell, expand
from sparselab.tables.results import Entry
from sparselab.tables.schema import Table, load

TABLE = """\
source: {arxiv: "2102.04010", title: A paper, year: 2021, table: Table 2}
metric: {key: test.accuracy, label: top-1 %, better: higher, scale: 100, read: at the end}
base: [dataset=digits]
rows:
  dense: [sparsity=null]
  "2:4": ["sparsity=2:4"]
  "1:4": ["sparsity=1:4"]
columns:
  dense: [method=dense]
  ste: [method=ste]
  srste: [method=srste]
reference: {row: dense, column: dense}
exclude:
  - {rows: [dense], columns: [ste, srste], reason: no mask}
  - {rows: ["2:4", "1:4"], columns: [dense], reason: one dense cell}
published:
  - {row: "2:4", column: srste, value: 97.0, provenance: Table 2, verified: true}
  - {row: "2:4", column: ste, value: 96.0, provenance: memory, verified: false}
differences: [Fewer epochs.]
tiers:
  cpu: {base: [model=mlp], seeds: [0, 1, 2], minutes: 3, comparable: true}
  paper: {base: [model=vit_s], rows: [dense, "2:4"], seeds: [0], minutes: 9}
claims:
  - {kind: order, text: srste beats ste, a: {column: srste}, relation: ">", b: {column: ste}, combine: mean}
  - {kind: within, text: 2:4 matches dense, a: {row: "2:4", column: srste}, margin: 1.0}
"""


def make_record(cell: Cell, accuracy: float, **metrics: float) -> dict[str, Any]:
    """A record as a run leaves it."""
    dense = "method=dense" in cell.overrides
    share = 1.0 if dense else 0.5
    return sealed({
        "id": hashlib.sha256(repr(cell).encode()).hexdigest()[:12],
        "status": "finished",
        "config": {"seed": cell.seed},
        "overrides": list(cell.overrides),
        "metrics": {"test.accuracy": accuracy, "test.loss": 1 - accuracy, **metrics},
        "sparsity": {
            "requested": next((o[9:] for o in cell.overrides if o.startswith("sparsity=")), "dense"),
            "realised": 1 - share,
            "pattern_holds": True,
            "layers": [{"name": "head", "shape": [10, 64], "pattern": "2:4", "density": share, "nonzero": 320}],
        },
        "account": {
            "params": 1000, "params_nonzero": int(1000 * share), "macs_dense": 2_000_000,
            "macs": int(2_000_000 * share),
            "flops_train": 6e9 * (1 + 2 * share) / 3, "flops_train_dense": 6e9,
        },
        "seconds": 12.5,
        "environment": {"commit": "0123abc", "torch": "2.15.0", "device": "cpu"},
        "data": {"title": "digits", "fingerprint": "f00d"},
    })  # fmt: skip


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A configs folder with the one table above, as ``demo``."""
    folder = tmp_path / "configs" / "paper"
    folder.mkdir(parents=True)
    (folder / "demo.yaml").write_text(TABLE)
    return folder.parent


@pytest.fixture
def table(configs: Path) -> Table:
    return load("demo", configs)[0]


@pytest.fixture
def entries(table: Table) -> list[Entry]:
    """All cells of the tier cpu: dense 98, srste 97, ste 95, each ± 0.1, less 1 at 1:4."""
    level = {"dense": 0.98, "srste": 0.97, "ste": 0.95}
    found = []
    for cell in expand(table, "cpu"):
        accuracy = level[cell.column] - 0.01 * (cell.row == "1:4") + (-0.001, 0.0, 0.001)[cell.seed]
        found.append(Entry(cell, make_record(cell, round(accuracy, 6))))
    return found


@pytest.fixture
def fill() -> Callable[[Table, str], list[Entry]]:
    """Records for every cell of a table at a tier, with numbers drawn from a seed."""

    def records(table: Table, tier: str) -> list[Entry]:
        rng = random.Random(f"{table.output} {tier}")
        return [Entry(cell, make_record(cell, rng.uniform(0.8, 0.99))) for cell in expand(table, tier)]

    return records


@pytest.fixture
def recorded() -> Callable[..., dict[str, Any]]:
    """:func:`make_record`."""
    return make_record
