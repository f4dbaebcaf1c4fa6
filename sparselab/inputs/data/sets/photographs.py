"""Photographs to restore: with noise that is added, or that a camera made [no torch at import]."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Images
from sparselab.core.errors import refuse
from sparselab.core.options import Options
from sparselab.inputs.data import files, subset
from sparselab.inputs.data.dataset import DATASETS, Dataset
from sparselab.inputs.data.pictures import eight_bits, undecodable
from sparselab.inputs.data.sets.images import ImageOptions, counts

if TYPE_CHECKING:
    from sparselab.inputs.data.patches import ImagePairs, PairSplits

Paths = list[tuple[Path, Path]]  # of what is given and what is wanted


class PhotographOptions(ImageOptions):
    """Options of every set of photographs."""

    defaults_from: ClassVar[str] = "dataset/_photographs"

    val: int = Field(ge=0, description="images taken from train for validation; the draw is fixed")
    limit_train: int | None = Field(ge=1, description="images of train to use; null for all")
    limit_test: int | None = Field(ge=1, description="images of test to use; null for all")
    patch: int = Field(ge=8, description="side of a training patch in pixels, at least 8")
    patches: int = Field(ge=1, description="patches of each image in an epoch, at least 1")


class PhotographSet(Dataset):
    """Pairs of photographs, local only. Subclasses say where they lie and how large they are."""

    task = "image_to_image"
    Options: ClassVar[type[Options]] = PhotographOptions
    options: PhotographOptions
    channels: ClassVar[int]
    smallest: ClassVar[int]  # side of the training images in pixels
    layout: ClassVar[str]
    sigma: float = 0.0
    """Standard deviation of the noise that is added, of 255."""

    @abstractmethod
    def pairs(self) -> tuple[Paths, Paths]:
        """Train (validation included) and test, in a fixed order; ConfigError if they are not there."""

    @property
    def title(self) -> str:
        return self.name

    def found(self, folder: str, pattern: str) -> list[Path]:
        """The files of a folder of local copies, sorted; ConfigError where there are none."""
        place = self.local(folder)
        paths = sorted(place.glob(pattern)) if place else []
        if not paths:
            refuse(self.where, "no local copy", f"put {self.layout} in data_dir")
        return paths

    def spec(self) -> DataSpec:
        o, (train, test) = self.options, self.pairs()
        if o.patch > self.smallest:
            refuse(f"dataset.patch={o.patch}", f"is wider than an image of {self.smallest} pixels", "write 40")
        sizes = counts(self.name, o, len(train), len(test))
        paths = list(dict.fromkeys(path for pair in (*train, *test) for path in pair))
        shape = Images(self.channels, o.patch, o.patch)
        return DataSpec(
            name=self.name,
            inputs=shape,
            targets=shape,
            train=sizes[0] * o.patches,
            val=sizes[1],
            test=sizes[2],
            fingerprint=files.content_hash(paths),
            source="local",
            path=str(paths[0].parent),
            title=self.title,
        )

    def load(self) -> PairSplits:
        from sparselab.inputs.data.patches import PairSplits

        o, (train, test) = self.options, self.pairs()
        counts(self.name, o, len(train), len(test))
        alike = np.zeros(len(train), np.int64)  # one class: what is drawn is a plain draw
        val = subset.balanced(alike, o.val, "val")
        rest = subset.without(np.arange(len(train)), val)
        if o.limit_train is not None:
            rest = rest[subset.balanced(alike[rest], o.limit_train, "limit_train")]
        scored = np.arange(len(test))[: o.limit_test]
        if o.test_draw and o.limit_test is not None:
            scored = subset.balanced(np.zeros(len(test), np.int64), o.limit_test, f"limit_test {o.test_draw}")
        at = {"train": rest, "val": val, "test": scored}
        paths = {part: [(test if part == "test" else train)[i] for i in rows] for part, rows in at.items()}
        digests = {part: subset.digest(rows) for part, rows in at.items()}
        return PairSplits(
            {part: self._read(own) for part, own in paths.items()}, o.patch, o.patches, self.sigma, digests
        )

    def _read(self, paths: Paths) -> ImagePairs:
        import torch

        from sparselab.inputs.data.patches import ImagePairs

        wanted = self._stack([path for _, path in paths])
        given = wanted if all(a == b for a, b in paths) else self._stack([path for path, _ in paths])
        return ImagePairs(torch.from_numpy(given), torch.from_numpy(wanted))

    def _stack(self, paths: list[Path]) -> np.ndarray:
        """(n, c, h, w) uint8; those that stand upright are laid on their side, so that all are of one size."""
        from PIL import Image

        made = []
        for path in paths:
            try:
                with Image.open(path) as picture:
                    pixels = np.asarray(eight_bits(picture, "RGB" if self.channels == 3 else "L"))
            except undecodable():
                refuse(self.where, f"{files.short(path)} cannot be decoded", "copy the file again")
            pixels = pixels.reshape(*pixels.shape[:2], self.channels)
            made.append(np.rot90(pixels) if pixels.shape[0] > pixels.shape[1] else pixels)
            if made[-1].shape != made[0].shape:
                refuse(self.where, f"{files.short(path)} is of another size than the first", "copy the files again")
        if not made:
            return np.empty((0, self.channels, self.smallest, self.smallest), np.uint8)
        return np.ascontiguousarray(np.stack(made).transpose(0, 3, 1, 2))


class BSDOptions(PhotographOptions):
    """Options of photographs to which noise is added."""

    noise: float = Field(gt=0, description="standard deviation of Gaussian noise, of 255, above 0")


@DATASETS.register("bsd400")
class BSD400(PhotographSet):
    """Grey photographs of the Berkeley segmentation set with Gaussian noise: 400 of 180x180 train, 68 of 481x321 test.

    The split of Zhang et al. 2017 (arXiv 1608.03981, section IV-A). Local: ``denoise/bsd400/*.png``, ``denoise/bsd68/*.png``.
    """

    Options = BSDOptions
    options: BSDOptions
    channels = 1
    smallest = 180
    layout = "denoise/{bsd400,bsd68}/*.png"

    @property
    def sigma(self) -> float:  # type: ignore[override]
        return self.options.noise

    @property
    def title(self) -> str:
        return f"{self.name}-sigma{self.options.noise:g}"

    def pairs(self) -> tuple[Paths, Paths]:
        train, test = (self.found(f"denoise/{name}", "*.png") for name in ("bsd400", "bsd68"))
        return [(path, path) for path in train], [(path, path) for path in test]


@DATASETS.register("polyu")
class PolyU(PhotographSet):
    """Noise of five cameras: one exposure beside the mean of many (Xu et al. 2018, arXiv 1804.02603), 100 crops of 512x512.

    Local: ``denoise/polyu/*_{real,mean}.JPG``. All crops of a scene are on one side: every fourth scene tests.
    """

    channels = 3
    smallest = 512
    layout = "denoise/polyu/*_{real,mean}.JPG"

    def pairs(self) -> tuple[Paths, Paths]:
        scenes: dict[str, Paths] = {}
        for wanted in self.found("denoise/polyu", "*_mean.JPG"):
            given = wanted.with_name(wanted.name.replace("_mean.", "_real."))
            if not given.exists():
                refuse(self.where, f"{files.short(given)} is missing", f"copy {self.layout} again")
            scenes.setdefault(wanted.name.rsplit("_", 2)[0].rstrip("_"), []).append((given, wanted))
        parts: tuple[Paths, Paths] = ([], [])
        for place, own in enumerate(scenes.values()):
            parts[place % 4 == 3].extend(own)
        return parts
