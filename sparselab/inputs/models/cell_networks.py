"""Networks of stacked cells: with the operations of a genotype, or with all of them on every edge. Imports torch.

The arithmetic is that of quark0/darts (Liu et al. 2019, arXiv 1806.09055), which hamidmousavi0/PR-DARTS shares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

from sparselab.inputs.models.cells import KERNELS, POOLS, Place, places, source, width_of
from sparselab.inputs.models.genotype import INPUTS, NONE, SKIP, Genotype, Nodes, derived, edges

START = 1e-3
"""Standard deviation of the weights of operations before a search."""


class Plain(nn.Module):
    """ReLU, a 1x1 convolution, batch normalisation: (n, inputs, h, w) -> (n, outputs, h, w)."""

    def __init__(self, inputs: int, outputs: int, affine: bool):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.relu()))


class Halving(nn.Module):
    """(n, inputs, h, w) -> (n, outputs, h/2, w/2): half of the channels from even pixels, half from odd ones."""

    def __init__(self, inputs: int, outputs: int, affine: bool):
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], 1))


class Separable(nn.Module):
    """ReLU, a depthwise and a 1x1 convolution, batch normalisation; once or twice, the stride in the first turn."""

    def __init__(self, operation: str, channels: int, stride: int, affine: bool):
        super().__init__()
        kernel = KERNELS[operation]
        self.turns = kernel.repeats
        for turn in range(self.turns):
            step = stride if turn == 0 else 1
            setattr(self, f"depthwise{turn}", nn.Conv2d(
                channels, channels, kernel.size, step, kernel.padding, kernel.dilation, channels, bias=False
            ))  # fmt: skip
            setattr(self, f"pointwise{turn}", nn.Conv2d(channels, channels, 1, bias=False))
            setattr(self, f"norm{turn}", nn.BatchNorm2d(channels, affine=affine))

    def forward(self, x: Tensor) -> Tensor:
        for turn in range(self.turns):
            x = getattr(self, f"depthwise{turn}")(x.relu())
            x = getattr(self, f"norm{turn}")(getattr(self, f"pointwise{turn}")(x))
        return x


def operation_of(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """A module for (n, channels, h, w) -> (n, channels, h/stride, w/stride). Not for ``none``."""
    if name in POOLS:
        if name == POOLS[0]:
            return nn.MaxPool2d(3, stride, padding=1)
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    if name == SKIP:
        return nn.Identity() if stride == 1 else Halving(channels, channels, affine)
    return Separable(name, channels, stride, affine)


class Cell(nn.Module):
    """States 0 and 1, brought to the cell's width, then nodes. Subclasses say what a node adds."""

    def __init__(self, place: Place, affine: bool):
        super().__init__()
        before = Halving if place.halved else Plain
        self.pre0 = before(place.before, place.channels, affine)
        self.pre1 = Plain(place.last, place.channels, affine)


class FixedCell(Cell):
    """A cell of a genotype: ``edges`` has the operations, two for each node."""

    def __init__(self, place: Place, nodes: Nodes):
        super().__init__(place, affine=True)
        flat = [edge for node in nodes for edge in node]
        self.states = [state for _, state in flat]
        self.edges = nn.ModuleList(
            operation_of(name, place.channels, 2 if place.reduces and state < INPUTS else 1, affine=True)
            for name, state in flat
        )

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        states = [self.pre0(before), self.pre1(last)]
        for number in range(0, len(self.states), INPUTS):
            one, other = (self.edges[number + side](states[self.states[number + side]]) for side in range(INPUTS))
            states.append(one + other)
        return torch.cat(states[INPUTS:], 1)


