"""Pictures that cells made: brought beside a table, believed by their hash, shown on the page."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparselab.spec.faults import Refused
from sparselab.store import png, record
from sparselab.tables import results
from sparselab.tables.pictures import pictures
from sparselab.tables.render import to_markdown
from sparselab.tables.report import html
from sparselab.tables.results import Entry
from sparselab.tables.schema import Table, load
from sparselab.tables.summary import summarise

DATA = png.grey(np.arange(12, dtype=np.uint8).reshape(3, 4))


@pytest.fixture
def shown(configs: Path) -> Table:
    """The table, with a line that asks for the pictures of one cell."""
    path = configs / "paper" / "demo.yaml"
    path.write_text(path.read_text() + 'pictures: {rows: ["2:4"], columns: [srste]}\n')
    return load("demo", configs)[0]


@pytest.fixture
def runs(tmp_path: Path, entries: list[Entry]) -> Path:
    """Every record has a picture in its run's folder, and says so."""
    for entry in entries:
        facts = {"fields.png": {"sha256": hashlib.sha256(DATA).hexdigest()}, "model.safetensors": {"sha256": "0"}}
        entry.record.update(record.sealed({**entry.record, "files": facts}))
        folder = tmp_path / "runs" / entry.id
        folder.mkdir(parents=True)
        (folder / "fields.png").write_bytes(DATA)
    return tmp_path / "runs"


def test_the_first_seed_s_picture_of_the_named_cells_is_brought_and_kept(
    shown: Table, runs: Path, entries: list[Entry], tmp_path: Path, configs: Path
):
    (one,) = pictures(shown, entries)
    assert (one.entry.cell.row, one.entry.cell.column, one.entry.cell.seed) == ("2:4", "srste", 0)
    out = tmp_path / "results"
    results.write(out, shown, "cpu", entries, configs, runs)
    here = out / "demo" / "cpu"
    assert [path.read_bytes() for path in (here / "pictures").iterdir()] == [DATA]
    assert f"![2:4 · srste (seed 0)]({one.name})" in (here / "table.md").read_text()
    results.write(out, shown, "cpu", entries, configs, tmp_path / "none")  # what is there stays without the runs
    assert results.stale(out, configs) == []


@pytest.mark.parametrize("fault", ["missing", "another", "strange"])
def test_a_picture_that_is_not_the_record_s_is_found(
    fault: str, shown: Table, runs: Path, entries: list[Entry], tmp_path: Path, configs: Path
):
    out = tmp_path / "results"
    results.write(out, shown, "cpu", entries, configs, runs)
    (path,) = (out / "demo" / "cpu" / "pictures").iterdir()
    if fault == "missing":
        path.unlink()
    elif fault == "another":
        path.write_bytes(DATA[:-1] + b"\1")
    else:
        (path.parent / "more.png").write_bytes(DATA)
    words = {"missing": "is missing", "another": "is not the picture", "strange": "belongs to no record"}
    (line,) = results.stale(out, configs)
    assert words[fault] in line


def test_a_run_s_picture_that_was_changed_is_not_brought(
    shown: Table, runs: Path, entries: list[Entry], tmp_path: Path, configs: Path
):
    (one,) = pictures(shown, entries)
    (runs / one.entry.id / "fields.png").write_bytes(b"another")
    results.write(tmp_path / "results", shown, "cpu", entries, configs, runs)
    assert not (tmp_path / "results" / "demo" / "cpu" / "pictures").exists()


def test_tables_that_name_no_picture_are_as_ever(table: Table, runs: Path, entries: list[Entry]):
    assert pictures(table, entries) == [] and "Pictures" not in to_markdown(summarise(table, "cpu", entries))


def test_the_page_holds_the_picture_itself(shown: Table, runs: Path, entries: list[Entry]):
    summary = summarise(shown, "cpu", entries)
    data = base64.b64encode(DATA).decode()
    page = html([summary], lambda summary, picture: DATA)
    assert f'src="data:image/png;base64,{data}"' in page and "2:4 · srste (seed 0)" in page
    assert "data:image" not in html([summary])


def test_unknown_rows_are_refused(configs: Path):
    path = configs / "paper" / "demo.yaml"
    path.write_text(path.read_text() + "pictures: {rows: [4:8]}\n".replace("4:8", "'4:8'"))
    with pytest.raises(Refused, match="pictures row=4:8: the table has no such row"):
        load("demo", configs)


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (300, 301)])
def test_a_png_without_compression_is_a_png(shape: tuple[int, int], tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(png.grey(pixels))
    with Image.open(tmp_path / "a.png") as image:
        assert (np.asarray(image) == pixels).all()
