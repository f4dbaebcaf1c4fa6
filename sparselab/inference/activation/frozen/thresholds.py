"""Thresholds on the gates of feed-forward layers and on inputs of linear ones: quantiles of groups of windows, averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from sparselab.core.errors import refuse
from sparselab.inference.activation.frozen.gates import threshold
from sparselab.inference.activation.frozen.network import Network
from sparselab.inference.activation.frozen.neurons import Neurons, find_neurons
from sparselab.inference.activation.frozen.sites import Mask, Place, find_blocks
from sparselab.inference.activation.neurons import Channels, NeuronRule
from sparselab.inference.activation.rule import dense_tokens
from sparselab.inference.parts import Activations

Look = tuple[Callable[[Mask], Any], Callable[[Tensor], Tensor]]
"""How to be shown a tensor, and what is to be averaged of it."""


def prepare(rule: NeuronRule, network: Network) -> Activations:
    """Find the neurons and the inputs that the rule makes sparse, and their thresholds at the network's target."""
    model, level, prefix = network.model, network.target, rule.options.dense_prefix
    groups = network.windows("calibrate", rule.options.group)
    blocks = find_blocks(model, groups[0][:1], ())
    neurons = find_neurons(model, blocks, groups[0])
    sites = [site for block in blocks for site in block.sites]
    places: list[Place] = [*neurons]
    for glob in rule.options.inputs:
        chosen = [site for site in sites if fnmatchcase(site.name, glob) and site not in places]
        if not any(fnmatchcase(site.name, glob) for site in sites):
            refuse("activation.inputs", f"{glob} matches no linear layer of a block", "name layers such as *.q_proj")
        places += chosen
    levels = {place.name: level for place in places}
    if not level:
        return Activations(places, levels, {})
    channels = rule.channels
    plain = [place for place in places if channels is None or place not in neurons]
    looks: dict[str, Look] = {place.name: (place.attach, lambda x: cut(x.abs(), level)) for place in plain}
    if channels is not None:
        power = channels.power
        looks |= {n.name: (n.attach_up, lambda u: size(u, power)) for n in neurons}
    found = averaged(model, looks, groups, prefix, network.check)
    values = {place.name: found[place.name] for place in plain}
    spreads = {}
    if channels is not None:
        weights = {n.name: found[n.name] * _down(n, channels) for n in neurons}
        again = network.windows("calibrate again", rule.options.group) if channels.fresh else groups
        second = {n.name: (n.attach, _cut_of(weights[n.name], power, level)) for n in neurons}
        for name, value in averaged(model, second, again, prefix, network.check).items():
            values[name] = by_channel(value, weights[name], power)
            spreads[name] = spread(weights[name] ** (1 / power))
    gates = {name: threshold(value.reshape(-1)) for name, value in values.items()}  # no scalars: compared in float32
    return Activations(places, levels, gates, spreads=spreads)


def cut(scores: Tensor, level: float) -> Tensor:
    """() the k-th smallest of all scores, k = int(level x their number), float32; 0 where k is 0."""
    flat = scores.float().flatten()
    rank = int(flat.numel() * level)
    return flat.kthvalue(rank).values if rank else flat.new_zeros(())


def _cut_of(weights: Tensor, power: int, level: float) -> Callable[[Tensor], Tensor]:
    return lambda g: cut(scores(g, weights, power), level)


def size(u: Tensor, power: int) -> Tensor:
    """(channels,) mean of |u|^power over the tokens of u (..., channels), float32."""
    return u.float().abs().pow(power).flatten(0, -2).mean(0)


def scores(g: Tensor, weights: Tensor, power: int) -> Tensor:
    """|g|^power times a channel's weight: the share of its neuron in the product, to the power.

    Args:
        g: (n, channels) gates
        weights: (channels,) sizes of the channels
        power: 1 or 2

    Returns:
        (n, channels).
    """
    return g.float().abs().pow(power) * weights


def by_channel(value: Tensor, weights: Tensor, power: int) -> Tensor:
    """Return the threshold on |g_i| that ``value`` is on :func:`scores`.

    Args:
        value: () a threshold on :func:`scores`
        weights: (channels,)
        power: as there

    Returns:
        (channels,); infinite where a channel is dead (weight 0), which never passes.
    """
    limits = (value / weights.clamp_min(torch.finfo(weights.dtype).tiny)) ** (1 / power)
    return limits.masked_fill(weights == 0, torch.inf)  # also where so many are dead that ``value`` is 0


def spread(sizes: Tensor) -> float:
    """Return standard deviation over mean: at 0 all channels are alike (also where all are dead), and CHESS is CATS.

    Args:
        sizes: (channels,), at least 0
    """
    return float(sizes.double().std(correction=0) / sizes.double().mean().clamp_min(torch.finfo(torch.double).tiny))


def _down(neurons: Neurons, channels: Channels) -> Tensor | float:
    """The column norms of the down-projection, to the power, where they count."""
    return neurons.down.column_norms().float() ** channels.power if channels.down_norm else 1.0


@torch.no_grad()
def averaged(
    model: nn.Module, looks: Mapping[str, Look], groups: list[Tensor], prefix: float, check: Callable[[str], None]
) -> dict[str, Tensor]:
    """By name, what each look makes of each group's tokens, averaged over the groups: all weigh alike.

    groups: (n, t) int64 each, read by the network as it is. prefix: share of a window's tokens that is not looked at.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in looks}

    def watch(name: str, summary: Callable[[Tensor], Tensor]) -> Mask:
        def see(x: Tensor) -> None:
            found[name].append(summary(x[..., dense_tokens(x.shape[-2], prefix) :, :]))

        return see

    handles = [attach(watch(name, summary)) for name, (attach, summary) in looks.items()]
    try:
        for group in groups:
            check("between two groups of windows")
            model(input_ids=group, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.stack(parts).mean(0) for name, parts in found.items()}
