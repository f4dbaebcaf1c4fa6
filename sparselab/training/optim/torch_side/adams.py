"""AdamS as a torch optimiser: Adam in whose first moment somebody else has a say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Blend = Callable[[Tensor, Tensor], Tensor]
"""(weights before the step, first moment) -> what is used in the first moment's place; both are left as they are."""


class AdamS(torch.optim.Optimizer):
    """Adam (bias-corrected) with decoupled weight decay, and AdamS for parameters that have a blend.

    AdamS (CAST, arXiv 2509.25996, algorithm 1) moves them by:

        mu_t = b1 mu + (1 - b1) g             stored, of the loss's gradient alone
        mu~  = blend(theta, mu_t)             not stored
        v_t  = b2 v + (1 - b2) mu~^2          of what is used, not of the gradient
        theta -= lr (mu~ / (1 - b1^t)) / (sqrt(v_t / (1 - b2^t)) + eps)

    ``blends`` (by parameter) is set by whoever runs the training; it is no part of the state.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self.blends: dict[nn.Parameter, Blend] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Any], group: dict[str, Any]) -> None:
        (b1, b2), lr = group["betas"], group["lr"]
        states = [self._state(p) for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        first, second = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(first, gradients, 1 - b1)
        used, squared = list(first), list(gradients)
        for i, parameter in enumerate(parameters):
            if parameter in self.blends:
                used[i] = squared[i] = self.blends[parameter](parameter.data, first[i])
        torch._foreach_mul_(second, b2)
        torch._foreach_addcmul_(second, squared, squared, 1 - b2)
        size = torch._foreach_sqrt(second)
        torch._foreach_div_(size, [(1 - b2 ** state["updates"]) ** 0.5 for state in states])
        torch._foreach_add_(size, group["eps"])
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_addcdiv_(parameters, used, size, [-lr / (1 - b1 ** state["updates"]) for state in states])

    def _state(self, parameter: nn.Parameter) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            state["updates"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["updates"] += 1
        return state
