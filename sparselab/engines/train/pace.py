"""What would be faster on this machine at other numbers, said and never done: precision is part of what a cell is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sparselab.spec.memo import once
from sparselab.spec.outline import Outline
from sparselab.spec.schema import TrainerOptions

NATIVE = frozenset({"avx512_bf16", "amx_bf16"})
ENOUGH = 5  # updates after the first one without which nothing is said of the pace
UPDATE = 4e-3  # seconds of an update beside its products, on a CPU
SHARE = 0.3  # of the pace of one large product, what the products of a network reach
EMULATED = 16  # times slower than float32: bf16 on a processor that only emulates it (measured with vit_s)
ON_GPU = 3e13  # training FLOPs a second


def guessed_seconds(trainer: dict[str, Any], steps: int, work: float) -> float:
    """How long ``work`` training FLOPs in ``steps`` updates may take here, from the pace of one product."""
    if trainer["accelerator"] == "gpu" or (trainer["accelerator"] == "auto" and any(Path("/dev").glob("nvidia[0-9]*"))):
        return steps * UPDATE + work / ON_GPU
    flags = once("processor flags", processor_flags)
    slower = EMULATED if trainer["precision"] != "32" and flags and not flags & NATIVE else 1
    return steps * UPDATE + slower * work / (SHARE * threads(trainer) * once("product pace", product_pace))


def product_pace(size: int = 512, rounds: int = 8) -> float:
    """FLOPs a second of one core in a product of square float32 matrices, the fastest of a few (30 ms).

    By the clock of the processor: other jobs make a run slower, by how much nobody knows beforehand.
    """
    import time

    import numpy as np
    from threadpoolctl import threadpool_limits

    one = np.random.default_rng(0).random((size, size), dtype=np.float32)
    fastest = float("inf")
    with threadpool_limits(1):
        for _ in range(rounds):
            began = time.process_time()
            one @ one
            fastest = min(fastest, time.process_time() - began)
    return 2 * size**3 / fastest


def threads(trainer: dict[str, Any]) -> int:
    """Threads that torch will take, as far as the environment tells."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(trainer["threads"] or (named if named.isdecimal() else 0) or cores)


def precision_notes(trainer: TrainerOptions, outline: Outline | None) -> list[str]:
    """A line where training on this CPU in another precision would be faster, as results/bench has it."""
    if trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and any(Path("/dev").glob("nvidia[0-9]*"))):
        return []
    flags = once("processor flags", processor_flags)
    if trainer.precision == "bf16" and flags and not flags & NATIVE:
        return ["this processor only emulates bf16: trainer.precision=32 would be faster, at other numbers"]
    deep = outline is not None and (outline.fixed_macs or any(layer.kind == "conv" for layer in outline.layers))
    if trainer.precision == "32" and flags & NATIVE and deep:  # of a perceptron it changes nothing
        return ["this processor multiplies bf16: trainer.precision=bf16 would be faster, at other numbers"]
    return []


def processor_flags(file: str = "/proc/cpuinfo") -> frozenset[str]:
    """What the first processor can do, as Linux names it; empty where that is not known."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))
