from __future__ import annotations

import json
import math

import pytest

from sparselab.core.errors import ConfigError, RunFailed
from sparselab.storage import atomic, record
from sparselab.storage.ids import digest

ID = "0123456789ab"


def make(**changes):
    return {
        "id": ID,
        "status": "finished",
        "config": {"seed": 0, "runs_dir": "runs"},
        "overrides": ["seed=0"],
        "metrics": {"test.accuracy": 0.5, "test.count": 100},
        "sparsity": {"requested": "2:4", "realised": 0.5, "pattern_holds": True, "layers": []},
        "account": {"params": 8},
        "seconds": 1.5,
        "environment": {"torch": "2"},
        "data": {"name": "digits", "fingerprint": "f00", "path": "/somewhere"},
    } | changes


def _line(folder, id=None):
    with pytest.raises(ConfigError) as refused:
        record.read(folder, id)
    line = str(refused.value)
    assert "\n" not in line and len(line) <= 160 and " — " in line
    return line


def test_round_trip(tmp_path):
    path = record.write(tmp_path, make())
    read = record.read(tmp_path, ID)
    assert path == tmp_path / "record.json" and read["schema"] == 2 and len(read["seal"]) == 64
    assert {key: read[key] for key in make()} == make()
    assert record.finished(tmp_path, ID) == read and record.finished(tmp_path, "ba9876543210") is None
    assert record.write(tmp_path, read).read_bytes() == atomic.render(read)  # sealing again changes nothing


def test_a_failed_record_is_readable_and_not_valid(tmp_path):
    record.write(tmp_path, make(status="failed", metrics={}, reason="NaN loss at step 7"))
    assert record.read(tmp_path)["reason"] == "NaN loss at step 7"
    assert record.finished(tmp_path, ID) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": {"test.accuracy": math.nan}}, "record.metrics.test.accuracy=nan: not a finite number"),
        ({"metrics": {"test.perplexity": math.inf}}, "record.metrics.test.perplexity=inf: not a finite number"),
        ({"metrics": {"test.accuracy": "0.5"}}, "record.metrics.test.accuracy: is not a number"),
        ({"metrics": {"test.accuracy": True}}, "record.metrics.test.accuracy: is not a number"),
        ({"metrics": None}, "record.metrics: is missing"),
        ({"account": {"flops": math.nan}}, "record.account.flops=nan: not a finite number"),
        ({"status": "done"}, "record.status=done: no such status"),
        ({"id": "../x"}, "record.id=../x: not a cell's id"),
        ({"data": {"path": object()}}, "record.data.path: a object is not plain data"),
    ],
)
def test_what_cannot_be_a_record_is_not_written(tmp_path, changes, said):
    with pytest.raises(RunFailed) as failed:
        record.write(tmp_path, make(**changes))
    assert str(failed.value).startswith(said) and not list(tmp_path.iterdir())


def test_missing(tmp_path):
    assert "no record here" in _line(tmp_path)
    (tmp_path / "record.json").mkdir()
    assert "not a file" in _line(tmp_path)
    assert record.finished(tmp_path / "nowhere", ID) is None


def test_wrong_cell_and_newer_schema(tmp_path):
    record.write(tmp_path, make())
    assert f"the record of cell {ID}, not of ba9876543210" in _line(tmp_path, "ba9876543210")
    changed = json.loads((tmp_path / "record.json").read_text()) | {"schema": 3}
    seal = changed.pop("seal")
    (tmp_path / "record.json").write_bytes(atomic.render({**changed, "seal": seal}))
    assert "corrupt or half-written" in _line(tmp_path)  # sealed as ours: the number itself was damaged
    changed["seal"] = digest(changed)
    (tmp_path / "record.json").write_bytes(atomic.render(changed))
    assert "schema 3 is newer than this sparselab's 2 — update sparselab" in _line(tmp_path)


def test_an_older_schema_names_the_command(tmp_path):
    folder = tmp_path / ID
    path = record.write(folder, make())
    changed = json.loads(path.read_text()) | {"schema": 1}
    changed.pop("seal")
    path.write_bytes(atomic.render({**changed, "seal": digest(changed)}))
    before = path.read_bytes()
    assert " — run sparselab migrate " in _line(folder) and "schema 1 is older than this" in _line(folder)
    with pytest.raises(record.Older):
        record.finished(folder, ID)
    assert record.glance(folder, ID) is None and path.read_bytes() == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b" ",
        lambda data: data.replace(b"0.5", b"0.9", 1),
        lambda data: data.replace(b'"seconds": 1.5', b'"seconds": 1.5e0'),
        lambda data: data.replace(b'"seal"', b'"soul"'),
        lambda data: data.replace(b'"schema": 2', b'"schema": true'),
        lambda data: data.replace(b"1.5", b"NaN"),
        lambda data: b"[" * 100_000,
        lambda data: b"[1, 2]",
        lambda data: b"null",
        lambda data: b"9" * 5000,
        lambda data: b"\xff\xfe\x00",
    ],
)
def test_corrupt(tmp_path, spoil):
    path = record.write(tmp_path, make())
    path.write_bytes(spoil(path.read_bytes()))
    assert "corrupt or half-written record" in _line(tmp_path)
    assert record.finished(tmp_path, ID) is None


def test_result_hash():
    base = record.result_hash(make())
    same = {"seconds": 9.0, "environment": {}, "overrides": [], "config": {"runs_dir": "elsewhere"}, "seal": "x"}
    same["data"] = make()["data"] | {"path": "/elsewhere"}
    assert record.result_hash(make(**same)) == base == record.result_hash(record.sealed(make()))
    others = [{"metrics": {"test.accuracy": 0.25}}, {"status": "failed"}, {"account": {"params": 9}}]
    others += [{"data": {"fingerprint": "bad"}}, {"files": {"model.safetensors": {"sha256": "0"}}}]
    assert len({base, *(record.result_hash(make(**change)) for change in others)}) == 6


def test_settle(tmp_path):
    first = record.settle(tmp_path, make())
    assert first.agrees and first.record == record.read(tmp_path)
    again = record.settle(tmp_path, make(seconds=2.0))
    assert again.agrees and again.record["seconds"] == 1.5  # the same result: the first stays
    assert record.read(tmp_path)["seconds"] == 1.5 and len(list(tmp_path.iterdir())) == 1
    other = make(metrics={"test.accuracy": 0.25})
    assert record.settle(tmp_path, other) == (first.record, False)
    kept = tmp_path / f"record-{record.result_hash(other)[:12]}.json"
    assert record.read(tmp_path)["metrics"]["test.accuracy"] == 0.5
    assert json.loads(kept.read_text())["metrics"] == {"test.accuracy": 0.25}


@pytest.mark.parametrize("there", [make(status="failed", metrics={}), None])
def test_settle_replaces_what_is_not_finished(tmp_path, there):
    (tmp_path / "record.json").write_bytes(b"half" if there is None else b"")
    if there:
        record.write(tmp_path, there)
    assert record.settle(tmp_path, make()).agrees and record.finished(tmp_path, ID)
