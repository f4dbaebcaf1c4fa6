"""Fashion-MNIST, as parquet or as the idx files in which it was published [no torch at import]."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from sparselab.core.errors import refuse
from sparselab.inputs.data import files
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.sets.arrays import Pair, PublicSet, Source

NAMES = {"train": "train", "test": "t10k"}
HEADS = {"images": 16, "labels": 8}  # bytes before the first value


@DATASETS.register("fashion_mnist")
class FashionMnist(PublicSet):
    """Fashion-MNIST (Xiao et al. 2017): 28x28 grey pictures of clothes, 10 classes of equal size.

    A local copy is ``fashion_mnist/{train,test}.parquet``, or the four published files ``train-images-idx3-ubyte`` …, packed
    with gzip or not.
    """

    shape = (1, 28, 28)
    classes = 10
    sizes = {"train": 60_000, "test": 10_000}
    balanced = True
    repo = "zalando-datasets/fashion_mnist"
    mean = (0.2860,)
    std = (0.3530,)

    def source(self) -> Source:
        folder = self.local(self.name)
        if folder is None or not self._idx(folder, "train", "images"):
            return super().source()
        paths = [self._idx(folder, part, what) for part in NAMES for what in HEADS]
        for path, (part, what) in zip(paths, [(part, what) for part in NAMES for what in HEADS], strict=True):
            if path is None:
                refuse(self.where, f"{files.short(folder)} lacks {NAMES[part]}-{what}-idx…", "copy all four files")
            files.check_file(path, self.where)
        return Source("local", files.content_hash([path for path in paths if path is not None]), folder)

    def _part(self, source: Source, part: str) -> Pair:
        if source.folder is None or not self._idx(source.folder, "train", "images"):
            return super()._part(source, part)
        images = self._values(source.folder, part, "images").reshape(-1, *self.shape)
        return images, self._values(source.folder, part, "labels").astype(np.int64)

    def _idx(self, folder: Path, part: str, what: str) -> Path | None:
        return next(iter(sorted(folder.glob(f"{NAMES[part]}-{what}-idx?-ubyte*"))), None)

    def _values(self, folder: Path, part: str, what: str) -> np.ndarray:
        """The values of one file, uint8: as many as the set has."""
        path = self._idx(folder, part, what)
        assert path is not None
        packed = path.read_bytes()
        try:
            data = gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed
        except (OSError, EOFError, zlib.error):
            refuse(self.where, f"{files.short(path)} cannot be unpacked", "copy the file again")
        values = np.frombuffer(data, np.uint8)[HEADS[what] :]
        if len(values) != self.sizes[part] * (int(np.prod(self.shape)) if what == "images" else 1):
            refuse(self.where, f"{files.short(path)} is cut short or another set's", "copy the file again")
        return values
