from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sparselab.experiments.sweeps import lease
from sparselab.experiments.sweeps.lease import Holder, Lease, held, myself, read, take


def plant(folder: Path, holder: Holder, age: float = 0) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / lease.NAME
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (time.time() - age, time.time() - age))


@pytest.fixture
def dead(gone: int) -> Holder:
    return replace(myself(), pid=gone, token="dead")


def elsewhere(**changes: str) -> Holder:
    return replace(myself(), place="another machine", host="far", token="far", **changes)


def test_one_takes_and_the_other_learns_who(tmp_path: Path) -> None:
    mine = take(tmp_path)
    assert isinstance(mine, Lease)
    other = take(tmp_path)
    assert isinstance(other, Holder) and other.pid == os.getpid()
    assert held(tmp_path) == other
    mine.release()
    assert held(tmp_path) is None and not list(tmp_path.iterdir())
    again = take(tmp_path)
    assert isinstance(again, Lease)
    again.release()


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        got = [one for one in pool.map(lambda _: take(tmp_path), range(64)) if isinstance(one, Lease)]
    assert len(got) == 1
    got[0].release()


def test_of_many_that_find_a_dead_one_one_gets_it(tmp_path: Path, dead: Holder) -> None:
    plant(tmp_path, dead)
    with ThreadPoolExecutor(16) as pool:
        got = [one for one in pool.map(lambda _: take(tmp_path), range(64)) if isinstance(one, Lease)]
    holding = read(tmp_path)
    assert holding is not None and holding.token in {one.holder.token for one in got}
    assert len(got) == 1
    got[0].release()
    assert not list(tmp_path.iterdir())


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path: Path, dead: Holder) -> None:
    plant(tmp_path, dead)
    assert held(tmp_path) is None
    mine = take(tmp_path)
    assert isinstance(mine, Lease)
    mine.release()


def test_a_process_id_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    plant(tmp_path, replace(myself(), started="1", token="old"))
    assert held(tmp_path) is None


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    holder = replace(myself(), pid=child.pid, started=lease._born(child.pid) or "0", token="child")
    while lease._born(child.pid):
        time.sleep(0.01)
    assert holder.dead()
    child.wait()


def test_another_machines_lease_lasts_as_long_as_it_shows_life(tmp_path: Path) -> None:
    plant(tmp_path, elsewhere(), age=lease.STALE - 20)
    assert held(tmp_path) is not None and isinstance(take(tmp_path), Holder)
    plant(tmp_path, elsewhere(), age=lease.STALE + 20)
    assert held(tmp_path) is None
    mine = take(tmp_path)
    assert isinstance(mine, Lease)
    mine.release()


def test_a_requeued_job_takes_over_from_its_earlier_self(tmp_path: Path) -> None:
    plant(tmp_path, elsewhere(job="7_3", restart="0"))
    assert isinstance(take(tmp_path, replace(myself(), job="7_4", restart="0")), Holder)
    assert isinstance(take(tmp_path, replace(myself(), job="7_3", restart="0")), Holder), "a twin is not a successor"
    mine = take(tmp_path, replace(myself(), job="7_3", restart="1"))
    assert isinstance(mine, Lease)
    mine.release()


def test_slurm_names_the_job() -> None:
    holder = myself(
        "s", {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2"}
    )
    assert (holder.job, holder.restart, holder.sweep) == ("7_3", "2", "s")
    assert myself("", {"SLURM_JOB_ID": "9"}).job == "9"
    assert myself("", {}).job == myself("", {}).restart == ""


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff\xfe", b"null", b'"x"' * 9000])
def test_an_unreadable_lease_is_nobodys(tmp_path: Path, content: bytes) -> None:
    (tmp_path / lease.NAME).write_bytes(content)
    assert read(tmp_path) is None and held(tmp_path) is None
    mine = take(tmp_path)
    assert isinstance(mine, Lease)
    mine.release()


def test_types_are_checked(tmp_path: Path) -> None:
    plant(tmp_path, replace(myself(), pid="../../etc"))  # type: ignore[arg-type]
    assert read(tmp_path) is None


def test_it_shows_life_and_gives_way_to_who_took_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.02)
    mine = take(tmp_path)
    assert isinstance(mine, Lease)
    path = tmp_path / lease.NAME
    os.utime(path, (0, 0))
    until = time.monotonic() + 5
    while path.stat().st_mtime < 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert path.stat().st_mtime > 1
    (beat,) = [thread for thread in threading.enumerate() if thread.name == f"lease of {tmp_path.name}"]
    other = elsewhere()
    plant(tmp_path, other)
    beat.join(5)
    assert not beat.is_alive(), "another's lease is left alone"
    mine.release()
    assert read(tmp_path) == other
