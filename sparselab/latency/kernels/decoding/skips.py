"""Which entries of which inputs are skipped, and the way each matrix is kept for it [no torch]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparselab.latency.networks.network import READ_BY, SITES, Network

INPUTS = SITES[:4]


@dataclass
class Skips:
    """Thresholds.

    limits: (layers, 4) float32 of :data:`INPUTS`; entries whose absolute value is not larger are skipped, below 0 none is.
    gates: (layers, inner) float32 of the activated gate, or None; rows of ``up`` whose gate is not larger are skipped, and
    so are the inputs of ``down``. dense: matrices that read a site with skips and stay dense.
    """

    limits: np.ndarray
    gates: np.ndarray | None = None
    dense: tuple[str, ...] = ()

    @classmethod
    def none(cls, network: Network) -> Skips:
        """Nothing is skipped."""
        return cls(np.full((len(network.blocks), 4), -1.0, np.float32))

    def form(self, layer: int, name: str) -> str:
        """``columns`` where matrix ``name`` of a layer skips inputs, else ``dots``."""
        if name in self.dense:
            return "dots"
        if self.gates is not None:
            if name in ("gate", "up"):
                return "dots"
            if name == "down":
                return "columns"
        place = next(number for number, site in enumerate(INPUTS) if name in READ_BY[site])
        return "columns" if self.limits[layer, place] >= 0 else "dots"
