from __future__ import annotations

import itertools

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from matrix_cells import Row, config_of, fit
from PIL import Image

from sparselab.inputs.data.sets.photographs import BSD400
from sparselab.inputs.data.sets.sentences import Glue
from sparselab.running.planning import engine_of
from sparselab.running.run_cell import run_cell
from sparselab.weights.method import METHODS

TEXT = "Wer reitet so spät durch Nacht und Wind? Es ist der Vater mit seinem Kind.\n" * 30


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(row, *overrides, watch=..., change=..., **groups)``: fit a tiny cell under observation."""
    count = itertools.count()

    def run(row, *overrides, watch=None, change=lambda parts: None, **groups):
        return fit(config_of(row, tmp_path / str(next(count)), *overrides, **groups), monkeypatch, watch, change)

    return run


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """A folder of local copies: a small text, sentences, photographs and ratings where their data sets look for them."""
    folder = tmp_path_factory.mktemp("data")
    for part, size in zip(("train", "validation"), Glue.rows["rte"], strict=True):
        labels = [i % 2 for i in range(size)]
        table = {"sentence1": [("good", "bad")[x] for x in labels], "sentence2": ["so"] * size, "label": labels}
        (folder / "glue" / "rte").mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(table), folder / "glue" / "rte" / f"{part}.parquet")
    for name, side in (("bsd400", BSD400.smallest), ("bsd68", 24)):
        (folder / "denoise" / name).mkdir(parents=True)
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 256, (side, side), np.uint8)
            Image.fromarray(pixels).save(folder / "denoise" / name / f"{i}.png")
    draw = np.random.default_rng(0)
    rated = [
        f"{user},{item},3,{at}" for user in range(24) for at, item in enumerate(draw.choice(32, 12, replace=False))
    ]
    (folder / "movielens_small").mkdir()
    (folder / "movielens_small" / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rated]))
    (folder / "text").mkdir()
    (folder / "text" / "tinyshakespeare.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    """The folder of a finished dense run."""
    config = config_of(Row("dense", "dense", "constant"), tmp_path_factory.mktemp("teacher"))
    plan = engine_of(config).plan(config, [])
    assert run_cell(plan) == 0
    return plan.folder


@pytest.fixture
def methods(borrowed):
    return borrowed(METHODS)
