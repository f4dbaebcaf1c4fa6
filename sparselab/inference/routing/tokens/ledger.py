"""Which share of the tokens went where, and what that saves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from sparselab.inference.routing.tokens.decider import SECOND, Choice

if TYPE_CHECKING:
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.routing.tokens.trunk import Trunk


@dataclass
class Ledger:
    """Sums over windows, for each block: shares of the tokens in either half, and the squares of those that attend."""

    depth: int
    windows: list[int] = field(default_factory=list)
    attention: list[float] = field(default_factory=list)
    mlp: list[float] = field(default_factory=list)
    products: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("windows", "attention", "mlp", "products"):
            setattr(self, name, [0] * self.depth)

    def count(self, block: int, windows: int, choice: Choice | None) -> None:
        """Add a pass over ``windows`` windows through a block."""
        share = torch.ones(1) if choice is None else choice.keep.float().mean(-1)
        parts = () if choice is None else choice.parts
        attends = "block" in parts or "attention" in parts
        self.windows[block] += windows
        self.attention[block] += windows * (float(share.mean()) if attends else 1.0)
        self.products[block] += windows * (float(share.square().mean()) if attends else 1.0)
        self.mlp[block] += windows * (float(share.mean()) if not {"block", SECOND}.isdisjoint(parts) else 1.0)

    def shares(self, of: str) -> list[float]:
        """Means over windows, by block. of: ``attention``, ``mlp`` (share of tokens) or ``products`` (its square)."""
        return [total / max(n, 1) for total, n in zip(getattr(self, of), self.windows, strict=True)]

    def skipped(self) -> list[float]:
        """The share of the tokens that skipped each block, a mean of its halves."""
        return [1 - (a + m) / 2 for a, m in zip(self.shares("attention"), self.shares("mlp"), strict=True)]


@dataclass(frozen=True)
class Saving:
    """Costs of a window. dense: multiply-accumulates of the blocks as they are. routed: with what tokens skip.

    gone: parameters of halves of blocks that no token went through. held: parameters of all blocks' layers.
    """

    dense: float
    routed: float
    gone: int
    held: int


def ratio(share: float, linear: float, products: float) -> float:
    """The multiply-accumulates of a block as a share of dense ones, linear parts r, products of attention r^2.

    Args:
        share: r, of the tokens that go through it
        linear: dense multiply-accumulates of its linear layers
        products: those of scores and of what they weigh
    """
    return (share * linear + share**2 * products) / (linear + products)


def saving(model_spec: ModelSpec, trunk: Trunk, ledger: Ledger) -> Saving:
    """Cost the blocks by the shares of tokens that went through them."""
    attention, mlp, products = (ledger.shares(of) for of in ("attention", "mlp", "products"))
    dense = routed = 0.0
    gone = held = 0
    unmatched = dict(model_spec.fixed_macs)
    for i, path in enumerate(trunk.paths):
        inside = [layer for layer in model_spec.layers if layer.name.startswith(f"{path}.")]
        for layer in inside:
            attends = layer.name.startswith(f"{trunk.attention_paths[i]}.")
            share = attention[i] if attends else mlp[i]
            dense += layer.macs
            routed += share * layer.macs
            held += layer.numel
            gone += 0 if share else layer.numel
        for name in [name for name in unmatched if f"{name}.".startswith(f"{path}.")]:
            macs = unmatched.pop(name)
            dense += macs
            routed += products[i] * macs
    for macs in unmatched.values():  # of networks whose products have names of no block
        dense += macs
        routed += sum(products) / len(products) * macs
    return Saving(dense, routed, gone, held)
