"""How much the gradients of the weights that are, or could be, sparse spread."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Spread:
    """Variance of |gradient| over all elements of ``params``, averaged over the updates of a run's second half.

    The gradients are those that the optimiser is given: whole, unscaled, with all that a method makes of them, before
    clipping. An update that the loss scaler skips does not count.
    """

    def __init__(self, params: list[nn.Parameter], total: int):
        self.params = params
        self.total = total
        self.elements = sum(p.numel() for p in params)
        self.latest: Tensor | None = None
        self.sum: Tensor | None = None
        self.count = 0

    @torch.no_grad()
    def look(self, step: int) -> None:
        """At the gradients of update number ``step`` (from 1), which may yet be skipped."""
        self.latest = None
        grads = [p.grad for p in self.params if p.grad is not None]
        if 2 * step <= self.total or not grads:
            return
        mean = torch.stack(torch._foreach_norm(grads, 1)).double().sum() / self.elements
        squares = torch.stack(torch._foreach_norm(grads, 2)).double().square().sum() / self.elements
        self.latest = squares - mean.square()

    def keep(self) -> None:
        """The update was made."""
        if self.latest is not None:
            self.sum = self.latest if self.sum is None else self.sum.to(self.latest.device) + self.latest
            self.count += 1
            self.latest = None

    def metrics(self) -> dict[str, float]:
        return {} if self.sum is None else {"train.grad_var": float(self.sum) / self.count}

    def state(self) -> dict[str, Any]:
        return {"sum": self.sum, "count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        self.sum, self.count = state["sum"], state["count"]
