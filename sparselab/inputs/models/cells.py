"""Networks of stacked cells in closed form: how wide each cell is, and the layers of every operation [no torch]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparselab.inputs.models.genotype import INPUTS, NONE, SKIP, Nodes, edges
from sparselab.inputs.models.spec_builder import SpecBuilder, pooled

if TYPE_CHECKING:
    from sparselab.inputs.models.genotype import Genotype

STEM = 3
"""The stem has so many times the channels of the first cell's nodes."""
REDUCTIONS = 2
"""Most cells that halve height and width, and double the channels: those at one and two thirds of the depth."""


@dataclass(frozen=True)
class Kernel:
    """A separable convolution: a depthwise and a 1x1 convolution, ``repeats`` times, each time with batch normalisation."""

    size: int
    dilation: int
    repeats: int

    @property
    def padding(self) -> int:
        """Pixels of padding that keep the size at stride 1."""
        return self.dilation * (self.size - 1) // 2


KERNELS = {
    "sep_conv_3x3": Kernel(3, 1, 2), "sep_conv_5x5": Kernel(5, 1, 2),
    "dil_conv_3x3": Kernel(3, 2, 1), "dil_conv_5x5": Kernel(5, 2, 1),
}  # fmt: skip
POOLS = ("max_pool_3x3", "avg_pool_3x3")


@dataclass(frozen=True)
class Place:
    """A cell in its network. before, last: channels of the two states that it reads. channels: of each of its nodes.

    reduces: it halves height and width. halved: the cell before it did, so state 0 is twice as large as state 1.
    """

    before: int
    last: int
    channels: int
    reduces: bool
    halved: bool


def places(channels: int, cells: int, normal: int, reduction: int) -> list[Place]:
    """Return the cells of a network in order. normal, reduction: nodes of either kind of cell."""
    found: list[Place] = []
    before = last = STEM * channels
    halved = False
    for number in range(cells):
        reduces = number in (cells // 3, 2 * cells // 3)
        channels *= 2 if reduces else 1
        found.append(Place(before, last, channels, reduces, halved))
        before, last = last, channels * (reduction if reduces else normal)
        halved = reduces
    return found


def width_of(place: Place, normal: int, reduction: int) -> int:
    """Return the channels that a cell puts out."""
    return place.channels * (reduction if place.reduces else normal)


Size = tuple[int, int]


def draw(
    s: SpecBuilder, channels: int, cells: int, shape: Sequence[int], classes: int, genotype: Genotype
) -> SpecBuilder:
    """Draw the network of these cells, with its layers and norms, into ``s``. shape: (channels, height, width) of an image."""
    normal, reduction = len(genotype.normal), len(genotype.reduce)

    def inner(name: str, place: Place, size: Size) -> Size:
        return _cell(s, name, place, genotype.reduce if place.reduces else genotype.normal, size)

    return _network(s, places(channels, cells, normal, reduction), shape, classes, (normal, reduction), inner, True)


def draw_search(
    s: SpecBuilder, channels: int, cells: int, shape: Sequence[int], classes: int, nodes: int, operations: Sequence[str]
) -> SpecBuilder:
    """Draw the network that has every operation on every edge. Its norms have no parameters, but the stem's."""

    def inner(name: str, place: Place, size: Size) -> Size:
        out = pooled(size, 3, 2, 1) if place.reduces else size
        for edge in range(edges(nodes)):
            read, stride = (size, 2 if place.reduces else 1) if source(edge) < INPUTS else (out, 1)
            for column, operation in enumerate(operations):
                _operation(s, f"{name}.edges.{edge}.{column}", operation, place.channels, read, stride, False)
        return out

    return _network(s, places(channels, cells, nodes, nodes), shape, classes, (nodes, nodes), inner, False)


def source(edge: int) -> int:
    """Return the state that edge number ``edge`` of a search comes from; they go node by node, and of a node state by state."""
    states = INPUTS
    while edge >= states:
        edge, states = edge - states, states + 1
    return edge


def _network(
    s: SpecBuilder, cells: Sequence[Place], shape: Sequence[int], classes: int, nodes: tuple[int, int],
    inner: Callable[[str, Place, Size], Size], affine: bool,
) -> SpecBuilder:  # fmt: skip
    """A stem, cells, a classifier. inner: draws the operations of a cell, and returns its size."""
    colours, *size = shape
    first = cells[0].last
    at = before = s.conv("stem", first, colours, 3, size)
    s.norm(first)
    width = first
    for number, place in enumerate(cells):
        name = f"cells.{number}"
        if place.halved:
            before = _halving(s, f"{name}.pre0", place.channels, place.before, before, affine)
        else:
            s.conv(f"{name}.pre0.conv", place.channels, place.before, 1, before)
            s.norm(place.channels * affine)
        s.conv(f"{name}.pre1.conv", place.channels, place.last, 1, at)
        s.norm(place.channels * affine)
        before, at = at, inner(name, place, at)
        width = width_of(place, *nodes)
    s.linear("classifier", classes, width)
    return s


def _cell(s: SpecBuilder, name: str, place: Place, nodes: Nodes, size: Size) -> Size:
    sizes = [size, size]
    for number, node in enumerate(nodes):
        out = size
        for side, (operation, state) in enumerate(node):
            stride = 2 if place.reduces and state < INPUTS else 1
            path = f"{name}.edges.{INPUTS * number + side}"
            out = _operation(s, path, operation, place.channels, sizes[state], stride, True)
        sizes.append(out)
    return sizes[-1]


def _operation(s: SpecBuilder, name: str, operation: str, channels: int, size: Size, stride: int, affine: bool) -> Size:
    if operation in POOLS or operation == NONE:
        return pooled(size, 3, stride, 1)
    if operation == SKIP:
        return size if stride == 1 else _halving(s, name, channels, channels, size, affine)
    kernel = KERNELS[operation]
    for turn in range(kernel.repeats):
        size = s.conv(
            f"{name}.depthwise{turn}", channels, 1, kernel.size, size, stride if turn == 0 else 1, kernel.padding,
            groups=channels, dilation=kernel.dilation,
        )  # fmt: skip
        s.conv(f"{name}.pointwise{turn}", channels, channels, 1, size)
        s.norm(channels * affine)
    return size


def _halving(s: SpecBuilder, name: str, outputs: int, inputs: int, size: Size, affine: bool) -> Size:
    """Two 1x1 convolutions of every second pixel; the second one begins a pixel later."""
    half = s.conv(f"{name}.even", outputs // 2, inputs, 1, size, stride=2)
    s.conv(f"{name}.odd", outputs - outputs // 2, inputs, 1, (size[0] - 1, size[1] - 1), stride=2)
    s.norm(outputs * affine)
    return half
