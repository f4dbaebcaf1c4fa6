"""Drill H1: files from strangers run nothing, take no memory and are answered with one line.

The files are written here and opened in one other process, in which an audit hook reports every command, process,
socket and opening for writing. Checkpoints come with a fitting manifest: a hash proves that a file is whole, no more.
"""

from __future__ import annotations

import collections
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zipfile

import pytest
import torch

from sparselab.storage import atomic
from sparselab.storage.ids import digest

torch.set_num_threads(1)

CELL = "0123456789ab"
WATCH = r"""
import contextlib, io, json, os, sys
from pathlib import Path

import torch
from sparselab.cli.inspect import inspect
from sparselab.core.errors import ConfigError
from sparselab.storage import record, tensors
from sparselab.storage.checkpoints import Checkpoints

WATCHED = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.remove", "os.rename",
           "subprocess.Popen", "socket.", "ctypes.dlopen", "webbrowser.open")
events = []
armed = False


def hook(event, arguments):
    if not armed:
        return
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        writes = any(c in (mode or "r") for c in "wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes:
            events.append(f"open {arguments[0]} to write")
    elif event.startswith(WATCHED):
        events.append(f"{event} {arguments!r}"[:100])


def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmPeak:")[1].split()[0]) * 1024


def raised(call, *arguments):
    try:
        call(*arguments)
    except ConfigError as refused:
        return [str(issue) for issue in refused.issues]
    except BaseException as error:
        return [f"{type(error).__name__}\n{error}"]
    return []


def printed(path):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = inspect(str(path), True)
    return err.getvalue().splitlines() if code == 2 else [f"exit {code}"]


READERS = {
    ".safetensors": [lambda path: raised(tensors.load, path), printed],
    ".record": [lambda path: raised(record.read, path), printed],
    ".checkpoints": [lambda path: raised(Checkpoints(path, "0123456789ab").load_latest)],
    ".control": [lambda path: raised(lambda: torch.load(path, weights_only=bool(0)))],
}
root = Path(sys.argv[1])
for path in sorted(root.glob("good.*")):  # what is imported late is imported now
    for reader in READERS[path.suffix]:
        assert reader(path) in ([], ["exit 0"]), reader(path)
sys.addaudithook(hook)
answers = {}
for path in sorted(set(root.iterdir()) - set(root.glob("good.*"))):
    before, events = peak(), []
    armed = True
    lines = [reader(path) for reader in READERS[path.suffix]]
    armed = False
    answers[path.name] = {"lines": lines, "events": events, "bytes": peak() - before}
print(json.dumps(answers))
"""

# --- pickles by hand: the writers of this project refuse to make them ------------------------------------------------

STOP = b"."


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def call(function, *arguments):
    """The pickle program ``function(*arguments)``."""
    return b"c" + function.replace(" ", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


def state(value, protocol=2):
    """The pickle of ``{"x": value}``."""
    return b"\x80" + bytes([protocol]) + b"}" + text("x") + value + b"s" + STOP


def stacked(module, name, *arguments):
    """Like :func:`call`, in the words of protocol 4."""
    return text(module) + text(name) + b"\x93(" + b"".join(arguments) + b"tR"


def storage(count, key="0"):
    return b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(count, *shape, strides=None):
    sizes = b"(" + b"".join(map(number, shape)) + b"t"
    steps = b"(" + b"".join(map(number, strides or [1] * len(shape))) + b"t"
    empty = call("collections OrderedDict")
    return call("torch._utils _rebuild_tensor_v2", storage(count), number(0), sizes, steps, b"\x89", empty)


def archive(program, *more, compression=zipfile.ZIP_STORED):
    """What torch.save writes, with ``program`` for its pickle and ``more`` members (name, data)."""
    buffer = io.BytesIO()
    members = [("archive/data.pkl", program), ("archive/version", b"3\n"), ("archive/byteorder", b"little")]
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in [*members, *more]:
            file.writestr(name, data)
    return buffer.getvalue()


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("../../x"), io.BytesIO())
    return buffer.getvalue()


