"""Visual prompting: a learned border around what a frozen network reads, whose classes are reused [no torch at import]."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.data_types import Classes, Images
from sparselab.core.errors import Issue, Issues
from sparselab.core.options import Options
from sparselab.training.adapts.adapt import ADAPTS, Adapt

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn

    from sparselab.core.data_spec import DataSpec
    from sparselab.inputs.data.dataset import Dataset
    from sparselab.training.adapts.torch_side.adapter import Adapter, Adapting

PROMPT, MAPPING = "prompt", "label_mapping"
"""Names of what is put around the network."""


@ADAPTS.register("visual_prompt")
class VisualPrompt(Adapt):
    """A learned border around the images of a frozen classifier (Chen et al. 2023, arXiv 2211.11635; arXiv 2308.14969).

    x' = pad(x) + sigmoid(delta) B, in pixels from 0 to 1, where B is 1 on the border and 0 on the image; then x' is normalised.
    delta alone trains. Each target class is read from one class of the network, no two from the same (``mapping``):
    ``ilm`` counts anew every ``interval`` epochs how often the network takes examples of a target class for each of its own,
    and takes the largest counts first; ``flm`` counts once, before training; ``rlm`` draws.
    """

    puts = (PROMPT, MAPPING)

    class Options(Options):
        canvas: int = Field(ge=2, description="side of the images that the given network reads, in pixels")
        classes: int = Field(ge=2, description="classes of the given network, at least as many as the data have")
        init: Literal["zero", "normal"] = Field(description="zero (a grey border) or normal: where delta starts")
        mapping: Literal["ilm", "flm", "rlm"] = Field(
            description="ilm (counted again and again), flm (counted once) or rlm (at random)"
        )
        interval: int = Field(ge=1, description="for ilm: epochs between two counts, at least 1")

    options: Options

    def issues(self, data: DataSpec, dataset: Dataset) -> list[Issue]:
        if data.pair != (Images, Classes):
            problem = f"is for images → classes, and dataset {data.name} is not"
            return [Issue(f"adapt={self.name}", problem, "leave it out")]
        found, canvas = Issues(), self.options.canvas
        height, width = data.shape[1:]
        if max(height, width) > canvas:
            problem = f"images of {height}x{width} pixels are larger"
            fix = f"write adapt.canvas={max(height, width) + 2} or more, or make them smaller (dataset.resize)"
            found.add(f"adapt.canvas={canvas}", problem, fix)
        elif min(height, width) == canvas:
            problem = f"images of {height}x{width} pixels leave no border to learn"
            found.add(f"adapt.canvas={canvas}", problem, "make them smaller (dataset.resize)")
        if self.options.classes < data.classes:
            problem = f"{data.name} has {data.classes} classes, and each needs one of the network's own"
            found.add(
                f"adapt.classes={self.options.classes}", problem, "give a network of more classes, or a linear probe"
            )
        if self.options.interval > 1 and self.options.mapping != "ilm":
            problem = f"adapt.mapping={self.options.mapping} is not counted again"
            found.add(f"adapt.interval={self.options.interval}", problem, "leave it out, or write adapt.mapping=ilm")
        return found.found

    def network_sees(self, data: DataSpec) -> DataSpec:
        side = self.options.canvas
        return replace(data, inputs=Images(data.shape[0], side, side), targets=Classes(self.options.classes))

    def passes(self, updates: int, batch: int, train: int) -> int:
        return 2 * updates * batch + self.counts(updates, train // batch) * train

    def counts(self, updates: int, per_epoch: int) -> int:
        """How often the mapping is counted in a run of ``updates`` updates."""
        if self.options.mapping != "ilm":
            return int(self.options.mapping == "flm")
        return max(1, -(-updates // (per_epoch * self.options.interval)))

    def trains(self, name: str, head: Collection[str]) -> bool:
        return name == f"{PROMPT}.delta"

    def attach(self, network: nn.Module, data: DataSpec, loaded: Any) -> None:
        from sparselab.training.adapts.torch_side.prompt import attach

        attach(network, data, self.options, loaded.mean, loaded.std)

    def adapter(self, adapting: Adapting) -> Adapter:
        from sparselab.training.adapts.torch_side.prompt import Prompting

        return Prompting(adapting, self.options)
