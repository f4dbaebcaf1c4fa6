"""The places of a frozen network where activations can be sparse: the linear layers of its blocks, by shared input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from sparselab.core.errors import refuse

Mask = Callable[[Tensor], "Tensor | None"]
"""From a tensor to the one that takes its place; None leaves it as it is."""


class Place(Protocol):
    """A tensor of a frozen network that is made sparse.

    kind: what is sparse, "input" or "neuron". inputs: its entries for a token. outputs: of the layer that reads it.
    params: weights that a token does not need where all entries are zero; in proportion where some are.
    """

    name: str
    kind: ClassVar[str]

    @property
    def inputs(self) -> int: ...

    @property
    def outputs(self) -> int: ...

    @property
    def params(self) -> int: ...

    def attach(self, mask: Mask) -> Any:
        """Show every such tensor to ``mask``, until ``remove()`` of what is returned."""


@dataclass
class Site:
    """A linear layer whose input is made sparse.

    transposed: the weight is stored as (inputs, outputs), as in transformers' Conv1D. pivot: its input may be rotated
    so that its own columns become orthogonal. params: weights, which an input entry of zero saves in proportion.
    """

    name: str
    module: nn.Module
    transposed: bool
    pivot: bool = False
    kind: ClassVar[str] = "input"

    @property
    def weight(self) -> Tensor:
        """(outputs, inputs); a view of the module's own."""
        stored = self.module.get_parameter("weight")
        return stored.T if self.transposed else stored

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        return self.weight.shape[1]

    @property
    def params(self) -> int:
        return self.weight.numel()

    def column_norms(self) -> Tensor:
        """(inputs,) Euclidean norm of each column, over the outputs."""
        return torch.linalg.vector_norm(self.weight.detach(), dim=0)

    def attach(self, mask: Mask) -> Any:
        """Show all that the layer reads to ``mask``; another layer that reads the same is not touched."""

        def enter(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            masked = mask(args[0])
            return None if masked is None else (masked, *args[1:])

        return self.module.register_forward_pre_hook(enter)


@dataclass
class Shared:
    """Sites that read one tensor, in the order of their calls, and the module that makes it (None: unknown)."""

    sites: list[Site]
    source: nn.Module | None

    @property
    def pivot(self) -> Site | None:
        return next((site for site in self.sites if site.pivot), None)


@dataclass
class Block:
    """A decoder block: its module and its sites, grouped by the input that they read."""

    name: str
    module: nn.Module
    inputs: list[Shared] = field(default_factory=list)

    @property
    def sites(self) -> list[Site]:
        return [site for shared in self.inputs for site in shared.sites]


def find_blocks(model: nn.Module, tokens: Tensor, pivots: Iterable[str]) -> list[Block]:
    """The decoder blocks of a causal language model with the linear layers in them, from one forward pass.

    tokens: (n, t) int64, what the pass reads. pivots: globs over layer names. Embeddings, norms and the head are no
    sites. Raises :class:`ConfigError` where the model has no list of equal blocks, a glob matches nothing in any of them,
    or two pivots read the same input.
    """
    stack, layers = _block_list(model)
    names = {id(module): name for name, module in model.named_modules()}
    blocks = [Block(names[id(layer)], layer) for layer in layers]
    sites = [[_site(names[id(m)], m, pivots) for m in layer.modules() if _linear(m)] for layer in layers]
    everything = [site for group in sites for site in group]
    if not everything:
        refuse("model", f"the blocks in {stack} hold no linear layer", "choose another model")
    read, made = _trace(model, [site.module for site in everything], tokens)
    for block, group in zip(blocks, sites, strict=True):
        inputs: dict[int, Shared] = {}
        for site in sorted((s for s in group if id(s.module) in read), key=lambda s: read[id(s.module)][0]):
            tensor = read[id(site.module)][1]
            inputs.setdefault(tensor, Shared([], made.get(tensor))).sites.append(site)
        block.inputs = list(inputs.values())
        for shared in block.inputs:
            chosen = [site.name for site in shared.sites if site.pivot]
            if len(chosen) > 1:
                refuse("activation.pivots", f"{' and '.join(chosen[:2])} read one input", "name one of them")
    return blocks


def _block_list(model: nn.Module) -> tuple[str, list[nn.Module]]:
    """The outermost list of modules of one class, the longest where there are several."""
    found = [
        (name, list(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and len({type(m) for m in module}) == 1
    ]
    if not found:
        refuse("model", "has no list of equal blocks", "choose a decoder such as model=llama_tiny or model=hf")
    depth = min(name.count(".") for name, _ in found)
    return max((item for item in found if item[0].count(".") == depth), key=lambda item: len(item[1]))


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or _conv1d(module)


def _conv1d(module: nn.Module) -> bool:
    """transformers' GPT-2 layer, known by its name so that nothing is imported for it."""
    return any(f"{c.__module__}.{c.__qualname__}" == "transformers.pytorch_utils.Conv1D" for c in type(module).__mro__)


def _site(name: str, module: nn.Module, pivots: Iterable[str]) -> Site:
    return Site(name, module, _conv1d(module), any(fnmatchcase(name, glob) for glob in pivots))


@torch.no_grad()
def _trace(
    model: nn.Module, linears: list[nn.Module], tokens: Tensor
) -> tuple[dict[int, tuple[int, int]], dict[int, nn.Module]]:
    """(per linear layer, by id: order of its call and the tensor it read), (per tensor: the innermost module that made it).

    Tensors are named by a number of our own: Python may give a dead tensor's id to the next one.
    """
    alive: list[Tensor] = []
    numbers: dict[int, int] = {}
    read: dict[int, tuple[int, int]] = {}
    made: dict[int, nn.Module] = {}

    def number(tensor: Tensor) -> int:
        if id(tensor) not in numbers:
            alive.append(tensor)
            numbers[id(tensor)] = len(alive)
        return numbers[id(tensor)]

    def enter(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        read.setdefault(id(module), (len(read), number(args[0])))

    def leave(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor):
            made.setdefault(number(output), module)

    handles = [linear.register_forward_pre_hook(enter) for linear in linears]
    handles += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        model(input_ids=tokens, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return read, made