def checkpoints(canary):
    shell = text(f"touch {canary}")
    spawn = text(f"__import__('os').system('touch {canary}')")
    data = ("archive/data/0", bytes(16))
    bomb = ("archive/data/0", bytes(200 * 2**20))
    return {
        "reduce": b"\x80\x02" + call("os system", shell) + STOP,
        "reduce in an archive": archive(state(call("os system", shell))),
        "posix": archive(state(call("posix system", shell))),
        "eval": archive(state(call("builtins eval", spawn))),
        "subprocess": archive(state(call("subprocess Popen", shell))),
        "open for writing": archive(state(call("builtins open", text(str(canary)), text("w")))),
        "socket": archive(state(call("socket create_connection", b"(" + text("127.0.0.1") + number(9) + b"t"))),
        "getattr": archive(state(call("builtins getattr", call("builtins __import__", text("os")), text("system")))),
        "protocol 4": archive(state(stacked("os", "system", shell), 4)),
        "protocol 0": archive(b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."),
        "inst": archive(b"(S'touch " + str(canary).encode() + b"'\nios\nsystem\n."),
        "torch.load inside": archive(state(call("torch load", shell))),
        "torch.hub": archive(state(call("torch.hub load", text("a/b"), text("c")))),
        "whole module": saved(torch.nn.Linear(2, 2)),
        "counter": saved({"x": collections.Counter([1, 2])}),
        "set": saved({"x": {1, 2}}),
        "list": saved([1, 2]),
        "sparse tensor": saved({"x": torch.eye(3).to_sparse()}),
        "quantised": saved({"x": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}),
        "expanded tensor": saved({"x": torch.zeros(1).expand(10**6, 10**6)}),
        "expanded in a list": saved({"x": [{"y": (torch.zeros(1).expand(10**6, 10**6),)}]}),
        "part of a storage": saved({"x": torch.zeros(100)[:2]}),
        "storage larger than its bytes": archive(state(tensor(10**12, 10**12)), data),
        "shape larger than the storage": archive(state(tensor(4, 10**6)), data),
        "overlapping strides": archive(state(tensor(4, 10**6, 10**6, strides=[0, 0])), data),
        "negative shape": archive(state(tensor(4, -4)), data),
        "missing storage": archive(state(tensor(4, 4))),
        "bytearray": archive(state(call("builtins bytearray", number(10**11)))),
        "storage of any size": archive(state(call("torch.storage UntypedStorage", number(10**12)))),
        "typed storage of any size": archive(state(call("torch FloatStorage", number(10**12)))),
        "persistent id": archive(state(text("http://127.0.0.1/") + b"Q")),
        "compressed": archive(state(tensor(50 * 2**20, 50 * 2**20)), bomb, compression=zipfile.ZIP_DEFLATED),
        "archive in an archive": archive(archive(state(call("os system", shell)))),
        "two programs": archive(state(text("kind")), ("archive/data.pkl", state(call("os system", shell)))),
        "two archives": archive(state(text("kind")), ("other/data.pkl", state(call("os system", shell)))),
        "climbing member": archive(state(text("kind")), ("../../x", b"")),
        "torchscript": archive(
            state(text("kind")), ("archive/code/__torch__.py", b"import os"), ("constants.pkl", b"")
        ),
        "deep": archive(state(b"]" * 200_000 + b"a" * 199_999)),
        "contains itself": archive(state(b"]q\x00h\x00a")),
        "tensor as key": archive(b"\x80\x02}(" + tensor(4, 4) + number(1) + b"u" + STOP, data),
        "tar": tar(),
        "empty": b"",
        "text": b"import os; os.system('x')",
        "cut short": saved({"x": torch.zeros(100)})[:-50],
        "cut program": archive(state(text("x"))[:-4]),
    }


def safetensors(canary):
    def raw(header, data=b""):
        head = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(head)) + head + data

    def one(name="w", shape=(2,), end=8, dtype="F32", **more):
        return raw({name: {"dtype": dtype, "shape": list(shape), "data_offsets": [0, end]} | more}, bytes(8))

    twice = (
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    )
    return {
        "pickle": b"\x80\x02" + call("os system", text(f"touch {canary}")) + STOP,
        "torch.save": saved({"w": torch.zeros(2)}),
        "200 MB header": struct.pack("<Q", 200 * 2**20) + bytes(100),
        "header of 2^63": struct.pack("<Q", 2**63) + bytes(100),
        "huge shape": one(shape=(10**6, 10**6)),
        "overflowing shape": one(shape=(2**62, 8, 2**62)),
        "negative shape": one(shape=(-2,)),
        "wrong dtype": one(dtype="os.system"),
        "dtype of another width": one(dtype="F64"),
        "beyond the file": one(shape=(2**20,), end=2**22),
        "names twice": raw(twice, bytes(8)),
        "climbing name": one("../../../etc/cron.d/x"),
        "terminal name": one("\x1b]0;owned\x07w"),
        "two-line name": one("w\nTraceback (most recent call last):"),
        "extra key": one(_target_="os.system"),
        "deep header": raw(b'{"w":' + b"[" * 500_000),
        "wide header": raw(b'{"w":[' + b"{}," * 300_000 + b"{}]}"),
        "alias of itself": raw({"__metadata__": {"aliases": '{"a":"a"}'}}),
        "deep alias": raw({"__metadata__": {"aliases": "[" * 100_000}}),
    }


