"""Drills F1, F2, F3 and S2: a run's files survive crashes, full disks, flipped bits and other writers.

The run is a miniature cell: it trains, saves checkpoints, exports its network and settles its record. Every drill has a
control, the way programs usually write, which must fail it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import multiprocessing
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import torch

from sparselab.cli.inspect import examine
from sparselab.core.errors import ConfigError, RunFailed
from sparselab.storage import atomic, record
from sparselab.storage.checkpoints import Checkpoints
from sparselab.storage.export import export

ID = "0123456789ab"
STEPS = 6
RESULTS = ("record.json", "model.safetensors", "masks.safetensors")


def update(weights, step):
    return (weights * 3 + torch.arange(len(weights)) * step) % 1013  # whole numbers: exact


def cell(folder, size=16):
    """Train ``STEPS`` updates with a checkpoint after every second one; skip, resume or start, as the files say."""
    store = Checkpoints(folder / "checkpoints", ID)
    atomic.sweep(folder)
    store.sweep()
    if record.finished(folder, ID):
        return
    found = store.load_latest()
    step, weights = (found.step, found.state["weights"]) if found else (0, torch.zeros(size))
    while step < STEPS:
        step += 1
        weights = update(weights, step)
        if step % 2 == 0:
            store.save({"weights": weights}, step)
    mask = torch.arange(size) % 2 == 0
    files = export(folder, {"weights": weights * mask}, {"weights": mask})
    record.settle(folder, finished(files=files, metrics={"test.sum": float(weights.sum())}))


def finished(**parts):
    return {"id": ID, "status": "finished", "config": {}, "metrics": {}} | parts


def in_place(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        atomic.FILES.write(descriptor, memoryview(data))
    finally:
        os.close(descriptor)


def naive_cell(folder, size=16):
    """The control: one checkpoint, written in place; what exists is believed."""
    if (folder / "record.json").exists():
        return
    last = folder / "last.ckpt"
    step, weights = torch.load(last, weights_only=True) if last.exists() else (0, torch.zeros(size))
    while step < STEPS:
        step += 1
        weights = update(weights, step)
        if step % 2 == 0:
            buffer = io.BytesIO()
            torch.save((step, weights), buffer)
            in_place(last, buffer.getvalue())
    in_place(folder / "model.safetensors", weights.numpy().tobytes())
    in_place(folder / "masks.safetensors", b"")
    in_place(folder / "record.json", json.dumps(finished(metrics={"test.sum": float(weights.sum())})).encode())


def results(folder):
    return [(folder / name).read_bytes() for name in RESULTS]


def leftovers(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture
def files(monkeypatch):
    """``with files(instance):`` lets the store make its system calls through ``instance``."""

    @contextlib.contextmanager
    def using(instance):
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "FILES", instance)
            yield instance

    return using


# --- F1: the process dies, or the power goes, at every single system call -------------------------------------------


class Crash(BaseException):
    """The process is gone: nothing can catch it, and no call after it has an effect."""


class Dying(atomic.Files):
    """Dies at the ``last``-th point: before any call, and in the middle of a write."""

    def __init__(self, last=0):
        self.last, self.points, self.dead = last, 0, False

    def _point(self):
        if self.dead:
            raise Crash
        self.points += 1
        self.dead = self.points == self.last
        return self.dead

    def _before(self, name, *arguments):
        if self._point():
            self.crash()
        return getattr(atomic.Files, name)(self, *arguments)

    def crash(self):
        raise Crash

    def create(self, path):
        return self._before("create", path)

    def write(self, descriptor, data):
        if self._point():
            self.crash()
        if self._point():
            os.write(descriptor, data[: len(data) // 2])
            self.crash()
        return super().write(descriptor, data)

    def sync(self, descriptor):
        return self._before("sync", descriptor)

    def rename(self, source, target):
        return self._before("rename", source, target)

    def link(self, source, target):
        return self._before("link", source, target)

    def unlink(self, path):
        return self._before("unlink", path)

    def sync_folder(self, folder):
        return self._before("sync_folder", folder)


class LosingNames(Dying):
    """The power goes: names that their folder was not synced for are as they were before."""

    def __init__(self, last=0):
        super().__init__(last)
        self.unsynced = []

    def rename(self, source, target):
        before = target.read_bytes() if target.exists() else None
        super().rename(source, target)
        self.unsynced.append((target, before))

    def link(self, source, target):
        super().link(source, target)
        self.unsynced.append((target, None))

    def sync_folder(self, folder):
        super().sync_folder(folder)
        self.unsynced = [(path, before) for path, before in self.unsynced if path.parent != folder]

    def crash(self):
        for path, before in reversed(self.unsynced):
            path.unlink() if before is None else path.write_bytes(before)
        super().crash()


class LosingData(Dying):
    """The power goes: files that were not synced are empty, under whatever name they have by now."""

    def __init__(self, last=0):
        super().__init__(last)
        self.unsynced = {}

    def create(self, path):
        descriptor = super().create(path)
        self.unsynced[os.fstat(descriptor).st_ino] = os.dup(descriptor)
        return descriptor

    def sync(self, descriptor):
        super().sync(descriptor)
        os.close(self.unsynced.pop(os.fstat(descriptor).st_ino))

    def crash(self):
        for descriptor in self.unsynced.values():
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
        super().crash()


def _die(run, folder, files, dying):
    with files(dying), contextlib.suppress(Crash):
        run(folder)


def _fatal(run, root, files, dying=Dying, deaths=None):
    """The points whose crash a rerun does not make good. ``deaths``: tuples of points of successive crashes."""
    with files(Dying()) as counting:
        run(root / "whole")
    wanted = results(root / "whole")
    fatal = []
    for points in deaths or [(k,) for k in range(1, counting.points + 1)]:
        folder = root / "-".join(map(str, points))
        for point in points:
            _die(run, folder, files, dying(point))
        try:
            run(folder)
            if results(folder) != wanted or leftovers(folder):
                fatal.append(points)
        except Exception:
            fatal.append(points)
    return counting.points, fatal


@pytest.mark.parametrize("dying", [Dying, LosingNames, LosingData])
def test_f1_a_crash_at_any_call_leaves_a_rerun_the_same_bytes(tmp_path, files, dying):
    points, fatal = _fatal(cell, tmp_path, files, dying)
    assert points > 50 and fatal == []


def test_f1_crashes_in_a_row(tmp_path, files):
    draw = random.Random(0)
    deaths = [tuple(draw.randint(1, 40) for _ in range(3)) for _ in range(25)]
    assert _fatal(cell, tmp_path, files, deaths=deaths)[1] == []


def test_f1_a_process_that_really_dies(tmp_path, files):
    cell(tmp_path / "whole")
    for point in range(2, 60, 7):
        folder = tmp_path / str(point)
        child = os.fork()
        if not child:
            _die(cell, folder, files, Dying(point))
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        cell(folder)
        assert results(folder) == results(tmp_path / "whole") and not leftovers(folder)


def test_f1_control_writing_in_place_fails(tmp_path, files):
    points, fatal = _fatal(naive_cell, tmp_path, files)
    assert points == 12 and len(fatal) >= 4


# --- F2: the disk is full ---------------------------------------------------------------------------------------------


class Full(atomic.Files):
    """A disk with room for ``room`` more bytes; the write that does not fit is cut short first, as on a real one."""

    def __init__(self, room):
        self.room = room

    def write(self, descriptor, data):
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = super().write(descriptor, data[: self.room])
        self.room -= written
        return written


def _good(folder):
    """Steps of the checkpoints that are whole."""
    return [path.name[5:15] for path in sorted((folder / "checkpoints").glob("*.ckpt.json"))]


def _fails_cleanly(folder, size=16):
    """Run a cell that may meet a full disk; whether it did, having said so in one line and kept what it had."""
    try:
        cell(folder, size)
    except RunFailed as failed:
        line = str(failed)
        assert "\n" not in line and len(line) <= 160 and "disk full, " in line
        assert " bytes needed and " in line and any(name in line for name in (*RESULTS, ".ckpt"))
        found = Checkpoints(folder / "checkpoints", ID).load_latest()
        assert (f"{found.step:010d}" if found else None) == (_good(folder) or [None])[-1]
        assert not leftovers(folder)
        return True
    return False


def test_f2_a_full_disk_at_every_size(tmp_path, files):
    cell(tmp_path / "whole")
    failures = 0
    for room in range(0, 8000, 400):
        folder = tmp_path / str(room)
        with files(Full(room)):
            failures += _fails_cleanly(folder)
        cell(folder)
        assert results(folder) == results(tmp_path / "whole")
    assert 10 <= failures < 20


def test_f2_control_writing_in_place_loses_the_checkpoint(tmp_path, files):
    lost = 0
    for room in range(0, 8000, 400):
        with files(Full(room)), contextlib.suppress(OSError):
            naive_cell(tmp_path / str(room))
        last = tmp_path / str(room) / "last.ckpt"
        try:
            torch.load(last, weights_only=True)
        except (RuntimeError, EOFError, OSError):
            lost += 1
    assert lost > 3


@pytest.fixture
def tmpfs(tmp_path):
    """``tmpfs(size)`` mounts (or resizes) a small file system; skipped where this user may not mount."""
    mounted = tmp_path / "disk"
    mounted.mkdir()

    def mount(options):
        again = "remount," if mounted.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}{options}", "none", str(mounted)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this user may not mount a tmpfs")
        return mounted

    yield mount
    if mounted.is_mount():
        subprocess.run(["umount", str(mounted)], check=True)


def test_f2_a_real_small_disk(tmp_path, tmpfs):
    size = 16_384  # 64 KiB of weights
    cell(tmp_path / "whole", size)
    failures = 0
    for room in range(16, 416, 20):
        folder = tmpfs(f"size={room}k") / "run"
        failures += _fails_cleanly(folder, size)
        tmpfs("size=4m")
        cell(folder, size)
        assert results(folder) == results(tmp_path / "whole")
        subprocess.run(["umount", str(folder.parent)], check=True)
    assert 5 <= failures < 20


def test_f2_free_space_is_counted_before_training(tmpfs):
    store = Checkpoints(tmpfs("size=1m") / "run" / "checkpoints", ID)
    store.need_space(300_000)
    with pytest.raises(ConfigError, match=r"1,048,576 bytes free, 1,200,000 needed"):
        store.need_space(400_000)


# --- F3: damaged and unreadable files ---------------------------------------------------------------------------------


def _flip(path, draw):
    data = bytearray(path.read_bytes())
    bit = draw.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def _cut(path, draw):
    os.truncate(path, draw.randrange(path.stat().st_size))


@pytest.mark.parametrize("flips", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_f3_no_damaged_file_is_believed(tmp_path, caplog, flips):
    draw = random.Random(0)
    cell(tmp_path)
    store = Checkpoints(tmp_path / "checkpoints", ID)
    newest = store.load_latest().path
    whole = {path: path.read_bytes() for path in [newest, newest.with_name(newest.name + ".json")]}
    for count in range(flips + 100):
        path = draw.choice(list(whole))
        (_flip if count < flips else _cut)(path, draw)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert store.load_latest().step == STEPS - 2
        assert len(caplog.messages) == 1 and "\n" not in caplog.messages[0]
        path.write_bytes(whole[path])
    caplog.clear()
    assert store.load_latest().step == STEPS
    for count in range(flips + 100):
        path = tmp_path / draw.choice(RESULTS)
        before = path.read_bytes()
        (_flip if count < flips else _cut)(path, draw)
        with pytest.raises(ConfigError) as refused:
            examine(tmp_path)
        assert "\n" not in str(refused.value) and len(str(refused.value)) <= 160
        assert (record.finished(tmp_path, ID) is not None) is (path.name != "record.json")
        path.write_bytes(before)
    examine(tmp_path)


def test_f3_control_without_a_hash_damage_is_believed(tmp_path):
    draw = random.Random(0)
    path, accepted = tmp_path / "last.ckpt", 0
    torch.save({"weights": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    for _ in range(50):
        _flip(path, draw)
        with contextlib.suppress(Exception):
            torch.load(path, weights_only=True)
            accepted += 1
        path.write_bytes(whole)
    assert accepted > 25


@pytest.fixture
def unprivileged():
    """A folder for everybody and a switch that gives up root's right to read everything."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        user = os.geteuid()
        yield Path(folder), lambda: os.seteuid(65_534) if user == 0 else None
        os.seteuid(user)


