"""Kernels in turns on one network: whole, and its 1x1 convolutions alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from sparselab.core.seeds import derive_seed
from sparselab.core.sparsity import Sparsity
from sparselab.latency.kernels.chain import pointwise
from sparselab.latency.kernels.kernel import Kernel
from sparselab.latency.workloads.weights import Weighted, draw
from sparselab.latency.workloads.workload import Step
from sparselab.running.signals import StopFlag
from sparselab.weights.patterns.pattern import Pattern

if TYPE_CHECKING:
    import numpy as np

WARM = 3  # rounds that do not count
OWN = "own"


def layers_of(steps: list[Step], sparsity: Sparsity, block_from: int, seed: int) -> list[Weighted]:
    """Random weights; those of pointwise layers pruned by magnitude, before layer ``block_from`` one by one."""
    single = Sparsity.parse(sparsity.sparsity) if 0 < sparsity.density < 1 else sparsity

    def mask(number: int, weight: np.ndarray) -> np.ndarray:
        wanted = sparsity if number >= block_from else single
        if not wanted.prunes:
            return abs(weight) >= 0
        return Pattern.of(wanted).mask(torch.from_numpy(weight).abs()).numpy()

    return draw(steps, derive_seed(seed, "weights"), mask)


def compare(
    kernel: Kernel, others: Mapping[str, Kernel], layers: list[Weighted], rounds: int, seed: int, stop: StopFlag
) -> dict[str, float]:
    """Milliseconds of each kernel and ratios to the first; ``test.speedup`` is against the fastest dense one."""
    kernels = {OWN: kernel, **others}
    first = layers[0].step
    image = torch.randn(
        1, first.inputs, *first.size, generator=torch.Generator().manual_seed(derive_seed(seed, "image"))
    )
    networks = {name: one.network(layers) for name, one in kernels.items()}
    expected, given = networks[next(iter(others))](image).flatten().clone(), networks[OWN](image).flatten()
    error = float((given - expected).abs().max() / expected.abs().max())
    whole = _turns({name: _call(run, image) for name, run in networks.items()}, rounds, stop)
    alone = dict.fromkeys(kernels, 0.0)
    for one in (one for one in layers if one.step.kind == "pointwise"):
        x = torch.rand(one.step.inputs, one.step.pixels)
        calls = {name: _call(k.layer(pointwise(one)), x) for name, k in kernels.items()}
        for name, times in _turns(calls, rounds, stop).items():
            alone[name] += min(times)
    dense = [name for name, one in others.items() if not one.sparse]
    best = {name: min(times) for name, times in whole.items()}
    metrics = {
        "test.ms": best[OWN],
        "test.ms_median": median(whole[OWN]),
        "test.speedup": min(best[name] for name in dense) / best[OWN],
        "test.pointwise_ms": alone[OWN],
        "test.pointwise_speedup": min(alone[name] for name in dense) / alone[OWN],
        "test.error": error,
    }
    for name in others:
        metrics[f"test.{name}_ms"] = best[name]
        metrics[f"test.speedup_{name}"] = best[name] / best[OWN]
        metrics[f"test.pointwise_speedup_{name}"] = alone[name] / alone[OWN]
    return metrics


def _call(run: Callable[[Any], Any], x: torch.Tensor) -> Callable[[], Any]:
    return lambda: run(x)


def _turns(calls: Mapping[str, Callable[[], Any]], rounds: int, stop: StopFlag) -> dict[str, list[float]]:
    """Milliseconds per round; each round runs every call once."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(WARM + rounds):
        stop.check("between two rounds")
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken = 1e3 * (time.perf_counter() - began)
            if number >= WARM:
                times[name].append(taken)
    return times
