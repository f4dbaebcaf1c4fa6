"""Networks of searched cells: the one that a search trains, and those of a genotype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import Issue, Issues
from sparselab.inputs.models.cells import REDUCTIONS, draw, draw_search
from sparselab.inputs.models.family import MODELS, ImageFamily
from sparselab.inputs.models.genotype import Genotype, check_nodes, check_operations, is_path, read
from sparselab.inputs.models.spec_builder import SpecBuilder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sparselab.core.model_spec import ModelSpec


class Cells(ImageFamily):
    """Base: a stem, then cells, of which two halve height and width, a mean over places and a linear classifier."""

    trunk = ("cells",)
    batch_norm = True

    class Options(ImageFamily.Options):
        channels: int = Field(ge=2, description="channels of a node in the first cells, at least 2")
        cells: int = Field(ge=1, le=200, description="cells, 1 to 200")

    options: Options

    def misfits(self, data: DataSpec) -> list[Issue]:
        issues = super().misfits(data)
        step = 2**REDUCTIONS
        if any(side % step or side < step for side in data.shape[1:]):
            problem = f"halves {data.name}'s {data.shape[1]}x{data.shape[2]} pixels twice"
            issues.append(Issue(f"model={self.name}", problem, f"take images whose sides are multiples of {step}"))
        return issues


@MODELS.register("darts_search")
class DartsSearch(Cells):
    """Every operation on every edge of a cell, weighed by softmaxes that a search moves (arXiv 1806.09055, section 2.2)."""

    searched = True

    class Options(Cells.Options):
        nodes: int = Field(description="nodes of a cell, at least 2")
        ops: list[str] = Field(description="operations, such as [none, skip_connect, sep_conv_3x3]")

    options: Options

    def misfits(self, data: DataSpec) -> list[Issue]:
        found = Issues(super().misfits(data))
        with found.collect():
            check_nodes(self.options.nodes, "model.nodes")
        with found.collect():
            check_operations(self.options.ops, "model.ops")
        return found.found

    def builder(self, data: DataSpec) -> SpecBuilder:
        o = self.options
        return draw_search(SpecBuilder(), o.channels, o.cells, data.shape, data.classes, o.nodes, o.ops)

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.cell_networks import SearchNetwork

        o = self.options
        return SearchNetwork(o.channels, o.cells, o.nodes, o.ops, data.shape[0], data.classes)

    def choices(self, model: nn.Module) -> dict[str, Tensor]:
        return {name: getattr(model, name) for name in ("choices_normal", "choices_reduce")}

    def genotype(self, model: nn.Module) -> Genotype | None:
        return model.genotype()  # type: ignore[operator]


@MODELS.register("darts")
class Darts(Cells):
    """The cells of a genotype. Released ones go by name, those of a search by its cell, its run or a file."""

    shaped_by: ClassVar[frozenset[str]] = frozenset({"genotype"})

    class Options(Cells.Options):
        genotype: str | dict[str, Any] = Field(
            description="a released cell, a genotype.json, {cell: {…}}, {random: 0, nodes: 4, ops: […]}, or the cells"
        )

    options: Options

    def files(self) -> dict[str, list[str]]:
        genotype = self.options.genotype
        return {
            **super().files(),
            **({"genotype": [genotype]} if isinstance(genotype, str) and is_path(genotype) else {}),
        }

    def misfits(self, data: DataSpec) -> list[Issue]:
        found = Issues(super().misfits(data))
        with found.collect():
            self.cells_of()
        return found.found

    def cells_of(self) -> Genotype:
        """The genotype that the options say. Raises ConfigError."""
        return read(self.options.genotype, "model.genotype")

    def builder(self, data: DataSpec) -> SpecBuilder:
        o = self.options
        return draw(SpecBuilder(), o.channels, o.cells, data.shape, data.classes, self.cells_of())

    def traced_spec(self, data: DataSpec) -> ModelSpec | None:
        return None  # a genotype that another cell has yet to find

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.cell_networks import CellNetwork

        o = self.options
        return CellNetwork(self.cells_of(), o.channels, o.cells, data.shape[0], data.classes)

    def genotype(self, model: nn.Module) -> Genotype | None:
        return self.cells_of()