def test_f3_no_permission(unprivileged, caplog):
    folder, give_up = unprivileged
    cell(folder)
    store = Checkpoints(folder / "checkpoints", ID)
    newest = store.load_latest().path
    newest.chmod(0)
    (folder / "record.json").chmod(0)
    for path in (folder, folder / "checkpoints"):
        path.chmod(0o555)
    give_up()
    with caplog.at_level(logging.WARNING):
        assert store.load_latest().step == STEPS - 2
    assert len(caplog.messages) == 1 and "cannot be read (Permission denied)" in caplog.messages[0]
    assert record.finished(folder, ID) is None
    with pytest.raises(ConfigError, match="cannot be read"):
        record.read(folder)
    for write in (lambda: store.save({}, 9), lambda: record.write(folder, finished())):
        with pytest.raises(RunFailed, match="no permission to write"):
            write()


def test_f3_read_only_mount(tmpfs):
    folder = tmpfs("size=1m") / "run"
    cell(folder)
    tmpfs("size=1m,ro")
    cell(folder)  # finished: nothing to write
    store = Checkpoints(folder / "checkpoints", ID)
    assert store.load_latest().step == STEPS and store.sweep() == 0
    with pytest.raises(RunFailed, match="read-only file system"):
        store.save({}, 9)
    with pytest.raises(RunFailed, match="read-only file system"):
        record.write(folder, finished())


