"""Spoken digits as events [no torch at import]."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field

from sparselab.core.errors import refuse
from sparselab.inputs.data import cache, files
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.events import binned, crossings
from sparselab.inputs.data.sets.arrays import ArrayOptions, ArraySet, Pair, Source

RATE = 8000  # samples a second


class SpokenOptions(ArrayOptions):
    """How sound becomes events."""

    steps: int = Field(ge=1, le=100, description="equal parts of a clip whose events are counted together, 1 to 100")
    bands: int = Field(ge=1, le=64, description="bands of the spectrum, 1 to 64; each has two channels, up and down")
    decibels: float = Field(gt=0, le=60, description="distance of two levels of loudness in dB, above 0, at most 60")


@DATASETS.register("spoken_digits")
class SpokenDigits(ArraySet):
    """Spoken digits, six speakers at 8 kHz: counts of events, laid out as a picture of time steps x channels.

    Free Spoken Digit Dataset (Jakobovski, CC BY-SA 4.0), a local copy only: ``spoken_digits/{train,test}.npz`` with ``audio``
    (all clips joined, int16), ``length`` and ``label``. Test is the published one, takes 0 to 4; train has takes 5 to 29 of the
    same speakers. Pixels are counts as they are, no channel is normalised.
    """

    Options = SpokenOptions
    options: SpokenOptions
    classes = 10
    sizes = {"train": 1500, "test": 300}
    balanced = True

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        return 1, self.options.steps, 2 * self.options.bands

    def source(self) -> Source:
        folder = self.local(self.name)
        if folder is None:
            problem = "has no local copy, and no public name"
            refuse(self.where, problem, f"put {self.name}/{{train,test}}.npz into the folder of data_dir=")
        paths = [folder / f"{part}.npz" for part in self.sizes]
        for path in paths:
            files.check_file(path, self.where)
        return Source("local", files.content_hash(paths), folder)

    def arrays(self, source: Source) -> tuple[Pair, Pair]:
        assert source.folder is not None
        return self._part(source, source.folder, "train"), self._part(source, source.folder, "test")

    def statistics(self, pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return (0.0,), (1 / 255,)

    def _part(self, source: Source, folder: Path, part: str) -> Pair:
        o = self.options
        key = f"{self.name}-{part}-{source.fingerprint[:24]}-{o.steps}-{o.bands}-{o.decibels:g}"
        packed = cache.array(key, partial(self._events, folder / f"{part}.npz", part))
        return packed[:, :-1].reshape(-1, *self.shape), packed[:, -1].astype(np.int64)

    def _events(self, path: Path, part: str) -> np.ndarray:
        """(clips, steps * channels + 1) uint8: the counts of each clip, and its label."""
        o = self.options
        try:
            with np.load(path, allow_pickle=False) as file:
                audio, length, label = (file[name] for name in ("audio", "length", "label"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            refuse(self.where, f"{files.short(path)} cannot be read ({str(error)[:40]})", "copy the file again")
        ends = np.cumsum(length.astype(np.int64))
        if len(label) != self.sizes[part] or len(label) != len(length) or ends[-1] != len(audio) or length.min() < 1:
            refuse(self.where, f"{files.short(path)} does not hold {self.sizes[part]} clips", "copy the file again")
        if label.min() < 0 or label.max() >= self.classes:
            refuse(self.where, f"{part} has labels outside 0..{self.classes - 1}", "copy the file again")
        packed = np.empty((len(label), o.steps * 2 * o.bands + 1), np.uint8)
        for row, clip, digit in zip(packed, np.split(audio, ends[:-1]), label, strict=True):
            row[:-1] = binned(crossings(clip, RATE, o.bands, o.decibels), o.steps).ravel()
            row[-1] = digit
        return packed
