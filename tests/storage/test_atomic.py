from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from sparselab.core.errors import RunFailed
from sparselab.storage import atomic


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_makes_folders_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    atomic.write_bytes(path, b"one")
    assert atomic.write_bytes(path, bytearray(b"two")) == path
    assert path.read_bytes() == b"two" and _names(path.parent) == ["file"]
    atomic.write_bytes(path, b"")
    assert path.read_bytes() == b""


def test_write_json_is_sorted_and_refuses_nan(tmp_path):
    path = atomic.write_json(tmp_path / "x.json", {"b": 1, "a": [1.5, None, "é"]})
    assert path.read_bytes() == b'{\n "a": [\n  1.5,\n  null,\n  "\\u00e9"\n ],\n "b": 1\n}\n'
    assert json.loads(path.read_text()) == {"a": [1.5, None, "é"], "b": 1}
    with pytest.raises(ValueError):
        atomic.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text())["b"] == 1
    assert atomic.write_text(tmp_path / "x.txt", "é").read_bytes() == b"\xc3\xa9"


def test_order_of_system_calls(tmp_path, monkeypatch):
    """Synced before it is renamed, and the folder synced after: the order is what survives a power cut."""
    calls = []

    class Traced(atomic.Files):
        def __getattribute__(self, name):
            method = super().__getattribute__(name)
            return lambda *arguments: (calls.append(name), method(*arguments))[1]

    monkeypatch.setattr(atomic, "FILES", Traced())
    atomic.write_bytes(tmp_path / "f", b"data")
    assert calls == ["create", "write", "sync", "rename", "sync_folder"]
    calls.clear()
    assert atomic.create_bytes(tmp_path / "g", b"data")
    assert calls == ["create", "write", "sync", "link", "unlink", "sync_folder"]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    class Short(atomic.Files):
        def write(self, descriptor, data):
            return super().write(descriptor, data[:3])

    monkeypatch.setattr(atomic, "FILES", Short())
    atomic.write_bytes(tmp_path / "f", bytes(range(100)))
    assert (tmp_path / "f").read_bytes() == bytes(range(100))


def test_create_never_replaces(tmp_path):
    assert atomic.create_bytes(tmp_path / "f", b"first")
    assert not atomic.create_bytes(tmp_path / "f", b"second")
    assert (tmp_path / "f").read_bytes() == b"first" and _names(tmp_path) == ["f"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "disk full"),
        (errno.EDQUOT, "disk quota used up"),
        (errno.EROFS, "read-only file system"),
        (errno.EACCES, "no permission to write"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("call", ["create", "write", "sync", "rename", "sync_folder"])
def test_refusals_of_the_disk_are_one_line_with_the_numbers(tmp_path, monkeypatch, code, said, call):
    class Broken(atomic.Files):
        pass

    def fail(self, *arguments):
        raise OSError(code, os.strerror(code))

    setattr(Broken, call, fail)
    path = atomic.write_bytes(tmp_path / "runs" / "model.safetensors", b"old")
    monkeypatch.setattr(atomic, "FILES", Broken())
    with pytest.raises(RunFailed) as failed:
        atomic.write_bytes(path, b"n" * 12_345)
    line = str(failed.value)
    assert "\n" not in line and len(line) <= 160
    assert line.startswith("…") and "model.safetensors: " in line and said in line
    assert "12,345 bytes needed and " in line and " free — " in line
    assert call == "sync_folder" or path.read_bytes() == b"old"
    assert _names(path.parent) == ["model.safetensors"]


def test_a_file_where_a_folder_should_be_and_the_reverse(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(RunFailed, match="bytes needed"):
            atomic.write_bytes(path, b"1")
    assert _names(tmp_path) == ["file", "folder"]


def test_sweep_takes_what_the_dead_left_and_nothing_else(tmp_path, gone):
    host, alive = atomic._HOST, os.getppid()
    swept = [f".x.{host}-{gone}-0.tmp", f".x.{host}-{os.getpid()}-999999.tmp", ".x.00000000-1-2.tmp"]
    kept = [f".x.{host}-{alive}-0.tmp", ".x.00000000-1-3.tmp", ".x.tmp", "x.json", "record.json"]
    for name in swept + kept:
        (tmp_path / name).write_bytes(b"half")
    old = time.time() - 2 * atomic.DAY
    os.utime(tmp_path / ".x.00000000-1-2.tmp", (old, old))
    assert atomic.sweep(tmp_path) == 3
    assert _names(tmp_path) == sorted(kept)
    assert atomic.sweep(tmp_path) == 0 == atomic.sweep(tmp_path / "missing")


def test_sweep_spares_a_write_in_flight(tmp_path, monkeypatch):
    class Sweeping(atomic.Files):
        def sync(self, descriptor):
            assert atomic.sweep(tmp_path) == 0

    monkeypatch.setattr(atomic, "FILES", Sweeping())
    atomic.write_bytes(tmp_path / "f", b"data")
    assert (tmp_path / "f").read_bytes() == b"data"


def test_a_leftover_of_the_same_process_id_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_counter", iter(range(100)))
    for number in range(3):
        (tmp_path / f".f.{atomic._HOST}-{os.getpid()}-{number}.tmp").write_bytes(b"half")
    atomic.write_bytes(tmp_path / "f", b"data")
    assert (tmp_path / "f").read_bytes() == b"data"
    assert atomic.sweep(tmp_path) == 3


def test_shown_is_printable_and_short():
    assert atomic.shown("a\nb\x1b[31m") == "a?b?[31m"
    assert atomic.shown("x" * 100 + "end", 10) == "…xxxxxxend"


def test_free_bytes_of_a_path_that_does_not_exist_yet(tmp_path):
    assert atomic.free_bytes(tmp_path / "not" / "yet") > 0


def test_imports_no_torch():
    code = "import sys, sparselab.storage.atomic, sparselab.storage.ids, sparselab.storage.record, sparselab.storage.tensors,"
    code += " sparselab.storage.checkpoints, sparselab.storage.export, sparselab.cli.inspect; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
