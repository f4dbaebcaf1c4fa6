"""Training on two threads, alone and while other jobs keep both cores busy, under the settings of the threads' library."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from sparselab.tools.bench.timing import Row, quartiles

SECTION = "Two threads {}: an update of two transformer blocks (width 384, 32 pictures of 17 tokens)"
NEIGHBOURS = {"alone": 0, "beside two busy jobs": 2}
ROUNDS = 3
UPDATES = 4
BUSY = "while True: pass"
# The environment of each: torch's wheels bring GNU's OpenMP (GOMP), other builds Intel's (KMP).
SETTINGS: dict[str, dict[str, str]] = {
    "nothing set": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=0": {"GOMP_SPINCOUNT": "0"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "KMP_BLOCKTIME=0": {"KMP_BLOCKTIME": "0"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
UPDATE = f"""
import time, torch
block = lambda: torch.nn.TransformerEncoderLayer(384, 6, 1536, 0.0, batch_first=True, norm_first=True)
network = torch.nn.Sequential(block(), block())
batch = torch.randn(32, 17, 384)
times = []
for update in range({UPDATES} + 1):
    start = time.perf_counter()
    network(batch).square().mean().backward()
    times.append(time.perf_counter() - start)
print(*times[1:])
"""


def rows(device: str) -> Iterator[Row]:
    """A row per setting, against nothing set; the settings take turns, so that all meet the same neighbours."""
    for where, jobs in NEIGHBOURS.items():
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(jobs)]
        try:
            times: dict[str, list[float]] = {name: [] for name in SETTINGS}
            for _ in range(ROUNDS):
                for name, setting in SETTINGS.items():
                    times[name].append(median(seconds(setting)))
        finally:
            for process in busy:
                process.kill()
                process.wait()
        base = times["nothing set"]
        for name, found in times.items():
            ratio = quartiles([a / b for a, b in zip(found, base, strict=True)])
            note = f"{quartiles(found)[1]:.2f} s, at worst {max(found):.2f} s"
            yield Row(SECTION.format(where), name, "nothing set", ratio, quartiles(base)[1], ROUNDS, None, note)


def seconds(setting: dict[str, str]) -> list[float]:
    """Wall seconds of each update in a process of its own with that environment."""
    names = {name for other in SETTINGS.values() for name in other}
    plain = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", UPDATE], env={**plain, "OMP_NUM_THREADS": "2", **setting},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [float(word) for word in done.stdout.split()]
