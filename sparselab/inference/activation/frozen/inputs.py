"""Prepares a network for a rule on what its linear layers read."""

from __future__ import annotations

from sparselab.core.errors import RunFailed
from sparselab.inference.activation.frozen.allocate import greedy, nearest, uniform
from sparselab.inference.activation.frozen.calibrate import Gates
from sparselab.inference.activation.frozen.network import Network
from sparselab.inference.activation.frozen.rotate import rotate
from sparselab.inference.activation.frozen.sites import find_blocks
from sparselab.inference.activation.rule import InputRule
from sparselab.inference.parts import Activations

LOOKED_AT = 64  # tokens of a window that show how the network is built, and whether a rotation left it as it was
SAME = 1e-3  # largest relative change of the logits that a rotation may cost, of their spread


def prepare(rule: InputRule, network: Network) -> Activations:
    """Find the sites, rotate what they read, say how sparse each is, and make its gate."""
    options, model, target = rule.options, network.model, network.target
    tokens = network.windows("calibrate", None)
    some = tokens[0][:, :LOOKED_AT]
    blocks = find_blocks(model, some[:1], options.pivots)
    macs = 0
    if options.transform:
        before = network.logits(some)
        macs = rotate(blocks)
        change = float((network.logits(some) - before).norm() / before.norm())
        if not change < SAME:
            raise RunFailed(
                f"activation.transform: rotating changed the output by {change:.2g} of its size — write transform=false"
            )
    gates = Gates(rule, model, blocks, tokens)
    levels = uniform(blocks, target)
    if options.allocation == "greedy" and target:
        levels = {}
        for block in blocks:
            network.check("between two blocks of the allocation")
            levels |= nearest(greedy(model, block, tokens, rule, gates, target), target).levels
    sites = [site for block in blocks for site in block.sites]
    chosen = {site.name: gate for site in sites if (gate := gates(site, levels[site.name])) is not None}
    return Activations(sites, levels, chosen, macs)
