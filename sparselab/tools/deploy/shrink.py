"""A network without the channels that masks made superfluous: smaller tensors, the same outputs. Imports torch.

Which channels belong together is found on the network itself, whatever its modules are: one output channel of a layer after
another is made NaN, and the inputs of layers and norms that turn NaN read it. Channels that meet (in an addition, in a norm)
are one group, which goes or stays as a whole. A group can go if nobody listens (all weights that read it are zero:
``in_channel``), or if it says the same whatever the network sees (all its filters are zero: ``channel``, ``unit``). If what it
says is not 0, those who listen are told once and for all: in their bias or, where a padded border would tell the difference,
by one channel of the same kind that stays and speaks for the others.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparselab.core.errors import refuse

Forward = Callable[[nn.Module, Tensor], Any]
Node = tuple[str, str, int]
"""(``out`` or ``in``, name of the module, channel)."""
Makers = frozenset[str]
"""The layers that put out the channels of a group."""
Values = dict[tuple[str, int], "float | None"]
"""Of an input (module, channel) the number that it always is, None where it is no constant."""
Lost = dict[str, tuple[int, int]]
"""Channels that modules lost: (of outputs, of inputs)."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
TOGETHER = 64
"""Channels that are tried in one forward pass."""
TOLERANCE = 1e-4
"""By how much outputs may differ, as a share of the largest."""


@dataclass
class Shrunk:
    """The smaller network, and per layer or norm the channels that it lost: ``{module: (of outputs, of inputs)}``."""

    network: nn.Module
    lost: Lost = field(default_factory=dict)
    difference: float = 0.0


def shrink(network: nn.Module, forward: Forward, sample: Tensor) -> Shrunk:
    """``network`` without superfluous channels; itself is left alone.

    forward: (network, batch) -> logits, any tensors. sample: a batch of inputs, on which outputs are compared after each step;
    what a network computes with sizes of its own does not follow, and keeps its channels.

    Raises ConfigError where no channel can go.
    """
    found = Shrunk(copy.deepcopy(network).eval())
    failed: set[Makers] = set()
    with torch.no_grad():
        before = _first(forward(found.network, sample))
        while (step := _step(found.network, forward, sample, before, failed)) is not None:
            found.network, lost = step
            for name, (outs, ins) in lost.items():
                had = found.lost.get(name, (0, 0))
                found.lost[name] = had[0] + outs, had[1] + ins
        if not found.lost:
            fix = "shrink what was trained with sparsity=unit:0.5, channel:0.5 or in_channel:0.5"
            refuse("shrink=true", "no channel of this network is superfluous", fix)
        found.difference = _difference(forward, found.network, sample, before)
    return found


def _step(
    network: nn.Module, forward: Forward, sample: Tensor, before: Tensor, failed: set[Makers]
) -> tuple[nn.Module, Lost] | None:
    """A copy without the groups that can go now, and what it lost; None where none can.

    All at once, or else those of one set of layers; the sets that cannot go are noted in ``failed``.
    """
    groups, pinned, values = _groups(network, _eligible(network), forward, sample)
    by_makers: dict[Makers, list[set[Node]]] = defaultdict(list)
    for group in groups:
        makers = frozenset(name for side, name, _ in group if side == "out")
        if makers and makers not in failed and not pinned & group:
            by_makers[makers].append(group)
    trials = [list(by_makers), *([makers] for makers in by_makers if len(by_makers) > 1)]
    for trial in trials:
        small = copy.deepcopy(network)
        lost = _without(small, [group for makers in trial for group in by_makers[makers]], values)
        if lost and _difference(forward, small, sample, before) <= TOLERANCE:
            return small, lost
        if len(trial) == 1:
            failed.update(trial)
    return None


def _difference(forward: Forward, small: nn.Module, sample: Tensor, before: Tensor) -> float:
    """By how much outputs differ, as a share of the largest; infinite where shapes no longer meet."""
    try:
        after = _first(forward(small, sample))
    except RuntimeError:
        return math.inf
    if after.shape != before.shape:
        return math.inf
    return float((after - before).abs().max() / before.abs().max().clamp_min(1e-30))


def _without(network: nn.Module, groups: Sequence[set[Node]], values: Values) -> Lost:
    """Take out, in place, those of ``groups`` that nobody misses; what that takes from each module."""
    modules = _eligible(network)
    gone: dict[tuple[str, str], set[int]] = defaultdict(set)
    speakers: dict[tuple[str, ...], dict[str, int]] = {}
    for group in groups:
        outs = [(name, i) for side, name, i in group if side == "out"]
        readers = [(name, i) for side, name, i in group if side == "in" and _mixes(modules[name])]
        if not all(_deaf(modules[name], i) for name, i in readers) and not (
            all(_mute(modules[name], i) for name, i in outs) and _told(modules, readers, values, speakers)
        ):
            continue
        for side, name, i in group:
            gone[side, name].add(i)
    lost: dict[str, tuple[int, int]] = {}
    for (side, name), channels in gone.items():
        _cut(modules[name], side, channels)
        had = lost.get(name, (0, 0))
        lost[name] = (had[0] + len(channels), had[1]) if side == "out" else (had[0], had[1] + len(channels))
    return lost


