"""A proximal step after each of the optimiser's: groups of weights shrink together, and some become exactly zero [no torch].

An option of every optimiser, ``optim.prox={name: wgsef, weight: 1e-3, keep: 0.5}``, whatever the method and its pattern.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from sparselab.core import options as spec_options
from sparselab.core.errors import ConfigError, Issue, did_you_mean, refuse
from sparselab.core.options import validate
from sparselab.core.registry import Registry
from sparselab.weights.patterns.layout import matrix
from sparselab.weights.targets import matching

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sparselab.core.model_spec import Layer

WHERE = "optim.prox"
GROUPS = ("filter", "channel", "filter_shape", "layer", "weight")


@dataclass
class Blocks:
    """The groups of one selection, as equal rectangles of weights seen as matrices (outputs, inputs).

    name: for messages. level: groups that may stay. parts: each weight with its layer and the size of a rectangle.
    """

    name: str
    level: int
    parts: list[tuple[Layer, tuple[int, int]]]
    weights: list[nn.Parameter] = field(default_factory=list)
    before: list[Tensor] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(layer.numel // (rows * columns) for layer, (rows, columns) in self.parts)

    @property
    def sizes(self) -> list[int]:
        """Weights of a group, for each of ``parts``."""
        return [rows * columns for _, (rows, columns) in self.parts]


class Prox:
    """The base: which weights, in which groups, how many may stay, and when. A member says what happens to their norms.

    Weights are those that the cell's targets name, of a dense cell too, so that biases and norms are never touched and the
    head is where ``targets.exclude`` does not name it.
    """

    class Options(spec_options.Options):
        weight: float = Field(1e-3, ge=0, description="lambda; the step's parameter is the learning rate times it")
        groups: str = Field("filter", description=f"{', '.join(GROUPS)}, or rectangles such as block:4x1")
        keep: float = Field(
            1.0, gt=0, le=1, description="fraction of a layer's groups that may stay (at least one does), in (0, 1]"
        )
        levels: dict[str, Annotated[int, Field(ge=1)]] = Field(
            {}, description="numbers of groups in place of it, by selectors of layers: {convs.0: 8}"
        )
        every: int = Field(1, ge=1, description="updates from one step to the next, at least 1")
        until: float = Field(1.0, gt=0, le=1, description="fraction of the run after which there is none, in (0, 1]")
        revive: bool = Field(True, description="false: a group that is zero stays zero, whatever its gradient")
        half_space: float | None = Field(
            None, ge=0, lt=1, description="fraction of the run from which half-space steps follow, or null: none"
        )
        half_space_eps: float = Field(0.0, ge=0, lt=1, description="eps of the half-space steps, in [0, 1)")

        @field_validator("groups")
        @classmethod
        def _known(cls, groups: str) -> str:
            if groups not in GROUPS and not re.fullmatch(r"block:[1-9]\d*x[1-9]\d*", groups):
                raise ValueError("are no groups")
            return groups

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1  # raise it when the rule changes: from 2 on it is part of a cell's id
    options: Options

    def __init__(self, options: Any):
        self.options = options
        self.blocks: list[Blocks] = []

    # -- planning ---------------------------------------------------------------------------------------------------

    def issues(self, layers: Sequence[Layer]) -> list[Issue]:
        """Return issues of the layers: groups that do not tile one, more groups to keep than there are."""
        o, found = self.options, []
        if not layers:
            return [Issue(WHERE, "no weight is a target", "choose layers (targets.include)")]
        for layer in layers:
            (outputs, inputs), (rows, columns) = matrix(layer.kind, layer.shape), self.tile(layer)
            if outputs % rows or inputs % columns:
                problem = f"{layer.name} is {outputs} outputs x {inputs} inputs, not a whole number of {rows}x{columns}"
                found.append(
                    Issue(f"{WHERE}.groups={o.groups}", problem, "exclude it (targets.exclude), or choose others")
                )
                break
            if layer.groups > 1 and layer.kind == "conv" and (rows, columns) == (outputs, inputs // layer.inputs):
                problem = f"{layer.name} is a convolution in {layer.groups} groups, each with input channels of its own"
                found.append(
                    Issue(f"{WHERE}.groups={o.groups}", problem, "exclude it (targets.exclude), or write filter")
                )
                break
        for selector in o.levels:
            try:
                matching(layers, selector, f"{WHERE}.levels")
            except ConfigError as error:
                found += error.issues
        for blocks in [] if found else self.divided(layers):
            if blocks.level > blocks.count:
                problem = f"{blocks.name} has {blocks.count} groups"
                found.append(Issue(f"{WHERE}.levels: {blocks.level}", problem, f"write at most {blocks.count}"))
                break
        return found

    def tile(self, layer: Layer) -> tuple[int, int]:
        """(rows, columns) of a group in the layer's matrix (outputs, inputs)."""
        outputs, inputs = matrix(layer.kind, layer.shape)
        kernel = inputs // layer.inputs if layer.kind == "conv" else 1
        named = {
            "filter": (1, inputs),
            "channel": (outputs, kernel),
            "filter_shape": (outputs, 1),
            "layer": (outputs, inputs),
            "weight": (1, 1),
        }
        if self.options.groups in named:
            return named[self.options.groups]
        rows, columns = self.options.groups.removeprefix("block:").split("x")
        return int(rows), int(columns)

    def divided(self, layers: Sequence[Layer]) -> list[Blocks]:
        """Each layer with its level; where whole layers are the groups, all of them together."""
        tiled = [(layer, self.tile(layer)) for layer in layers]
        if self.options.groups == "layer":
            return [self._levelled(Blocks("the network", 1, tiled))]
        return [self._levelled(Blocks(layer.name, 1, [(layer, tile)])) for layer, tile in tiled]

    def _levelled(self, blocks: Blocks) -> Blocks:
        blocks.level = max(1, round(self.options.keep * blocks.count))
        for selector, level in self.options.levels.items():
            if any(_names(selector, layer) for layer, _ in blocks.parts):
                blocks.level = level
                break
        return blocks

    # -- running ----------------------------------------------------------------------------------------------------

    def attach(self, weights: Mapping[Layer, nn.Parameter]) -> None:
        """The weights that it works on from now."""
        self.blocks = self.divided(list(weights))
        for blocks in self.blocks:
            blocks.weights = [weights[layer] for layer, _ in blocks.parts]

    def before(self, step: int, total: int) -> None:
        """Before the optimiser's step number ``step`` (from 1) of ``total``: what zeros and half-spaces look back to."""
        look = self._halves(step, total) or not self.options.revive
        for blocks in self.blocks:
            blocks.before = [weight.data.clone() for weight in blocks.weights] if look else []

    def after(self, rate: float, step: int, total: int) -> None:
        """After the optimiser's step. rate: its learning rate."""
        import torch

        from sparselab.training.optim.torch_side import groups

        due = step % self.options.every == 0 and step <= self.options.until * total
        with torch.no_grad():
            for blocks in self.blocks:
                if blocks.before:  # first: what must not return takes no part in what follows
                    groups.scale(blocks, groups.there_before(blocks))
                if due:
                    sizes = groups.norms(blocks)
                    weights = groups.group_sizes(blocks, sizes)
                    groups.scale(blocks, self.factors(sizes, rate * self.options.weight, blocks, weights))
                if self._halves(step, total):
                    groups.scale(blocks, groups.in_half_space(blocks, self.options.half_space_eps))

    def factors(self, sizes: Tensor, lam: float, blocks: Blocks, weights: Tensor) -> Tensor:
        """Return factors of the groups, (groups,).

        sizes: the groups' euclidean norms, float64. lam: learning rate times lambda. weights: how many weights each has.
        """
        raise NotImplementedError(f"{type(self).__name__} has no proximal step")

    def penalty(self, sizes: Tensor, blocks: Blocks, weights: Tensor) -> float:
        """Return the regulariser's value, without lambda. sizes: norms of the groups; weights: factors; (groups,) both."""
        return 0.0

    def measures(self) -> dict[str, float]:
        """Numbers about the finished weights, for the record's ``train.*`` metrics.

        ``groups_zero``: share of the groups that are zero. ``levels_met``: share of the layers in which exactly as many groups
        are left as may stay. ``group_norm``: mean norm of those that are left. ``penalty``: lambda times the regulariser.
        """
        from sparselab.training.optim.torch_side import groups

        total = alive = met = 0
        norm = penalty = 0.0
        for blocks in self.blocks:
            sizes = groups.norms(blocks)
            left = int((sizes > 0).sum())
            total, alive, met = total + len(sizes), alive + left, met + (left == blocks.level)
            norm += float(sizes.sum())
            penalty += self.options.weight * self.penalty(sizes, blocks, groups.group_sizes(blocks, sizes))
        return {
            "groups_zero": 1 - alive / total,
            "levels_met": met / len(self.blocks),
            "group_norm": norm / max(alive, 1),
            "penalty": penalty,
        }

    def _halves(self, step: int, total: int) -> bool:
        begin = self.options.half_space
        return begin is not None and step > begin * total


def _names(selector: str, layer: Layer) -> bool:
    return selector[1:] in layer.roles if selector.startswith("@") else fnmatchcase(layer.name, selector)


PROXES: Registry[Prox] = Registry("prox", "sparselab.training.optim.proxes")


def made(values: dict[str, Any] | None) -> Prox | None:
    """The step of ``optim.prox``, or None. Raises ConfigError."""
    if values is None:
        return None
    values = dict(values)
    name = values.pop("name", None)
    if not isinstance(name, str):
        refuse(WHERE, "has no name", did_you_mean("", PROXES))
    cls = PROXES[name]
    return cls(validate(cls.Options, values, WHERE))
