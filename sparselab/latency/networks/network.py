"""A decoder-only transformer taken apart: what one token meets, layer by layer [no torch]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Act = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass
class Linear:
    """A matrix: weight (outputs, inputs) float32, bias (outputs,) or None."""

    weight: np.ndarray
    bias: np.ndarray | None = None


@dataclass
class Norm:
    """A norm: gain (width,), shift (width,) of a layer norm or None."""

    gain: np.ndarray
    shift: np.ndarray | None = None


@dataclass
class Block:
    """One layer. gate: None where the MLP has none; act is then of ``up``.

    norms: before attention and before the MLP. after: of what each of them gives (Gemma-2), or None. q_norm, k_norm: (dim,)
    gains of every head's RMS norm, or None. window: positions that are seen, 0: all.
    """

    q: Linear
    k: Linear
    v: Linear
    o: Linear
    gate: Linear | None
    up: Linear
    down: Linear
    norms: tuple[Norm, Norm]
    after: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
    q_norm: np.ndarray | None = None
    k_norm: np.ndarray | None = None
    window: int = 0

    def matrices(self) -> dict[str, Linear]:
        """The block's matrices by name."""
        gate = {} if self.gate is None else {"gate": self.gate}
        return {"q": self.q, "k": self.k, "v": self.v, "o": self.o, **gate, "up": self.up, "down": self.down}


@dataclass
class Network:
    """The whole of it.

    embedding: (vocabulary, width). positions: (longest, width) learned ones, or None. cosine, sine: (longest, rotary / 2),
    with no columns where positions turn nothing. heads, groups, dim: of attention (groups of heads share keys and values).
    layer_norm: True where norms subtract the mean. parallel: attention and MLP read the same x. scale: of scores.
    cap and last_cap: soft caps of scores and logits, 0 for none. embedded: factor of embeddings.
    """

    blocks: list[Block]
    embedding: np.ndarray
    last: Norm
    head: Linear
    heads: int
    groups: int
    dim: int
    cosine: np.ndarray
    sine: np.ndarray
    act: Act
    eps: float
    scale: float
    layer_norm: bool = False
    parallel: bool = False
    positions: np.ndarray | None = None
    cap: float = 0.0
    last_cap: float = 0.0
    embedded: float = 1.0

    @property
    def width(self) -> int:
        return self.embedding.shape[1]

    @property
    def inner(self) -> int:
        return self.blocks[0].up.weight.shape[0]

    @property
    def longest(self) -> int:
        return len(self.cosine)

    @property
    def weights(self) -> int:
        """Weights of the blocks' matrices."""
        return sum(one.weight.size for block in self.blocks for one in block.matrices().values())


SITES = ("attention_in", "attention_out", "mlp_in", "mlp_mid", "gate", "up")
"""Places whose entries are counted and recorded; the first four are inputs of matrices."""

READ_BY = {"attention_in": ("q", "k", "v"), "attention_out": ("o",), "mlp_in": ("gate", "up"), "mlp_mid": ("down",)}
"""Which matrices of a block read which site."""
