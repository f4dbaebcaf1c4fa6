"""Sparse auto-encoders. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparselab.inputs.models.shared import Shared, SharedByRanks

if TYPE_CHECKING:
    from sparselab.inputs.models.allocation import Allocation

ALONE = Shared()
MEAN_OF = 100  # training batches over which thresholds are averaged, the last ones weighing most


class Select(nn.Module):
    """Codes of the encoder's output (n, features): the magnitudes that the allocation keeps, and zeros.

    In training it also keeps, as buffers, what a run needs to go on: ``idle``, training batches in a row without firing;
    ``density``, the share of tokens that fire, averaged over ``window`` batches; thresholds for tokens that stand alone.
    """

    idle: Tensor
    density: Tensor
    seen: Tensor
    threshold: Tensor
    averaged: Tensor

    def __init__(self, rule: Allocation, features: int, window: int, by_threshold: bool):
        super().__init__()
        self.rule, self.window = rule, window
        self.by_threshold = by_threshold and rule.thresholds is not None
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("idle", torch.zeros(features, dtype=torch.int64))
        self.register_buffer("density", torch.zeros(features))
        if rule.thresholds is not None:
            shape = (features,) if rule.thresholds == "each" else ()
            self.register_buffer("threshold", torch.zeros(shape))
            self.register_buffer("averaged", torch.zeros(shape))
        self.names = list(rule.state(features))
        for name, tensor in rule.state(features).items():
            self.register_buffer(name, tensor)

    @property
    def dead(self) -> Tensor:
        """(features,) bool: those that have not fired in ``window`` training batches."""
        return self.idle >= self.window

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside, tokens are coded one by one, by thresholds where the rule has them."""
        was, self.by_threshold = self.by_threshold, self.rule.thresholds is not None
        try:
            yield
        finally:
            self.by_threshold = was

    def forward(self, before: Tensor) -> Tensor:
        return self._forward(before, ALONE)

    def over_ranks(self, before: Tensor) -> Tensor:
        """As :meth:`forward`, where processes share each training batch.

        Args:
            before: (n, features) of this process's tokens

        Returns:
            (n, features).
        """
        return self._forward(before, SharedByRanks() if self.training else ALONE)

    def _forward(self, before: Tensor, shared: Shared) -> Tensor:
        magnitudes = before.relu()
        with torch.no_grad():
            seen = magnitudes.detach()
            state = {name: self.get_buffer(name) for name in self.names}
            if self.by_threshold and not self.training:
                kept = seen >= self.threshold
            else:
                kept = self.rule.kept(seen, state, shared)
            kept &= seen > 0
            if self.training:
                self._note(seen, kept, shared)
                if self.names:
                    self.rule.learn(seen, state, int(self.seen), shared)
                self.seen += 1
        return magnitudes * kept

    def _note(self, magnitudes: Tensor, kept: Tensor, shared: Shared) -> None:
        counts = shared.total(torch.count_nonzero(kept, 0))
        self.idle.add_(1).masked_fill_(counts > 0, 0)
        share = counts / (len(kept) * shared.world)
        self.density.lerp_(share, (1 / (self.seen + 1)).clamp(min=1 / self.window))
        if self.rule.thresholds is not None:
            least = torch.where(kept, magnitudes, torch.inf).float()
            least = shared.least(least.amin(0) if self.threshold.ndim else least.min())
            fired = least.isfinite()
            self.averaged += fired
            weight = fired / self.averaged.clamp(1, MEAN_OF)
            self.threshold.lerp_(torch.where(fired, least, self.threshold), weight)


class Autoencoder(nn.Module):
    """(n, width) -> (n, width): ``decoder(select(encoder(x - b)))`` with b the decoder's bias.

    The decoder's columns are the features' directions, of length 1; the encoder begins as the decoder's transpose.
    """

    def __init__(self, width: int, features: int, rule: Allocation, window: int, by_threshold: bool):
        super().__init__()
        self.encoder = nn.Linear(width, features)
        self.select = Select(rule, features, window, by_threshold)
        self.decoder = nn.Linear(features, width)
        with torch.no_grad():
            directions = F.normalize(torch.randn(features, width))
            self.encoder.weight.copy_(directions)
            self.decoder.weight.copy_(directions.T)
            self.encoder.bias.zero_()
            self.decoder.bias.zero_()

    def codes(self, x: Tensor) -> Tensor:
        """Encode vectors.

        Args:
            x: (n, width)

        Returns:
            (n, features), most of them 0.
        """
        codes: Tensor = self.select(self.encoder(x - self.decoder.bias))
        return codes

    def forward(self, x: Tensor) -> Tensor:
        restored: Tensor = self.decoder(self.codes(x))
        return restored


@torch.no_grad()
def only_turning(weight: nn.Parameter) -> None:
    """Leave of a gradient, column by column, what is across the column: an update then turns it, and does not stretch it."""
    if weight.grad is not None:
        along = F.normalize(weight, dim=0)
        weight.grad.sub_(along * (weight.grad * along).sum(0))


@torch.no_grad()
def unit_columns(weight: Tensor) -> None:
    """Give every column length 1; one of zeros stays.

    Args:
        weight: (width, features), changed in place
    """
    weight.div_(weight.norm(dim=0).clamp(min=torch.finfo(weight.dtype).tiny))
