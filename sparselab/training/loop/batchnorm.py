"""Batch normalisation over all processes of a run, so that several train what one would.

torch's SyncBatchNorm needs GPUs and is another class. Here a module stays what it is, and only what it computes in
training changes: mean and variance are those of the whole micro-batch, of which each process has an equal share.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparselab.core.errors import RunFailed
from sparselab.inputs.models.autoencoders import Select


def synchronise(network: nn.Module) -> None:
    """Have every batch normalisation of ``network`` use all processes' examples, and whatever else looks across a batch.

    RunFailed for a batch normalisation that cannot.
    """
    for name, module in network.named_modules():
        if isinstance(module, Select):
            module.forward = module.over_ranks  # type: ignore[method-assign]
        if isinstance(module, _BatchNorm):
            if type(module).forward is not _BatchNorm.forward:
                problem = f"{type(module).__name__} does more than normalise, and cannot be shared by processes"
                raise RunFailed(f"{name}: {problem} — write trainer.devices=1")
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


def _forward(module: _BatchNorm, x: Tensor) -> Tensor:
    """(n, channels, ...) normalised, in its own dtype; statistics in float32."""
    if not module.training:
        return _BatchNorm.forward(module, x)
    others = [0, *range(2, x.ndim)]
    along = [1, -1, *[1] * (x.ndim - 2)]
    count = x.numel() // x.shape[1] * dist.get_world_size()
    values = x.float()
    mean = _Sum.apply(values.sum(others)) / count
    centred = values - mean.view(along)
    variance = _Sum.apply(centred.square().sum(others)) / count
    out = centred * torch.rsqrt(variance + module.eps).view(along)
    if module.affine:
        out = out * module.weight.view(along) + module.bias.view(along)
    _remember(module, mean, variance * (count / max(count - 1, 1)))
    return out.to(x.dtype)


@torch.no_grad()
def _remember(module: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if module.running_mean is None or module.running_var is None or module.num_batches_tracked is None:
        return
    module.num_batches_tracked.add_(1)
    share = 1 / int(module.num_batches_tracked) if module.momentum is None else module.momentum
    module.running_mean.lerp_(mean.detach(), share)
    module.running_var.lerp_(variance.detach(), share)