# --- S2: several writers on one store ---------------------------------------------------------------------------------

WRITERS, CELLS = 8, 20


def _cells():
    return [f"{number:012x}" for number in range(CELLS)]


def _all_at_once(target, *arguments):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=target, args=(number, *arguments)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    return writers


def _write_every_cell(number, store):
    for id in random.Random(number).sample(_cells(), CELLS):
        settled = record.settle(store / id, finished(id=id, metrics={"x": int(id, 16)}, seconds=float(number)))
        record.write(store / "hot", finished(seconds=float(number), note="x" * 20_000))
        assert settled.agrees


def test_s2_eight_writers_on_one_store(tmp_path):
    record.write(tmp_path / "hot", finished())
    writers = _all_at_once(_write_every_cell, tmp_path)
    reads = 0
    while any(writer.is_alive() for writer in writers):
        record.read(tmp_path / "hot", ID)  # raises for a record that is half there
        reads += 1
    assert reads > 10 and [writer.exitcode for writer in writers] == [0] * WRITERS
    assert [record.read(tmp_path / id, id)["metrics"]["x"] for id in _cells()] == list(range(CELLS))
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "record.json"] == []


def _write_another_result(number, store):
    record.settle(store, finished(metrics={"x": number}))


def test_s2_results_that_differ_are_all_kept(tmp_path):
    for writer in _all_at_once(_write_another_result, tmp_path):
        writer.join()
    kept = [json.loads(path.read_bytes())["metrics"]["x"] for path in tmp_path.glob("record*.json")]
    assert sorted(kept) == list(range(WRITERS))


def _checkpoint(number, store):
    mine = Checkpoints(store, ID)
    for step in range(1, 6):
        mine.save({"weights": torch.full((1000,), float(step))}, step)
        assert mine.load_latest().state["weights"][0] >= step


def test_s2_eight_writers_of_one_cells_checkpoints(tmp_path):
    writers = _all_at_once(_checkpoint, tmp_path)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    assert Checkpoints(tmp_path, ID).load_latest().step == 5


def _read_change_write(number, path):
    for id in random.Random(number).sample(_cells(), CELLS):
        with contextlib.suppress(ValueError):  # another writer is at it
            table = json.loads(path.read_text())
            time.sleep(0.001)
            path.write_text(json.dumps(table | {f"{id}-{number}": number}))


def test_s2_control_read_change_write_loses_records(tmp_path):
    """Losing is likely, not certain: a few tries, and the control must have lost in one of them."""

    def kept(attempt: int) -> int:
        path = tmp_path / f"results-{attempt}.json"
        path.write_text("{}")
        for writer in _all_at_once(_read_change_write, path):
            writer.join()
        try:
            return len(json.loads(path.read_text()))
        except ValueError:
            return 0

    assert any(kept(attempt) < WRITERS * CELLS for attempt in range(5))