def _told(
    modules: dict[str, Any],
    readers: Sequence[tuple[str, int]],
    values: Values,
    speakers: dict[tuple[str, ...], dict[str, int]],
) -> bool:
    """Let the readers of a group that always says the same know it for good; False where the group has to stay."""
    said = {(name, i): values.get((name, i)) for name, i in readers if not _deaf(modules[name], i)}
    if None in said.values():
        return False
    loud = {key: value for key, value in said.items() if value}
    if not any(_padded(modules[name]) for name, _ in loud):
        for (name, i), value in loud.items():
            _into_bias(modules[name], i, float(value or 0.0))
        return True
    names = [name for name, _ in readers]
    speaker = speakers.setdefault(tuple(sorted(names)), dict(readers))
    if len(set(names)) < len(names) or speaker == dict(readers):
        return False  # it is the first of its kind and stays, or is read in several places of one layer
    if not all(values.get((name, speaker[name])) for name, _ in loud):
        return False
    for (name, i), value in loud.items():
        share = float(value or 0.0) / float(values[name, speaker[name]] or 1.0)
        modules[name].weight[:, speaker[name]] += modules[name].weight[:, i] * share
    return True


def _eligible(network: nn.Module) -> dict[str, Any]:
    """Modules whose channels can be told apart and taken out: linear layers, convolutions, batch norms."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, (nn.Linear, *NORMS)) or (isinstance(module, CONVOLUTIONS) and _groups_fit(module))
    }


def _groups_fit(module: Any) -> bool:
    return module.groups == 1 or module.groups == module.in_channels == module.out_channels


def _mixes(module: Any) -> bool:
    """True of layers whose outputs each read all inputs; norms and depthwise convolutions pass channels on one by one."""
    return isinstance(module, nn.Linear) or (isinstance(module, CONVOLUTIONS) and module.groups == 1)


def _axis(module: nn.Module) -> int:
    return -1 if isinstance(module, nn.Linear) else 1


def _per_channel(tensor: Tensor, module: nn.Module) -> Tensor:
    """(n, …) as (n, channels, everything else)."""
    return tensor.movedim(_axis(module), 1).flatten(2) if tensor.ndim > 2 else tensor[:, :, None]


def _mute(module: Any, channel: int) -> bool:
    return not bool(module.weight[channel].any())


def _deaf(module: Any, channel: int) -> bool:
    return not bool(module.weight[:, channel].any())


def _padded(module: Any) -> bool:
    return isinstance(module, CONVOLUTIONS) and any(
        module.padding if not isinstance(module.padding, str) else [module.padding != "valid"]
    )


def _into_bias(module: Any, channel: int, value: float) -> None:
    told = (
        value * module.weight[:, channel].flatten(1).sum(1)
        if module.weight.ndim > 2
        else value * module.weight[:, channel]
    )
    if module.bias is None:
        module.bias = nn.Parameter(torch.zeros_like(told))
    module.bias += told


def _cut(module: Any, side: str, channels: set[int]) -> None:
    """Take these channels out of a module's tensors."""
    passes = not _mixes(module)
    axis = 0 if passes or side == "out" else 1
    names = ["weight"] if axis else ["weight", "bias", "running_mean", "running_var"]
    size = module.weight.shape[axis] if module.weight is not None else module.num_features
    keep = torch.tensor([i for i in range(size) if i not in channels], dtype=torch.int64)
    for name in names:
        tensor = getattr(module, name, None)
        if tensor is not None:
            cut = tensor.detach().index_select(axis, keep.to(tensor.device)).clone()
            setattr(module, name, nn.Parameter(cut) if isinstance(tensor, nn.Parameter) else cut)
    for name in _SIZES["pass" if passes else side]:
        if hasattr(module, name):
            setattr(module, name, len(keep) if name != "groups" or module.groups > 1 else 1)


_SIZES = {
    "out": ("out_features", "out_channels"),
    "in": ("in_features", "in_channels"),
    "pass": ("num_features", "in_channels", "out_channels", "groups"),
}


