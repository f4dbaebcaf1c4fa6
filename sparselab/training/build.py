"""The first step of a run: the process, the data and the network, as the seed makes it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from sparselab.core.seeds import derive_seed
from sparselab.inputs.models.family import head_tensors
from sparselab.inputs.models.trace import traced
from sparselab.training.frozen import freeze
from sparselab.training.layers import place_masks
from sparselab.training.loop.lightning import quiet
from sparselab.training.parts import Parts
from sparselab.training.precision import check_network
from sparselab.training.scenarios.torch_side.divide import divide

if TYPE_CHECKING:
    from sparselab.config.schema import TrainerOptions
    from sparselab.running.signals import StopFlag


@dataclass
class Built:
    """The loaded splits of the data, and the network on the CPU. copies: bytes of one copy of its parameters."""

    splits: Any
    network: torch.nn.Module

    @property
    def copies(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.network.parameters())


def build(parts: Parts, flag: StopFlag) -> Built:
    """Load the data and build the network. A model spec that could not be foreseen is read off it.

    Raises ConfigError where the network is not what the plan could hope for.
    """
    options = parts.cell.trainer
    _prepare(options)
    with flag.at_once("while the data was loaded"):
        splits = parts.dataset.load()
    torch.manual_seed(derive_seed(parts.cell.seed, "init"))
    network = parts.family.build(parts.network_data)
    check_network(network, options)
    if parts.model_spec is None:
        place_masks(parts, traced(parts.family, network, parts.network_data))
    if parts.scenario is not None:
        splits = divide(splits, parts.scenario)
    if parts.adapt is not None:
        parts.adapt.attach(network, parts.data, splits)
        if parts.frozen:
            freeze(network, partial(parts.adapt.trains, head=head_of(parts)))
    return Built(splits, network)


def head_of(parts: Parts) -> frozenset[str]:
    """Names of the parameters of the network's head."""
    assert parts.model_spec is not None
    return head_tensors(parts.model_spec)


def place(network: torch.nn.Module, parts: Parts, device: torch.device) -> None:
    """Put the network where it trains, in the memory layout that it trains in."""
    network.to(device)
    if wants_channels_last(parts):
        network.to(memory_format=torch.channels_last)


def wants_channels_last(parts: Parts) -> bool:
    """As asked; ``auto`` for networks of convolutions (ResNet-20 on two cores: 0.41 s an update against 0.55)."""
    asked = parts.cell.trainer.channels_last
    assert parts.model_spec is not None
    convolutions = sum(layer.kind == "conv" for layer in parts.model_spec.layers)
    return convolutions > len(parts.model_spec.layers) / 2 if asked == "auto" else asked


def _prepare(options: TrainerOptions) -> None:
    quiet()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if options.threads:
        torch.set_num_threads(options.threads)
