"""How many bytes a token reads, from how many inputs were read [no torch]."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparselab.latency.kernels.decoding.skips import INPUTS
from sparselab.latency.networks.network import READ_BY, SITES


def bytes_of_products(decoder: Any, active: np.ndarray | None) -> float:
    """Bytes of the blocks' weights.

    Args:
        decoder: a bound network with its ``skips``
        active: (layers, sites) entries that a token reads on average; None: all

    Returns:
        Bytes a token.
    """
    if active is None or getattr(decoder, "coded", False):
        return float(decoder.weight_bytes)
    size = 2 if decoder.half else 4
    return sum(share * weights * size for share, weights in _shares(decoder, active))


def active_share(decoder: Any, active: np.ndarray) -> float:
    """Share of the blocks' weights that a token reads, zeros that are stored included; active: (layers, sites)."""
    pairs = _shares(decoder, active)
    return sum(share * weights for share, weights in pairs) / sum(weights for _, weights in pairs)


def bytes_per_token(decoder: Any, active: np.ndarray | None, places: float) -> float:
    """The products', the last matrix's and the cache's bytes a token, at ``places`` positions; active: (layers, sites)."""
    n, size = decoder.network, 2 if decoder.half else 4
    cache = 2 * 4 * n.groups * n.dim * places * len(n.blocks)
    return bytes_of_products(decoder, active) + n.head.weight.size * size + cache


def _shares(decoder: Any, active: np.ndarray) -> list[tuple[float, int]]:
    """(share that is read, weights) of every matrix."""
    found = []
    for layer, block in enumerate(decoder.network.blocks):
        for name, one in block.matrices().items():
            site = next(site for site in INPUTS if name in READ_BY[site])
            count, of = active[layer, SITES.index(site)], one.weight.shape[1]
            if decoder.skips.gates is not None and name == "up":
                count, of = active[layer, SITES.index("mlp_mid")], one.weight.shape[0]
            elif decoder.skips.form(layer, name) == "dots":
                count = of
            found.append((float(count) / of, one.weight.size))
    return found
