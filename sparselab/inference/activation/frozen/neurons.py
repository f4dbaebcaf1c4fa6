"""The neurons of a frozen network's gated feed-forward layers: W_down (g ⊙ u), with g what an activation puts out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparselab.core.errors import refuse
from sparselab.inference.activation.frozen.sites import Block, Mask, Site

TOKENS = 8  # that the tracing pass reads
LLAMAS = "choose a model with gated feed-forward layers, such as model=llama_tiny"


@dataclass
class Neurons:
    """A gated feed-forward layer whose gate is made sparse.

    act: the module that puts out g, (..., inputs). up: the layer whose outputs u multiply it, beginning with output
    ``first`` (where gate and up are one layer). down: the layer that reads the product.
    """

    name: str
    act: nn.Module
    up: Site
    first: int
    down: Site
    kind: ClassVar[str] = "neuron"

    @property
    def inputs(self) -> int:
        return self.down.inputs

    @property
    def outputs(self) -> int:
        return self.down.outputs

    @property
    def params(self) -> int:
        """Weights of the up- and the down-projection."""
        return self.inputs * self.up.inputs + self.down.params

    def attach(self, mask: Mask) -> Any:
        """Show every g to ``mask``."""
        return self.act.register_forward_hook(lambda module, args, output: mask(output))

    def attach_up(self, look: Mask) -> Any:
        """Show every u to ``look``, and leave it."""

        def leave(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            look(output[..., self.first : self.first + self.inputs])

        return self.up.module.register_forward_hook(leave)


@dataclass
class Products(Neurons):
    """A gated feed-forward layer whose products h = g ⊙ u, what the down-projection reads, are made sparse."""

    def attach(self, mask: Mask) -> Any:
        """Show every h to ``mask``."""
        return self.down.attach(mask)


@torch.no_grad()
def find_neurons(model: nn.Module, blocks: list[Block], tokens: Tensor) -> list[Neurons]:
    """The gated feed-forward layers of the blocks, from one forward pass and whatever their names are.

    tokens: (n, t) int64. A layer reads a product of neurons if its input equals, bit for bit, what a module without
    parameters put out times what another linear layer did. Raises :class:`ConfigError` where a block has none.
    """
    names = {id(module): name for name, module in model.named_modules()}
    found: list[Neurons] = []
    for block in blocks:
        found += _in_block(model, block, names, tokens[:1, :TOKENS])
    shared = {id(neurons.act) for neurons in found}
    if len(shared) < len(found):
        refuse("model", "one activation module serves several feed-forward layers", "choose another model")
    return found


def _in_block(model: nn.Module, block: Block, names: dict[int, str], tokens: Tensor) -> list[Neurons]:
    gates: list[tuple[nn.Module, Tensor, Tensor]] = []  # module, what it read, what it put out
    ups: list[tuple[Site, int, Tensor]] = []  # layer, first output, outputs
    found: list[Neurons] = []

    def act(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor) and output.shape == args[0].shape:
            gates.append((module, args[0], output))

    def made(site: Site) -> Any:
        def leave(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            half = output.shape[-1] // 2
            ups.extend([(site, 0, output), (site, 0, output[..., :half]), (site, half, output[..., half : 2 * half])])

        return site.module.register_forward_hook(leave)

    def reads(site: Site) -> Any:
        def enter(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            pair = _factors(args[0], gates, ups)
            if pair is not None:
                found.append(Neurons(names[id(pair[0])], pair[0], pair[1], pair[2], site))

        return site.module.register_forward_pre_hook(enter)

    plain = [m for m in block.module.modules() if not any(m.children()) and next(m.parameters(), None) is None]
    handles = [module.register_forward_hook(act) for module in plain]
    handles += [hook(site) for site in block.sites for hook in (made, reads)]
    try:
        model(input_ids=tokens, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        refuse("activation", f"{block.name} has no feed-forward layer whose gate is a module that multiplies", LLAMAS)
    return found


def _factors(
    h: Tensor, gates: list[tuple[nn.Module, Tensor, Tensor]], ups: list[tuple[Site, int, Tensor]]
) -> tuple[nn.Module, Site, int] | None:
    """(module, layer, first output) whose product ``h`` is. A gate does not multiply what it was made of."""
    for module, before, g in gates:
        for site, first, u in ups:
            if g.shape == u.shape == h.shape and torch.equal(g * u, h) and not torch.equal(u, before):
                return module, site, first
    return None
