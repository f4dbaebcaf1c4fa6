"""A network bound to the native kernels once, and then called once for each token."""

from __future__ import annotations

from ctypes import byref, c_void_p

import numpy as np

from sparselab.latency.kernels.decoding.native import Layer, Matrix, Whole, halved, library, matrix
from sparselab.latency.kernels.decoding.packing import PACK, Packed, in_large_pages, padded
from sparselab.latency.kernels.decoding.skips import Skips
from sparselab.latency.networks.network import SITES, Linear, Network

ACTS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3}


class Decoder:
    """A network and its cache of keys and values, one token at a time.

    active: (layers, sites) int64, how many entries of each site were read, summed over tokens. last: (layers, sites, widest)
    float32, what the sites were at the last token, where ``records`` was asked for. weight_bytes: of all of the blocks'
    matrices, as they are kept.

    Args:
        network: taken apart
        skips: thresholds of inputs
        half: weights in bfloat16 (sums stay float32)
        coded: weights as bits and values instead of dense ones
        threads: 1 or more
        isa: ``auto``, ``avx512`` or ``avx2``
        longest: positions that the cache has room for
        records: whether inputs are recorded
    """

    def __init__(
        self, network: Network, skips: Skips, half: bool = False, coded: bool = False, threads: int = 1, isa: str = "auto",
        longest: int | None = None, records: bool = False,
    ):  # fmt: skip
        self.network, self.skips, self.half, self.coded = network, skips, half, coded
        self.library = library(isa)
        self.longest = longest or network.longest
        known = network.longest if network.positions is None else min(network.longest, len(network.positions))
        if self.longest > known:
            raise ValueError(f"the network was taken apart for {known} positions, and {self.longest} are asked for")
        self._kept: list[np.ndarray] = []
        self.packed: list[dict[str, Packed]] = []
        layers = (Layer * len(network.blocks))(*(self._layer(number) for number in range(len(network.blocks))))
        self._layers = layers
        head, whole = self._matrix(network.head, "dots"), network.embedding
        wide = np.zeros((len(whole), padded(network.width)), np.float32)
        wide[:, : network.width] = whole
        self.active = np.zeros((len(network.blocks), len(SITES)), np.int64)
        turned = network.cosine.shape[1]
        self.whole = Whole(
            network.width, network.heads, network.groups, network.dim, network.inner, len(whole), len(network.blocks),
            self.longest, 2 * turned, int(network.layer_norm), ACTS[network.act], int(network.parallel), int(half), threads,
            0, network.eps, network.scale, network.cap, network.last_cap, network.embedded,
            self._keep(in_large_pages(halved(wide, half))), self._keep(network.positions), self._keep(network.cosine),
            self._keep(network.sine), self._keep(network.last.gain), self._keep(network.last.shift), head, layers,
        )  # fmt: skip
        widest = self.library.widest_of(byref(self.whole))
        self.whole.scratch = self._keep(
            in_large_pages(np.zeros(self.library.scratch_floats(byref(self.whole)), np.float32))
        )
        self.whole.active = self.active.ctypes.data
        self.last = np.zeros((len(network.blocks), len(SITES), widest), np.float32) if records else None
        if self.last is not None:
            self.whole.record = self.last.ctypes.data
        self.logits = in_large_pages(np.zeros(padded(len(network.head.weight)), np.float32))
        self._step, self._at = self.library.decode_token, byref(self.whole)

    @property
    def weight_bytes(self) -> int:
        return sum(one.weight_bytes for packed in self.packed for one in packed.values())

    def step(self, token: int, position: int) -> np.ndarray:
        """Read a token at a position, after all before it; logits (vocabulary,), overwritten by the next call."""
        if not (0 <= token < len(self.network.embedding) and 0 <= position < self.longest):
            raise IndexError(f"token {token} at position {position}: there are {len(self.network.embedding)} tokens and"
                             f" {self.longest} positions")  # fmt: skip
        self._step(self._at, token, position, self.logits.ctypes.data)
        return self.logits[: len(self.network.head.weight)]

    def replay(self) -> None:
        """Compute the products of all blocks alone, on the inputs that were recorded last."""
        self.library.replay(self._at)

    def replaying(self, last: np.ndarray) -> None:
        """Take ``last`` (layers, sites, widest) float32 as recorded inputs of :meth:`replay`, and record no more."""
        self.whole.record = self._keep(last)

    def _keep(self, array: np.ndarray | None) -> int | None:
        if array is None:
            return None
        kept = np.ascontiguousarray(array)
        self._kept.append(kept)
        return kept.ctypes.data

    def _matrix(self, one: Linear, form: str) -> Matrix:
        packed = PACK[form](one.weight, self.half)
        bias = None
        if one.bias is not None:
            bias = np.zeros(padded(packed.outputs), np.float32)
            bias[: packed.outputs] = one.bias
            self._kept.append(bias)
        self._kept += [a for a in (packed.values, packed.bits, packed.starts) if a is not None]
        self._newest = packed
        return matrix(packed, bias)

    def _layer(self, number: int) -> Layer:
        block, made, packed = self.network.blocks[number], {}, {}
        for name, one in block.matrices().items():
            made[name] = self._matrix(one, "coded" if self.coded else self.skips.form(number, name))
            packed[name] = self._newest
        self.packed.append(packed)
        made.setdefault("gate", Matrix())
        n = self.network
        cache = [
            self._keep(in_large_pages(np.zeros((n.groups, self.longest, padded(n.dim)), np.float32))) for _ in range(2)
        ]
        pair = c_void_p * 2
        gates = None if self.skips.gates is None else self._keep(self.skips.gates[number])
        return Layer(
            **made,
            norm=pair(*(self._keep(one.gain) for one in block.norms)),
            shift=pair(*(self._keep(one.shift) for one in block.norms)),
            after=pair(*(self._keep(one) for one in block.after)),
            q_norm=self._keep(block.q_norm), k_norm=self._keep(block.k_norm), gates=gates, keys=cache[0], kept=cache[1],
            limit=(*map(float, self.skips.limits[number]),), window=block.window, rotated=int(n.cosine.shape[1] > 0),
        )  # fmt: skip
