"""The pace of training on this machine, and notes on faster precisions, which are never chosen by themselves."""

from __future__ import annotations

import os
from typing import Any

from sparselab.config.schema import TrainerOptions
from sparselab.core.memo import once
from sparselab.core.model_spec import ModelSpec
from sparselab.core.processor import NATIVE, flags, uses_gpu

ENOUGH = 5  # updates after the first one without which nothing is said of the pace
UPDATE = 4e-3  # seconds of an update beside its products, on a CPU
SHARE = 0.5  # of the pace of one large product, what a network reaches: 0.63 to 0.83 on AVX2, less where products are faster
EMULATED = 16  # times slower than float32: bf16 on a processor that only emulates it (measured with vit_s)
ON_GPU = 3e13  # training FLOPs a second


def guessed_seconds(trainer: dict[str, Any], steps: int, work: float) -> float:
    """How long ``work`` training FLOPs in ``steps`` updates may take here, from the pace of one product."""
    if uses_gpu(trainer["accelerator"]):
        return steps * UPDATE + work / ON_GPU
    found = flags()
    slower = EMULATED if trainer["precision"] != "32" and found and not found & NATIVE else 1
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


def precision_notes(trainer: TrainerOptions, model_spec: ModelSpec | None) -> list[str]:
    """A line where training on this CPU in another precision would be faster, as results/bench has it."""
    if uses_gpu(trainer.accelerator):
        return []
    here = flags()
    if trainer.precision == "bf16" and here and not here & NATIVE:
        return ["this processor only emulates bf16: trainer.precision=32 would be faster, at other numbers"]
    deep = model_spec is not None and (
        model_spec.fixed_macs or any(layer.kind == "conv" for layer in model_spec.layers)
    )
    if trainer.precision == "32" and here & NATIVE and deep:  # of a perceptron it changes nothing
        return ["this processor multiplies bf16: trainer.precision=bf16 would be faster, at other numbers"]
    return []
