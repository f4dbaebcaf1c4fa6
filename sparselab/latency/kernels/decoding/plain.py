"""The same network by torch's own products: the way without a compiler, and a dense baseline with little Python in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.latency.kernels.decoding.skips import Skips
from sparselab.latency.networks.network import SITES, Block, Linear, Network, Norm

ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}
TRIES = 5


class TorchDecoder:
    """As :class:`~sparselab.latency.kernels.decoding.decoder.Decoder`, with every product by torch.

    Without skips the matrices that read the same input are one, as fast implementations have them; with skips every matrix
    stands input by input, and the rows of the inputs that are read are picked out.
    """

    def __init__(
        self, network: Network, skips: Skips | None = None, half: bool = False, longest: int | None = None,
        records: bool = False,
    ):  # fmt: skip
        self.network, self.longest, self.half = network, longest or network.longest, half
        self.skips = skips or Skips.none(network)
        self.dtype = torch.bfloat16 if half else torch.float32
        self.active = np.zeros((len(network.blocks), len(SITES)), np.int64)
        widest = max(network.width, network.inner, network.heads * network.dim)
        self.last = np.zeros((len(network.blocks), len(SITES), widest), np.float32) if records else None
        self.layers = [self._layer(number, block) for number, block in enumerate(network.blocks)]
        self.embedding = torch.from_numpy(network.embedding).to(self.dtype)
        self.head, self.head_bias = self._dense([network.head])
        self.cosine, self.sine = (torch.cat([torch.from_numpy(t)] * 2, 1) for t in (network.cosine, network.sine))
        self.inputs: list[list[Tensor]] = []
        self.multiply = self._fastest()

    @property
    def weight_bytes(self) -> int:
        return self.network.weights * self.embedding.element_size()

    @torch.inference_mode()
    def step(self, token: int, position: int) -> np.ndarray:
        """Read a token at a position, after all before it; logits (vocabulary,)."""
        n = self.network
        x = self.embedding[token].float() * n.embedded
        if n.positions is not None:
            x = x + torch.from_numpy(n.positions[position])
        for number, layer in enumerate(self.layers):
            block = n.blocks[number]
            h = self._norm(x, block.norms[0])
            q, k, v = self._qkv(number, layer, h)
            read = self._attend(block, layer, q, k, v, position)
            given = self._after(self._one(number, layer, "o", read, 1), block.after[0])
            h = self._norm(x if n.parallel else x + given, block.norms[1])
            x = (
                x
                + given
                + self._after(self._one(number, layer, "down", self._mlp(number, layer, h), 3), block.after[1])
            )
        logits = self._linear(self._norm(x, n.last), self.head, self.head_bias)
        if n.last_cap:
            logits = n.last_cap * torch.tanh(logits / n.last_cap)
        return logits.numpy()

    def replaying(self, last: np.ndarray) -> None:
        """Take ``last`` (layers, sites, widest) float32 as the inputs of :meth:`replay`."""
        n = self.network
        sizes = (n.width, n.heads * n.dim, n.width, n.inner)
        self.inputs = [[torch.from_numpy(row[i, :size].copy()) for i, size in enumerate(sizes)] for row in last]

    @torch.inference_mode()
    def replay(self) -> None:
        """Compute the products of all blocks alone."""
        for number, (layer, inputs) in enumerate(zip(self.layers, self.inputs, strict=True)):
            self._qkv(number, layer, inputs[0])
            self._one(number, layer, "o", inputs[1], 1)
            self._mlp(number, layer, inputs[2])
            self._one(number, layer, "down", inputs[3], 3)

    def _dense(self, matrices: list[Linear]) -> tuple[Tensor, Tensor | None]:
        weight = torch.from_numpy(np.concatenate([one.weight for one in matrices])).to(self.dtype)
        if all(one.bias is None for one in matrices):
            return weight, None
        parts = [np.zeros(len(one.weight), np.float32) if one.bias is None else one.bias for one in matrices]
        return weight, torch.from_numpy(np.concatenate(parts))

    def _layer(self, number: int, block: Block) -> dict[str, Any]:
        n, made = self.network, {}
        together = {"qkv": [block.q, block.k, block.v], "o": [block.o], "down": [block.down]}
        together["in"] = [block.up] if block.gate is None else [block.gate, block.up]
        forms = {name: self.skips.form(number, name) for name in block.matrices()}
        for name, ones in together.items():
            own = list(name) if name == "qkv" else ["gate", "up"][-len(ones) :] if name == "in" else [name]
            if all(forms[one] == "dots" for one in own) and (name != "in" or self.skips.gates is None):
                made[name] = self._dense(ones)
                continue
            for one, linear in zip(own, ones, strict=True):
                weight, bias = self._dense([linear])
                made[one] = (weight if forms[one] == "dots" else weight.T.contiguous(), bias)
        shape = (n.groups, self.longest, n.dim)
        return {**made, "forms": forms, "keys": torch.zeros(shape), "kept": torch.zeros(shape)}

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = self.multiply(weight, x.to(self.dtype)).float()
        return y if bias is None else y + bias

    def _fastest(self) -> Callable[[Tensor, Tensor], Tensor]:
        """``mv`` or ``linear``, whichever is faster on the MLP's first matrix."""
        ways = (torch.mv, lambda weight, x: F.linear(x[None], weight)[0])
        weight = self._dense([self.network.blocks[0].up])[0]
        x, times = torch.zeros(weight.shape[1], dtype=self.dtype), []
        for way in ways:
            began = []
            for _ in range(TRIES):
                start = time.perf_counter()
                way(weight, x)
                began.append(time.perf_counter() - start)
            times.append(min(began))
        return ways[times.index(min(times))]

    def _one(self, number: int, layer: dict[str, Any], name: str, x: Tensor, place: int) -> Tensor:
        """One matrix with an input, which is counted."""
        self._count(number, place, x)
        return self._named(number, layer, name, x, place)

    def _named(self, number: int, layer: dict[str, Any], name: str, x: Tensor, place: int) -> Tensor:
        weight, bias = layer[name]
        if layer["forms"][name] == "dots":
            return self._linear(x, weight, bias)
        limit = float(self.skips.limits[number, place])
        at = (x.abs() > limit).nonzero()[:, 0]
        y = x[at].to(self.dtype) @ weight[at]
        return y.float() if bias is None else y.float() + bias

    def _qkv(self, number: int, layer: dict[str, Any], h: Tensor) -> tuple[Tensor, ...]:
        n = self.network
        self._count(number, 0, h)
        if "qkv" in layer:
            sizes = [n.heads * n.dim, n.groups * n.dim, n.groups * n.dim]
            return self._linear(h, *layer["qkv"]).split(sizes)
        return tuple(self._named(number, layer, name, h, 0) for name in "qkv")

    def _mlp(self, number: int, layer: dict[str, Any], h: Tensor) -> Tensor:
        act = ACTS[self.network.act]
        self._count(number, 2, h)
        if self.network.blocks[number].gate is None:
            return act(self._linear(h, *layer["in"]) if "in" in layer else self._named(number, layer, "up", h, 2))
        if "in" in layer:
            gate, up = self._linear(h, *layer["in"]).chunk(2)
        else:
            gate, up = (self._named(number, layer, name, h, 2) for name in ("gate", "up"))
        gate = act(gate)
        self._note(number, 4, gate)
        self._note(number, 5, up)
        if self.skips.gates is not None:
            gate = gate * (gate.abs() > torch.from_numpy(self.skips.gates[number]))
        return gate * up

    def _count(self, number: int, place: int, x: Tensor) -> None:
        limit = float(self.skips.limits[number, place])
        self.active[number, place] += x.numel() if limit < 0 else int((x.abs() > limit).sum())
        self._note(number, place, x)

    def _note(self, number: int, place: int, x: Tensor) -> None:
        if self.last is not None:
            self.last[number, place, : x.numel()] = x.numpy()

    def _norm(self, x: Tensor, norm: Norm) -> Tensor:
        gain = torch.from_numpy(norm.gain)
        if self.network.layer_norm:
            shift = None if norm.shift is None else torch.from_numpy(norm.shift)
            return F.layer_norm(x, x.shape, gain, shift, self.network.eps)
        return F.rms_norm(x, x.shape, gain, self.network.eps)

    def _after(self, x: Tensor, gain: np.ndarray | None) -> Tensor:
        return x if gain is None else F.rms_norm(x, x.shape, torch.from_numpy(gain), self.network.eps)

    def _attend(self, block: Block, layer: dict[str, Any], q: Tensor, k: Tensor, v: Tensor, position: int) -> Tensor:
        n = self.network
        q, k = q.view(n.heads, n.dim), k.view(n.groups, n.dim)
        if block.q_norm is not None and block.k_norm is not None:
            q = F.rms_norm(q, (n.dim,), torch.from_numpy(block.q_norm), n.eps)
            k = F.rms_norm(k, (n.dim,), torch.from_numpy(block.k_norm), n.eps)
        if self.cosine.shape[1]:
            q, k = self._turn(q, position), self._turn(k, position)
        layer["keys"][:, position], layer["kept"][:, position] = k, v.view(n.groups, n.dim)
        first = max(0, position + 1 - block.window) if block.window else 0
        keys, kept = layer["keys"][:, first : position + 1], layer["kept"][:, first : position + 1]
        scores = q.view(n.groups, -1, n.dim) @ keys.transpose(1, 2) * n.scale
        if n.cap:
            scores = n.cap * torch.tanh(scores / n.cap)
        return (scores.softmax(-1) @ kept).view(-1)

    def _turn(self, x: Tensor, position: int) -> Tensor:
        c, s = self.cosine[position], self.sine[position]
        turned, rest = x[:, : len(c)], x[:, len(c) :]
        half = len(c) // 2
        other = torch.cat([-turned[:, half:], turned[:, :half]], 1)
        return torch.cat([turned * c + other * s, rest], 1)
