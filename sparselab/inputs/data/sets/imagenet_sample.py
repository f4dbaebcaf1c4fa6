"""One picture of each class of ImageNet, for scores of networks that somebody else trained [no torch at import]."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from sparselab.core.errors import refuse
from sparselab.inputs.data import files
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.sets.arrays import ArrayOptions, Pair, PublicSet, Source
from sparselab.inputs.data.sets.images import IMAGENET

EVERY = 10
"""Of so many pictures one is for training (a method that looks at inputs reads these), the others are scored."""


class SampleOptions(ArrayOptions):
    """Further options."""

    normalise: Literal["half", "imagenet"] = Field(  # type: ignore[assignment]  # no statistics of so few pictures
        description="half: pixels from -1 to 1, as networks of TensorFlow see them; or imagenet"
    )


@DATASETS.register("imagenet_1000")
class ImagenetSample(PublicSet):
    """A training picture of each of ImageNet's 1,000 classes at 224x224, a local copy only: ``imagenet_1000/train.parquet``.

    Networks were trained on these pictures, so scores flatter, and drops from one network to another are what they tell.
    Every tenth picture, from the first, is training's; the 900 others are the test split.
    """

    Options = SampleOptions
    options: SampleOptions
    shape = (3, 224, 224)
    classes = 1000
    sizes = {"train": 100, "test": 900}

    def source(self) -> Source:
        folder = self.local(self.name)
        if folder is None:
            problem, fix = "has no local copy, and no public name", f"put {self._layout} into the folder of data_dir="
            refuse(self.where, problem, fix)
        paths = self._shards(folder, "train")
        for path in paths:
            files.check_parquet(path, self.where)
        return Source("local", files.content_hash(paths), folder)

    def arrays(self, source: Source) -> tuple[Pair, Pair]:
        images, labels = self._part(source, "train")  # in the order of the classes
        train = np.arange(len(labels)) % EVERY == 0
        return (images[train], labels[train]), (images[~train], labels[~train])

    def statistics(self, pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self._normalised(pixels)

    def _normalised(self, train: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return {"half": ((0.5,) * 3, (0.5,) * 3), "imagenet": IMAGENET}[self.options.normalise]

    @property
    def _layout(self) -> str:
        return f"{self.name}/train.parquet"

    def _drawn_by(self, labels: np.ndarray) -> np.ndarray:
        # All one class: where each has one picture, taking turns would always take those of the first classes.
        return np.zeros_like(labels)

    def _held(self, part: str) -> int:
        return sum(self.sizes.values())
