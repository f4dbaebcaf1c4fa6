from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.experiments.sweeps import state
from sparselab.storage import record as records

ID = "0123456789ab"


def write(folder: Path, **changes: object) -> bytes:
    body = {"id": ID, "status": "finished", "config": {"lr": 1e-05, "n": 1.0, "é": [True, None]}, "metrics": {"a": 2.0}}
    return records.write(folder, {**body, **changes}).read_bytes()


def test_done_needs_the_right_finished_record(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert not state.done(folder, ID)
    write(tmp_path, status="failed", reason="NaN")
    assert not state.done(folder, ID) and state.broken(folder, ID) is None
    write(tmp_path)
    assert state.done(folder, ID) and not state.done(folder, "ba9876543210")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_bit_or_a_lost_end_is_seen(tmp_path_factory: object, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("record")  # type: ignore[attr-defined]
    whole = write(folder)
    if data.draw(st.booleans()):
        broken = bytearray(whole)
        broken[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        broken = bytes(broken)
    else:
        broken = whole[: data.draw(st.integers(0, len(whole) - 2))]
    records.path_of(folder).write_bytes(broken)
    if state.done(str(folder), ID):  # a number in another spelling of the same value
        assert json.loads(broken) == json.loads(whole)
    else:
        assert state.broken(str(folder), ID)


@pytest.mark.parametrize("number", [b"1", b"3", b"9", b"10"])
def test_a_damaged_schema_is_damage_and_no_newer_record(tmp_path: Path, number: bytes) -> None:
    whole = write(tmp_path)
    assert b'"schema": 2,' in whole
    records.path_of(tmp_path).write_bytes(whole.replace(b'"schema": 2,', b'"schema": ' + number + b","))
    assert not state.done(str(tmp_path), ID)
    assert state.broken(str(tmp_path), ID)


def test_new_records_are_told_from_old_ones(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert state.signature(folder) is None and state.ended(folder, ID) is None
    write(tmp_path, status="failed", reason="disk full")
    before = state.signature(folder)
    assert state.ended(folder, ID, before) is None
    write(tmp_path, seconds=2.5)
    ended = state.ended(folder, ID, before)
    assert ended is not None and (ended.status, ended.metrics, ended.seconds) == ("finished", {"a": 2.0}, 2.5)


def test_what_is_set_aside_stays(tmp_path: Path) -> None:
    for number in (1, 2):
        records.path_of(tmp_path).write_text("{")
        assert "corrupt or half-written" in str(state.broken(str(tmp_path), ID))
        assert state.set_aside(str(tmp_path)).name == f"unusable-{number}.json"
