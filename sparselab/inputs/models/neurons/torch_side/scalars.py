"""Scalars that the neurons of a layer share, fixed or trained. Imports torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = (0.1, 20.0)
TAU = (0.01, 0.99)
SCALE = (0.1, 50.0)


class Tau(nn.Module):
    """A share in (0, 1): fixed where ``form`` is empty, else a function of a trained number.

    ``sigmoid`` starts at ``tau``; ``sigmoid_raw`` at sigma(tau), as in JomaMinoza/UltraLIF ultralif/neurons/lif.py; ``exp`` is
    its ultra.py, whose forward pass reads the number without the clamp that its property ``tau`` has; ``exp_clamped`` has it.
    """

    def __init__(self, tau: float, form: str = ""):
        super().__init__()
        self.form, self.fixed = form, tau
        start = {
            "sigmoid": math.log(tau / (1 - tau)),
            "sigmoid_raw": tau,
            "exp": math.log(tau),
            "exp_clamped": math.log(tau),
        }
        self.raw = nn.Parameter(torch.tensor(start[form])) if form else None

    def forward(self) -> Tensor | float:
        if self.raw is None:
            return self.fixed
        return self.raw.sigmoid() if self.form.startswith("sigmoid") else self.log_of(self.raw).exp()

    def log(self) -> Tensor | float:
        """Its logarithm, without the detour of an exponential."""
        if self.raw is None:
            return math.log(self.fixed)
        return F.logsigmoid(self.raw) if self.form.startswith("sigmoid") else self.log_of(self.raw)

    def log_of(self, raw: Tensor) -> Tensor:
        """The trained number ``raw`` () as a logarithm, held to the clamp where there is one."""
        return raw.clamp(math.log(TAU[0]), math.log(TAU[1])) if self.form == "exp_clamped" else raw


class Positive(nn.Module):
    """A positive number, fixed, or the exponential of a trained one held to ``bounds``, where its gradient is 0."""

    def __init__(self, value: float, learn: bool, bounds: tuple[float, float]):
        super().__init__()
        self.fixed, self.bounds = value, bounds
        self.raw = nn.Parameter(torch.tensor(math.log(value))) if learn else None

    def forward(self) -> Tensor | float:
        return self.fixed if self.raw is None else self.raw.exp().clamp(*self.bounds)


class Eps(Positive):
    """The temperature of a log-sum-exp, from .1 to 20."""

    def __init__(self, eps: float, learn: bool):
        super().__init__(eps, learn, EPS)


class Sharpness(nn.Module):
    """DSpike's k: the softplus of a trained number, held to .5 … 50."""

    def __init__(self, start: float):
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(start))

    def forward(self) -> Tensor:
        return F.softplus(self.raw).clamp(0.5, 50.0)