def records():
    good = {"id": CELL, "status": "finished", "config": {}, "metrics": {}, "schema": 2}

    def seal(**parts):
        whole = good | parts
        return (json.dumps(whole | {"seal": digest(whole)}, indent=1, sort_keys=True) + "\n").encode()

    return {
        "deep": b"[" * 500_000,
        "not a number": seal().replace(b"{}", b"NaN", 1),
        "long number": b'{"schema": ' + b"9" * 10**6 + b"}",
        "twice": seal().replace(b"{", b'{"id": "x",', 1),
        "unsealed": json.dumps(good).encode(),
        "pickle": b"\x80\x02" + call("os system", text("true")) + STOP,
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    canary = tmp_path_factory.mktemp("canary") / "executed"
    _write(root / "good.checkpoints", saved({"x": torch.zeros(4)}))
    (root / "good.safetensors").write_bytes(_good_safetensors())
    for name, data in checkpoints(canary).items():
        _write(root / f"{name}.checkpoints", data)
    for name, data in safetensors(canary).items():
        (root / f"{name}.safetensors").write_bytes(data)
    for name, data in records().items():
        (root / f"{name}.record").mkdir()
        (root / f"{name}.record" / "record.json").write_bytes(data)
    (root / "reduce.control").write_bytes(checkpoints(root / "control-ran")["reduce"])
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WATCH, str(root)]
    watched = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert watched.returncode == 0, watched.stderr
    return json.loads(watched.stdout), canary


def _good_safetensors():
    from safetensors.torch import save

    return save({"w": torch.zeros(2, 4)})


def _write(folder, data):
    folder.mkdir()
    sha = hashlib.sha256(data).hexdigest()
    path = folder / f"step-0000000001-{sha[:8]}.ckpt"
    path.write_bytes(data)
    manifest = {"size": len(data), "sha256": sha, "step": 1, "cell": CELL, "schema": 1, "facts": {}}
    atomic.write_json(folder / f"{path.name}.json", manifest | {"seal": digest(manifest)})


def test_h1_nothing_runs_and_every_answer_is_one_line(answers):
    found, canary = answers
    hostile = {name: answer for name, answer in found.items() if not name.endswith(".control")}
    assert len(hostile) >= 70 and not canary.exists()
    wrong = {}
    for name, answer in hostile.items():
        lines = answer["lines"]
        told = all(len(each) == 1 and "\n" not in each[0] and 0 < len(each[0]) <= 160 for each in lines)
        refused = all(" — " in each[0] and "Error" not in each[0] for each in lines) if told else False
        if answer["events"] or answer["bytes"] > 2**30 or not refused:
            wrong[name] = answer
    assert wrong == {}


def test_h1_control_a_plain_load_runs_the_pickle(answers):
    (event,) = answers[0]["reduce.control"]["events"]
    assert event.startswith("os.system")
