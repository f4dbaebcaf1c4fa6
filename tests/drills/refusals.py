"""What the drills on bad input share: a folder with bad files, and one other process that is asked many times."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

ASK = r"""
import contextlib, io, json, os, sys, time, traceback

sys.path.insert(0, sys.argv[1])
from sparselab.cli.application import main as run
from sparselab.cli.main import main as console

answers = []
for command, arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    start = time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run(arguments) if command == "run" else console([command, *arguments])
        except BaseException:
            code = traceback.format_exc()
    seconds = time.perf_counter() - start
    answers.append({"code": code, "lines": err.getvalue().splitlines(), "out": out.getvalue(), "seconds": seconds})
heavy = sorted({"torch", "torchvision", "timm", "transformers", "pytorch_lightning", "datasets"} & set(sys.modules))
print(json.dumps({"answers": answers, "heavy": heavy, "left": sorted(os.listdir("."))}))
"""


def environment(**more):
    """Without local copies of datasets and without the hub; one thread."""
    plain = {name: value for name, value in os.environ.items() if name != "SPARSELAB_DATA"}
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    return plain | quiet | more


def ask(requests, folder):
    """Answers to [(command, arguments)], given in ``folder`` by one process.

    {answers: [{code, lines of standard error, out, seconds}], heavy: slow modules imported, left: files in the folder}
    """
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(ROOT)],
        input=json.dumps(requests), capture_output=True, text=True, cwd=folder, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def safetensors(path, tensors, data):
    """A safetensors file of any header and any bytes."""
    header = json.dumps(tensors).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def furnish(folder):
    """Bad files, and two good empty things, in ``folder``."""
    two = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    safetensors(folder / "other.safetensors", {"layers.0.weight": two}, bytes(8))
    safetensors(folder / "cut.safetensors", {"layers.0.weight": two}, bytes(4))
    (folder / "text.safetensors").write_text("hello")
    (folder / "empty.safetensors").touch()
    (folder / "pickle.safetensors").write_bytes(b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    (folder / "weights.pt").write_bytes(b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    (folder / "file").write_text("a file")
    (folder / "hollow").mkdir()
    (folder / "loop").symlink_to("loop")
    for name in ("data", "halved"):
        (folder / name / "cifar10").mkdir(parents=True)
    (folder / "data" / "cifar10" / "train.parquet").write_bytes(b"PAR1 and no more")
    (folder / "data" / "cifar10" / "test.parquet").touch()
    (folder / "halved" / "cifar10" / "test.parquet").write_bytes(b"PAR1")
