"""The parts that an optimiser update moves [no torch]."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AlternatingUpdate:
    """Methods that optimise on two levels take turns: each update is one batch and one gradient, and moves a part.

    weights: the tensors that have masks. others: the network's other parameters (biases, norms, dense layers).
    learned: what the method learns beside the network. A part that is not moved has no gradient in that update, so
    neither momentum nor weight decay acts on it.
    """

    weights: bool = True
    others: bool = True
    learned: bool = True


ALL = AlternatingUpdate()