class MixedEdge(nn.ModuleList):
    """All operations of an edge but ``none``, which adds nothing; a pooling has a batch normalisation behind it."""

    def __init__(self, channels: int, stride: int, operations: Sequence[str]):
        super().__init__(
            nn.Identity() if name == NONE else self._one(name, channels, stride) for name in operations
        )  # a place for each column
        self.counted = [column for column, name in enumerate(operations) if name != NONE]

    @staticmethod
    def _one(name: str, channels: int, stride: int) -> nn.Module:
        operation = operation_of(name, channels, stride, affine=False)
        return nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False)) if name in POOLS else operation

    def mix(self, x: Tensor, shares: Tensor) -> Tensor:
        """Weigh the operations.

        Args:
            x: (n, channels, h, w)
            shares: (operations,) of a softmax

        Returns:
            (n, channels, h/stride, w/stride).
        """
        first, *rest = self.counted
        total = shares[first] * self[first](x)
        for column in rest:
            total = total + shares[column] * self[column](x)
        return total


class MixedCell(Cell):
    """A cell with every operation on every edge; each node adds all states before it."""

    def __init__(self, place: Place, nodes: int, operations: Sequence[str]):
        super().__init__(place, affine=False)
        self.reduces = place.reduces
        self.nodes = nodes
        self.edges = nn.ModuleList(
            MixedEdge(place.channels, 2 if place.reduces and source(edge) < INPUTS else 1, operations)
            for edge in range(edges(nodes))
        )

    def forward(self, before: Tensor, last: Tensor, shares: Tensor) -> Tensor:
        states = [self.pre0(before), self.pre1(last)]
        edge = 0
        for _ in range(self.nodes):
            node = self.edges[edge].mix(states[0], shares[edge])  # type: ignore[operator]
            for offset in range(1, len(states)):
                node = node + self.edges[edge + offset].mix(states[offset], shares[edge + offset])  # type: ignore[operator]
            edge += len(states)
            states.append(node)
        return torch.cat(states[INPUTS:], 1)


class CellNetwork(nn.Module):
    """(n, colours, h, w) -> (n, classes): the cells of a genotype, a mean over places, a linear layer."""

    def __init__(self, genotype: Genotype, channels: int, cells: int, colours: int, classes: int):
        super().__init__()
        nodes = len(genotype.normal), len(genotype.reduce)
        there = places(channels, cells, *nodes)
        self.stem = nn.Conv2d(colours, there[0].last, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(there[0].last)
        self.cells = nn.ModuleList(
            FixedCell(place, genotype.reduce if place.reduces else genotype.normal) for place in there
        )
        self.classifier = nn.Linear(width_of(there[-1], *nodes), classes)

    def forward(self, x: Tensor) -> Tensor:
        before = last = self.stem_norm(self.stem(x))
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.classifier(last.mean((2, 3)))


class SearchNetwork(nn.Module):
    """(n, colours, h, w) -> (n, classes): all operations on all edges, weighed by two tables that all cells share.

    ``choices_normal`` and ``choices_reduce``, (edges, operations), are buffers: no optimiser of the weights moves them, and
    whoever loads or exports the network has them.
    """

    choices_normal: Tensor
    choices_reduce: Tensor

    def __init__(
        self, channels: int, cells: int, nodes: int, operations: Sequence[str], colours: int, classes: int
    ) -> None:
        super().__init__()
        there = places(channels, cells, nodes, nodes)
        self.operations = tuple(operations)
        self.stem = nn.Conv2d(colours, there[0].last, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(there[0].last)
        self.cells = nn.ModuleList(MixedCell(place, nodes, operations) for place in there)
        self.classifier = nn.Linear(width_of(there[-1], nodes, nodes), classes)
        for name in ("choices_normal", "choices_reduce"):
            self.register_buffer(name, START * torch.randn(edges(nodes), len(operations)))

    def forward(self, x: Tensor) -> Tensor:
        normal, reduction = softmax(self.choices_normal, -1), softmax(self.choices_reduce, -1)
        before = last = self.stem_norm(self.stem(x))
        for cell in self.cells:
            before, last = last, cell(before, last, reduction if cell.reduces else normal)
        return self.classifier(last.mean((2, 3)))

    def genotype(self) -> Genotype:
        """The cells that the weights of operations favour."""
        normal, reduction = (table.detach().double().tolist() for table in (self.choices_normal, self.choices_reduce))
        return derived(normal, reduction, self.operations)
