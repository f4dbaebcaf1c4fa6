"""Layers that hold queries, keys and values in one, and the three that replace them. Imports torch."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparselab.core.errors import refuse
from sparselab.inputs.models.kinds import kind_of
from sparselab.inputs.models.spec_builder import word_roles

if TYPE_CHECKING:
    from collections.abc import Iterator

# Attention modules whose fused layer gives all queries, then all keys, then all values. Others mix them, head by head.
IN_THIRDS = frozenset(
    {
        "timm.layers.attention.Attention",
        "timm.layers.attention.AttentionRope",
        "timm.models.beit.Attention",
        "timm.models.eva.EvaAttention",
        "timm.models.swin_transformer.WindowAttention",
        "timm.models.swin_transformer_v2.WindowAttention",
        "timm.models.vision_transformer_relpos.RelPosAttention",
        "transformers.models.gpt2.modeling_gpt2.GPT2Attention",
    }
)
SEPARATE_BIAS = "qkv_bias_separate"
"""timm's switch of modules that else read the fused layer's weight without calling the layer."""


class SeparateQKV(nn.Module):
    """(..., inputs) -> (..., queries | keys | values): what ``fused`` gives, from a layer for each third of it."""

    def __init__(self, fused: nn.Module):
        super().__init__()
        self.q, self.k, self.v = (_third(fused, i) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


def split(model: nn.Module, where: str) -> None:
    """Put three layers in the place of every fused one of ``model``; it computes what it did.

    ConfigError, and nothing changed, where there is none, and where the order of a layer's outputs is not known.
    """
    found = list(_fused(model))
    if not found:
        refuse(where, "the network has no linear layer with queries, keys and values in one", "leave it out")
    for path, _, owner in found:
        if IN_THIRDS.isdisjoint(f"{base.__module__}.{base.__qualname__}" for base in type(owner).__mro__):
            refuse(where, f"the order of {path}'s outputs is not known ({type(owner).__name__})", "leave it out")
    for path, layer, owner in found:
        if hasattr(owner, SEPARATE_BIAS):
            setattr(owner, SEPARATE_BIAS, True)
        model.set_submodule(path, SeparateQKV(layer))


def _fused(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """(path, layer, the module that it belongs to)."""
    for path, module in model.named_modules():
        if kind_of(module) in ("linear", "conv1d") and word_roles(path) == {"qkv"}:
            yield path, module, model.get_submodule(path.rpartition(".")[0])


def _third(fused: nn.Module, index: int) -> nn.Module:
    """A layer like ``fused`` with one third of its outputs."""
    part, axis = copy.deepcopy(fused), -1 if kind_of(fused) == "conv1d" else 0
    for name, tensor in fused.named_parameters():
        own = tensor.detach().chunk(3, axis)[index].clone()
        setattr(part, name, nn.Parameter(own, tensor.requires_grad))
    size = "nf" if axis else "out_features"
    setattr(part, size, getattr(fused, size) // 3)
    return part
