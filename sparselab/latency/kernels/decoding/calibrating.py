"""Thresholds from what the dense network's inputs were on calibration text [no torch]."""

from __future__ import annotations

import numpy as np

from sparselab.core.errors import RunFailed
from sparselab.latency.kernels.decoding.skips import INPUTS, Skips
from sparselab.latency.networks.network import SITES, Network


def skips_of(network: Network, found: np.ndarray, sparsity: float, skip: str) -> Skips:
    """Choose thresholds.

    Args:
        network: taken apart
        found: (tokens, layers, sites, widest) float32, recorded
        sparsity: the share of entries to skip, in (0, 1)
        skip: ``inputs`` (TEAL, arXiv 2408.14690: the quantile of all entries of a place), ``gate`` (CHESS, arXiv 2409.01366: of
            |gate| times the channel's root mean square of ``up``) or ``gate_and_attention``

    Returns:
        What is skipped.
    """
    sizes = (network.width, network.heads * network.dim, network.width, network.inner)
    layers = range(len(network.blocks))
    limits = np.full((len(network.blocks), 4), -1.0, np.float32)
    wanted = {"inputs": INPUTS, "gate": (), "gate_and_attention": INPUTS[:2]}[skip]
    for place, site in enumerate(INPUTS):
        if site in wanted:
            for layer in layers:
                limits[layer, place] = smallest(abs(found[:, layer, place, : sizes[place]]), sparsity)
    if skip == "inputs":
        return Skips(limits)
    if network.blocks[0].gate is None:
        raise RunFailed(f"kernel.skip={skip}: this network's MLP has no gate — write kernel.skip=inputs")
    gates = np.zeros((len(network.blocks), network.inner), np.float32)
    for layer in layers:
        gate = abs(found[:, layer, SITES.index("gate"), : network.inner])
        size = np.sqrt((found[:, layer, SITES.index("up"), : network.inner].astype(np.float64) ** 2).mean(0))
        gates[layer] = smallest(gate * size, sparsity) / np.maximum(size, 1e-12)
    limits[:, 3] = 0.0  # what the gate stops is an exact zero
    return Skips(limits, gates, ("k", "v"))


def smallest(values: np.ndarray, share: float) -> float:
    """The value that ``share`` of ``values`` (any shape) do not exceed: the k-th smallest, k = int(n share); -1 for none."""
    flat = values.ravel()
    k = int(flat.size * share + 1e-9)
    return float(np.partition(flat, k - 1)[k - 1]) if k else -1.0
