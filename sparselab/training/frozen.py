"""A network of which only some parameters train: what of it is frozen, and how it stays so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def freeze(network: nn.Module, trains: Callable[[str], bool]) -> None:
    """Let the parameters that ``trains`` names train, and no others: no gradient is made for them, no optimiser has them.

    The network evaluates from here on; who trains it (a ``TaskModule`` that ``freezes``) sees to it that it stays so.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trains(name))
    network.eval()


def frozen(network: nn.Module) -> frozenset[str]:
    """Names of the tensors that no update changes while the network evaluates: what a checkpoint need not hold.

    Buffers of modules without a parameter belong to what acts during the run (a mapping, say), and are not among them.
    """
    names = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return frozenset(names | {name for name, _ in network.named_buffers() if _beside_frozen(network, name)})


def _beside_frozen(network: nn.Module, buffer: str) -> bool:
    own = list(network.get_submodule(buffer.rpartition(".")[0]).parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)


def without_frozen(state: dict[str, Any], network: nn.Module, prefix: str) -> dict[str, Any]:
    """``state`` less what is frozen in ``network``, whose tensors have names with ``prefix``."""
    names = {prefix + name for name in frozen(network)}
    return {name: value for name, value in state.items() if name not in names}


def with_frozen(state: dict[str, Any], network: nn.Module, prefix: str) -> dict[str, Any]:
    """``state`` with what it lacks of the frozen tensors, as ``network`` has them."""
    own = network.state_dict()
    return {**{prefix + name: own[name] for name in frozen(network) if name in own}, **state}
