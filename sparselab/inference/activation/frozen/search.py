"""Rules with one number for the whole network: gates for every number, and the number that meets a goal on held-out text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparselab.core.errors import RunFailed
from sparselab.inference.activation.frozen.gates import Gate, not_below, topk, topk_of_all
from sparselab.inference.activation.frozen.masking import Masking
from sparselab.inference.activation.frozen.network import Network
from sparselab.inference.activation.frozen.neurons import Neurons, find_neurons
from sparselab.inference.activation.frozen.sites import Mask, find_blocks
from sparselab.inference.activation.rule import dense_tokens
from sparselab.inference.parts import Activations
from sparselab.inference.score import score

if TYPE_CHECKING:
    from sparselab.inference.activation.searched import SearchedRule


@dataclass(frozen=True)
class Family:
    """Gates by the rule's number. high: the largest that a search looks at. direct: the number is the share of zeros."""

    places: Sequence[Neurons]
    gates: Callable[[float], dict[str, Gate]]
    high: float = 1.0
    direct: bool = False


@dataclass(frozen=True)
class Found:
    """The network under one number of the rule, on the text of the search.

    rise: its perplexity over the dense one's, less 1. zeros: of each place, the share of neurons that are not active.
    """

    rise: float
    zeros: dict[str, float]

    @property
    def sparsity(self) -> float:
        """The mean over layers."""
        return math.fsum(self.zeros.values()) / len(self.zeros)


def prepare(rule: SearchedRule, network: Network) -> Activations:
    """Find the number that meets the rule's goal, and its gates."""
    options, text = rule.options, network.held_out()
    family = rule.family(network, [inputs for inputs, _ in text])
    dense = score(network.logits, text).loss

    def look(value: float) -> Found:
        network.check("between two halvings of the search")
        with Masking(rule, family.places, family.gates(value), options.dense_prefix) as masking:
            loss = score(network.logits, text).loss
        zeros = {name: count.gated_sparsity for name, count in masking.counts.items()}
        return Found(math.expm1(min(loss - dense, 700.0)), zeros)

    def short(share: float) -> bool:
        found = look(share * family.high)
        return found.rise < options.rise if options.rise is not None else found.sparsity < network.target

    if options.value is not None:
        value = options.value
    elif family.direct and options.rise is None:
        value = network.target
    else:
        value = family.high * halved(short, options.tolerance)
    found = look(value)
    if options.value is None and options.rise is None and value > family.high * (1 - options.tolerance):
        _refuse_if_short(rule, network.target, look(family.high))
    measures = {rule.number: value, "search_active": 1 - found.sparsity, "search_rise": found.rise}
    return Activations(family.places, found.zeros, family.gates(value), measures=measures)


def _refuse_if_short(rule: SearchedRule, target: float, most: Found) -> None:
    """RunFailed where the largest number leaves fewer zeros than were asked for. most: what it leaves."""
    if most.sparsity < target:
        problem = f"with {rule.number}=1 {rule.name} drops {most.sparsity:.4g} of the neurons, and no more"
        raise RunFailed(f"sparsity={target:g}: {problem} — write a smaller one, or set activation.value")


def halved(short: Callable[[float], bool], tolerance: float) -> float:
    """Halve [0, 1] until it is no wider than ``tolerance``, and return its middle (arXiv 2411.02335, algorithm 1).

    Args:
        short: True where a number is below the goal; the lower end then moves up
        tolerance: width of the last interval
    """
    low, high = 0.0, 1.0
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if short(middle) else (low, middle)
    return (low + high) / 2


def the_neurons(network: Network, inputs: list[Tensor]) -> list[Neurons]:
    """The gated feed-forward layers of the network.

    Args:
        network: the dense network
        inputs: (n, t) int64 each, the windows of the search
    """
    return find_neurons(network.model, find_blocks(network.model, inputs[0][:1], ()), inputs[0])


@torch.no_grad()
def read(network: Network, places: Sequence[Neurons], inputs: list[Tensor], prefix: float) -> dict[str, Tensor]:
    """Read what the dense network has at each place.

    Args:
        network: the dense network
        places: where to look
        inputs: (n, t) int64 each
        prefix: share of each window's tokens, the first ones, left out

    Returns:
        (tokens, neurons) by the name of the place.
    """
    seen: dict[str, list[Tensor]] = {place.name: [] for place in places}

    def watch(name: str) -> Mask:
        def see(x: Tensor) -> None:
            seen[name].append(x[..., dense_tokens(x.shape[-2], prefix) :, :].flatten(0, -2).clone())

        return see

    handles = [place.attach(watch(place.name)) for place in places]
    try:
        for tokens in inputs:
            network.check("between two batches of the search's text")
            network.logits(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


def by_share(scope: str, network: Network, inputs: list[Tensor]) -> Family:
    """Gates that drop a share of the smallest |g_i|.

    Args:
        scope: token, or tensor: of all tokens of a pass
        network: the dense network
        inputs: (n, t) int64 each, the windows of the search
    """
    places = the_neurons(network, inputs)
    keep = {"token": topk, "tensor": topk_of_all}[scope]

    def gates(level: float) -> dict[str, Gate]:
        return {place.name: _active(keep(level)) for place in places}

    return Family(places, gates, direct=True)


def by_size(rule: SearchedRule, network: Network, inputs: list[Tensor]) -> Family:
    """Gates that drop |g_i| below one threshold, up to the largest gate seen.

    Args:
        rule: with its options
        network: the dense network
        inputs: (n, t) int64 each, the windows of the search
    """
    places = the_neurons(network, inputs)
    seen = read(network, places, inputs, rule.options.dense_prefix)
    high = max(float(g.abs().max()) for g in seen.values())
    device = next(iter(seen.values())).device

    def gates(eps: float) -> dict[str, Gate]:
        return dict.fromkeys((place.name for place in places), not_below(torch.tensor([eps], device=device)))

    return Family(places, gates, high or 1.0)


def _active(gate: Gate) -> Gate:
    """The gate, which lets no zero pass."""
    return lambda scores: gate(scores) & (scores > 0)
