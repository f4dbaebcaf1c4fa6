"""Linear probing: a new head on the features of a frozen network [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.data_types import Classes
from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.training.adapts.adapt import ADAPTS, Adapt

if TYPE_CHECKING:
    from collections.abc import Collection

    from sparselab.core.data_spec import DataSpec
    from sparselab.inputs.data.dataset import Dataset
    from sparselab.training.adapts.torch_side.adapter import Adapter, Adapting


@ADAPTS.register("linear_probe")
class LinearProbe(Adapt):
    """The head of the given weights is left out, another one starts at random, and it alone trains (arXiv 2308.14969).

    With ``cache`` the features that the head reads are computed once, and updates cost next to nothing.
    """

    fresh_head = True

    class Options(Options):
        cache: bool = Field(description="true: features of the training examples are computed once, and kept")

    options: Options

    def issues(self, data: DataSpec, dataset: Dataset) -> list[Issue]:
        where = f"adapt={self.name}"
        if not isinstance(data.targets, Classes):
            return [Issue(where, f"is for classes, and dataset {data.name} has {data.targets.noun}", "leave it out")]
        if self.options.cache and dataset.augments:
            problem = "features are kept, and dataset.augment changes the examples"
            return [Issue("adapt.cache=true", problem, "write dataset.augment={} or adapt.cache=false")]
        return []

    def passes(self, updates: int, batch: int, train: int) -> int:
        return train if self.options.cache else updates * batch

    def trains(self, name: str, head: Collection[str]) -> bool:
        return name in head

    def adapter(self, adapting: Adapting) -> Adapter:
        from sparselab.training.adapts.torch_side.adapter import Adapter
        from sparselab.training.adapts.torch_side.features import OnFeatures

        return OnFeatures(adapting) if self.options.cache else Adapter(adapting)
