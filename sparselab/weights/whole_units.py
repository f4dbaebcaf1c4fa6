"""The parts that go with a unit that a mask drops: its bias, its entries of the norm behind it, what the next layer reads.

A pattern that says ``whole`` masks the weights of units. Here the rest follows, so that a dropped unit puts out nothing, gets
no gradient, and leaves the network that never had it. Imports torch inside functions only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparselab.core.errors import RunFailed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sparselab.core.model_spec import Layer
    from sparselab.core.sparsity import Sparsity
    from sparselab.weights.slot import Slot


def with_readers(layers: Iterable[Layer], patterns: Mapping[str, Sparsity], kept: Mapping[str, int]) -> dict[str, int]:
    """``kept`` weights by layer, less what layers read of dropped units.

    layers:   all of the network. patterns: those of the sparse layers, by name; a layer without one keeps everything.
    """
    known = {layer.name: layer for layer in layers}
    left, streams = dict(kept), set()
    for name, pattern in patterns.items():
        if pattern.whole and name in kept and known[name].adds not in streams:
            layer = known[name]
            streams |= {layer.adds} - {""}  # what is read of a stream goes once, whoever adds to it
            units = kept[name] * layer.outputs // layer.numel
            for reader in layer.readers:
                left[reader] = left.get(reader, known[reader].numel) * units // layer.outputs
    return left


def parts_of(network: nn.Module, layer: Layer) -> Iterator[tuple[nn.Parameter, int]]:
    """(parameter, axis along which the layer's units lie) of all that is its units' own beside their weights."""
    own = [(layer.module, "bias"), *((layer.norm, name) for name in ("weight", "bias") if layer.norm)]
    for module, name in own:
        param = getattr(network.get_submodule(module), name, None)
        if param is not None:
            yield param, 0
    for reader in layer.readers:
        yield network.get_parameter(f"{reader}.weight"), 1


def kept_units(mask: Tensor) -> Tensor:
    """The units that a mask (units, ...) keeps, bool: those of which it keeps any weight."""
    return mask.flatten(1).any(1)


def silence(network: nn.Module, layer: Layer, kept: Tensor) -> None:
    """Zeros into all that belongs to units that are not ``kept`` (bool, one a unit), their own weights left to the mask."""
    for param, axis in parts_of(network, layer):
        param.data.mul_(spread(kept, param, axis))


def spread(kept: Tensor, param: Tensor, axis: int) -> Tensor:
    """``kept`` along ``axis`` of a parameter, to be multiplied with it; a unit may be a run of several inputs."""
    along = kept.repeat_interleave(param.shape[axis] // kept.numel()).to(param.device, param.dtype)
    return along.view([-1 if dim == axis else 1 for dim in range(param.ndim)])


@dataclass
class WholeUnits:
    """The sparse weights whose units are whole, with what belongs to these units."""

    slots: Sequence[Slot]
    parts: Sequence[tuple[Slot, nn.Parameter, int]]
    factors: Sequence[Tensor] = ()

    @classmethod
    def of(cls, slots: Iterable[Slot], network: nn.Module) -> WholeUnits:
        whole = [slot for slot in slots if slot.pattern.sparsity.whole]
        return cls(whole, [(slot, param, axis) for slot in whole for param, axis in parts_of(network, slot.layer)])

    def __bool__(self) -> bool:
        return bool(self.slots)

    def look(self) -> None:
        """After masks were made: which units are left. RunFailed where layers of one residual stream disagree."""
        import torch

        kept = {slot.name: kept_units(slot.mask) for slot in self.slots}
        of_stream: dict[str, Slot] = {}
        for slot in self.slots:
            first = of_stream.setdefault(slot.layer.adds, slot) if slot.layer.adds else slot
            if not torch.equal(kept[first.name], kept[slot.name]):
                raise RunFailed(
                    f"{slot.name}: keeps other units than {first.name}, whose outputs are added to its own — "
                    "make the masks with method=slimming"
                )
        self.factors = [spread(kept[slot.name], param, axis) for slot, param, axis in self.parts]

    def silence(self) -> None:
        """Zeros into what belongs to dropped units."""
        for (_, param, _), factor in zip(self.parts, self.factors, strict=True):
            param.data.mul_(factor)

    def pull_back(self) -> None:
        """Zeros into its gradients."""
        for (_, param, _), factor in zip(self.parts, self.factors, strict=True):
            if param.grad is not None:
                param.grad.mul_(factor)