def _groups(
    network: nn.Module, modules: dict[str, Any], forward: Forward, sample: Tensor
) -> tuple[list[set[Node]], set[Node], Values]:
    """Channels that belong together; those that have to stay; and the constant that an input of a layer is, where it is one."""
    parent: dict[Node, Node] = {}

    def root(node: Node) -> Node:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(one: Node, other: Node) -> None:
        parent[root(one)] = root(other)

    pinned: set[Node] = set()
    called, values = _constants(network, modules, forward, sample)
    once = {name for name, count in called.items() if count == 1}
    for name, module in modules.items():
        if not _mixes(module):
            continue
        count = len(module.weight)
        if name not in once:
            pinned |= {("out", name, i) for i in range(count)}
            pinned |= {("in", name, i) for i in range(module.weight.shape[1])}
            continue
        for start in range(0, count, TOGETHER):
            channels = range(start, min(start + TOGETHER, count))
            reached, out = _reached(network, modules, forward, sample, name, channels)
            for row, i in enumerate(channels):
                root(("out", name, i))
                if out[row]:
                    pinned.add(("out", name, i))
                for reader, hit in reached.items():
                    for j in hit[row].nonzero().flatten().tolist():
                        join(("out", name, i), ("in", reader, j))
    reached, _ = _reached(network, modules, forward, sample, None, range(1))
    for reader, hit in reached.items():
        pinned |= {("in", reader, j) for j in hit[0].nonzero().flatten().tolist()}
    for name in modules:
        if name not in once:
            pinned |= {node for node in parent if node[1] == name}
    groups: dict[Node, set[Node]] = defaultdict(set)
    for node in list(parent):
        groups[root(node)].add(node)
    roots = {root(node) for node in pinned if node in parent}
    return [group for top, group in groups.items() if top not in roots], pinned, values


def _constants(
    network: nn.Module, modules: dict[str, nn.Module], forward: Forward, sample: Tensor
) -> tuple[dict[str, int], Values]:
    """How often each module is called, and of each input channel its value where that is the same everywhere."""
    called: dict[str, int] = defaultdict(int)
    values: Values = {}

    def look(name: str, module: nn.Module, x: Tensor) -> Tensor:
        called[name] += 1
        low, high = _per_channel(x, module).movedim(1, 0).flatten(1).aminmax(dim=1)
        for i, (a, b) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            values[name, i] = a if a == b else None
        return x

    with _listening(modules, look):
        forward(network, sample)
    return called, values


def _reached(
    network: nn.Module,
    modules: dict[str, nn.Module],
    forward: Forward,
    sample: Tensor,
    source: str | None,
    channels: range,
) -> tuple[dict[str, Tensor], Tensor]:
    """Find out which inputs of which module read each of these channels of ``source`` (None: what the network reads).

    Returns:
        For each module bool (channels, inputs); and bool (channels,), whether what the network puts out reads them.
    """
    batch = sample[:1].repeat(len(channels), *[1] * (sample.ndim - 1))
    found: dict[str, Tensor] = {}

    def look(name: str, module: nn.Module, x: Tensor) -> Tensor:
        hit = _per_channel(x, module).isnan().any(2)
        if hit.any():
            found[name] = found[name] | hit if name in found else hit
        return torch.nan_to_num(x) if _mixes(module) else x

    def poison(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        output = output.clone()
        for row, i in enumerate(channels):
            output[row].movedim(_axis(module) if output.ndim == 2 or _axis(module) < 0 else 0, 0)[i] = float("nan")
        return output

    if source is None:
        if not batch.is_floating_point():
            return {}, torch.zeros(1, dtype=torch.bool)
        batch = torch.full_like(batch, float("nan"))
    handle = modules[source].register_forward_hook(poison) if source is not None else None
    try:
        with _listening(modules, look):
            out = _first(forward(network, batch))
    finally:
        if handle is not None:
            handle.remove()
    return found, out.isnan().flatten(1).any(1)


@contextmanager
def _listening(modules: dict[str, nn.Module], look: Callable[[str, nn.Module, Tensor], Tensor]) -> Iterator[None]:
    """While open, ``look(name, module, input)`` is called before each of these modules and may replace what it reads."""
    handles = [
        module.register_forward_pre_hook(lambda module, args, name=name: (look(name, module, args[0]), *args[1:]))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else next(iter(output))


def fit_to(network: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """Give the modules of ``network`` the sizes of a smaller network's tensors, and these tensors, in place.

    Raises ConfigError where a tensor is larger than the network's own, or is none of its.
    """
    own, made = network.state_dict(), _eligible(network)
    for name, tensor in tensors.items():
        told = name not in own and name.removesuffix(".bias") in made  # a constant that readers were told
        if not told and (name not in own or any(a > b for a, b in zip(tensor.shape, own[name].shape, strict=True))):
            refuse(name, "does not come of this network", "name the run folder that it was made of")
    for name, module in made.items():
        weight = tensors.get(f"{name}.weight")
        if weight is None:
            continue
        for side, axis in (("out", 0), ("in", 1)):
            if axis and not _mixes(module):
                continue
            have = module.weight.shape[axis]
            _cut(module, side, set(range(weight.shape[axis], have)))
        if f"{name}.bias" in tensors and module.bias is None:
            module.bias = nn.Parameter(torch.zeros_like(tensors[f"{name}.bias"]))
    network.load_state_dict(tensors)
    return network


__all__: Sequence[str] = ("Shrunk", "fit_to", "shrink")
