"""ImageNet, whose pictures stay encoded until a worker process needs them [no torch at import]."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Classes, Images
from sparselab.core.errors import refuse
from sparselab.inputs.data import cache, files, hub, subset
from sparselab.inputs.data.dataset import DATASETS, Dataset
from sparselab.inputs.data.pictures import READ, UNREAD, eight_bits
from sparselab.inputs.data.sets.images import IMAGENET, ImageOptions, choose, counts

if TYPE_CHECKING:
    from PIL.Image import Image

    from sparselab.inputs.data.splits import PictureSplits


class ImagenetOptions(ImageOptions):
    """Options of ImageNet."""

    size: int = Field(ge=8, description="side of the images a network sees, in pixels, at least 8")
    resize: int = Field(ge=8, description="evaluation: short side before the middle is taken; at least size")
    augment: bool = Field(description="true takes random parts and mirrors; false the middle, always")

    @model_validator(mode="after")
    def _middle_fits(self) -> ImagenetOptions:
        if self.resize < self.size:
            raise ValueError(f"resize={self.resize} is below size={self.size}")
        return self


@dataclass(frozen=True)
class FolderImages:
    """Pictures of a folder."""

    root: Path
    paths: list[str]

    def open(self, row: int) -> Image:
        from PIL import Image

        with Image.open(self.root / self.paths[row]) as picture:
            return eight_bits(picture, "RGB")

    def title(self, row: int) -> str:
        return self.paths[row]


@dataclass(frozen=True)
class HubImages:
    """Pictures of a hub set: rows of its table."""

    table: Any
    rows: np.ndarray

    def open(self, row: int) -> Image:
        return eight_bits(self.table[int(self.rows[row])]["image"], "RGB")

    def title(self, row: int) -> str:
        return f"imagenet row {self.rows[row]}"


@DATASETS.register("imagenet")
class Imagenet(Dataset):
    """ImageNet-1k. Local: ``imagenet/{train,val}/<wnid>/*.JPEG``, the standard layout, also of a subset of it.

    The public validation folder is the test split; ``val`` pictures are taken from train. A label is the place of its
    folder among train's sorted folders; what begins with a dot, as tools leave it, is neither. The fingerprint is over paths
    and sizes.
    """

    task = "image_classification"
    Options = ImagenetOptions
    options: ImagenetOptions
    repo = "ILSVRC/imagenet-1k"
    layout = "imagenet/{train,val}/<wnid>/*.JPEG"
    hub_sizes = (1_281_167, 50_000)

    @property
    def augments(self) -> bool:
        return bool(self.options.augment)

    def spec(self) -> DataSpec:
        folder = self._folder()
        if folder is None:
            hub.check(self.repo, self.where, self.layout)
            classes, sizes, fingerprint = 1000, self.hub_sizes, files.listing_hash([(self.repo, 0)])
        else:
            listing = Listing.of(folder, self.where)
            classes, sizes, fingerprint = len(listing.wnids), listing.sizes, listing.fingerprint
        train, val, test = counts(self.name, self.options, *sizes)
        return DataSpec(
            name=self.name,
            inputs=Images(3, self.options.size, self.options.size),
            targets=Classes(classes),
            train=train,
            val=val,
            test=test,
            fingerprint=fingerprint,
            source="hub" if folder is None else "local",
            path=str(folder or ""),
            title=self.name,
        )

    def load(self) -> PictureSplits:
        from sparselab.inputs.data.splits import PictureSplits

        spec = self.spec()
        folder = self._folder()
        stores: dict[str, Any]
        if folder is None:
            tables = {part: hub.load(self.repo, part, self.where, self.layout) for part in ("train", "validation")}
            labels, test_labels = (np.array(table["label"], np.int64) for table in tables.values())
            rows = choose(self.options, labels, test_labels)
            table_of = {"train": tables["train"], "val": tables["train"], "test": tables["validation"]}
            stores = {part: HubImages(table_of[part], at) for part, at in rows.items()}
            of_table = {part: _lengths(table) for part, table in tables.items()}
            length_of = {"train": of_table["train"], "val": of_table["train"], "test": of_table["validation"]}
        else:
            listing = Listing.of(folder, self.where)
            labels, test_labels = listing.labels("train"), listing.labels("val")
            rows = choose(self.options, labels, test_labels)
            of = {"train": listing.paths("train"), "val": listing.paths("train"), "test": listing.paths("val")}
            stores = {part: FolderImages(folder, [of[part][i] for i in at]) for part, at in rows.items()}
            train_lengths = listing.lengths("train")
            length_of = {"train": train_lengths, "val": train_lengths, "test": listing.lengths("val")}
        label_of = {"train": labels, "val": labels, "test": test_labels}
        return PictureSplits(
            pictures=stores,
            labels={part: label_of[part][at] for part, at in rows.items()},
            lengths={part: length_of[part][at] for part, at in rows.items()},
            size=self.options.size,
            resize=self.options.resize,
            mean=IMAGENET[0],
            std=IMAGENET[1],
            classes=spec.classes,
            augment=self.options.augment,
            digests={part: subset.digest(at) for part, at in rows.items()},
        )

    def _folder(self) -> Path | None:
        """The folder that holds train/ and val/: below the folder of local copies, or that folder itself."""
        root = self.folder()
        if root is not None and (root / "train").is_dir() and (root / "val").is_dir():
            return root
        return self.local("imagenet", "imagenet-1k")


def _lengths(table: Any) -> np.ndarray:
    """(n,) int64: bytes of each encoded picture of a hub set's table. Reads where they begin, not the pictures."""
    import pyarrow.compute

    encoded = pyarrow.compute.struct_field(table.data.column("image"), "bytes")
    return pyarrow.compute.binary_length(encoded).fill_null(0).to_numpy().astype(np.int64)


class Listing:
    """Every picture of a local copy with its size, in the order of the paths."""

    def __init__(self, encoded: bytes, where: str):
        self.fingerprint = hashlib.sha256(encoded).hexdigest()
        entries = [line.partition("\0") for line in encoded.decode(errors="surrogateescape").split("\n") if line]
        parts = ("train", "val")
        self._paths = {part: [path for path, _, _ in entries if path.startswith(f"{part}/")] for part in parts}
        self._lengths = {part: [size for path, _, size in entries if path.startswith(f"{part}/")] for part in parts}
        self.wnids = sorted({path.split("/")[1] for path in self._paths["train"]})
        for part, paths in self._paths.items():
            if not paths:
                refuse(where, f"{part}/ holds no pictures", f"fill {Imagenet.layout}")
        strange = {path.split("/")[1] for path in self._paths["val"]} - set(self.wnids)
        if strange:
            refuse(
                where, f"val/ has a class that train/ lacks ({min(strange)})", "copy the class, or remove it from val/"
            )

    @classmethod
    def of(cls, root: Path, where: str) -> Listing:
        """Over a million files take seconds to list, so the list is cached under the class folders' names and times."""
        folders: list[os.DirEntry[str]] = []
        for part in ("train", "val"):
            if not (root / part).is_dir():
                refuse(where, f"{files.short(root)} has no {part}/", f"use the layout {Imagenet.layout}")
            found = [entry for entry in os.scandir(root / part) if entry.is_dir() and not entry.name.startswith(".")]
            folders += sorted(found, key=lambda entry: entry.name)
        times = "\0".join(f"{folder.path}\0{folder.stat().st_mtime_ns}" for folder in folders)
        key = hashlib.sha256(times.encode(errors="surrogateescape")).hexdigest()
        encoded = cache.array(f"imagenet-pictures-{key[:24]}", lambda: cls._encode(root, folders, where))
        return cls(encoded.tobytes(), where)

    @staticmethod
    def _encode(root: Path, folders: list[os.DirEntry[str]], where: str) -> np.ndarray:
        lines = []
        for folder in folders:
            name = Path(folder.path).relative_to(root).as_posix()
            lines += sorted(f"{name}/{entry.name}\0{_size(entry, where)}\n" for entry in _pictures(folder, where))
        return np.frombuffer("".join(lines).encode(errors="surrogateescape"), np.uint8)

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self._paths["train"]), len(self._paths["val"])

    def paths(self, part: str) -> list[str]:
        return self._paths[part]

    def lengths(self, part: str) -> np.ndarray:
        return np.array(self._lengths[part], np.int64)

    def labels(self, part: str) -> np.ndarray:
        number = {wnid: label for label, wnid in enumerate(self.wnids)}
        return np.array([number[path.split("/")[1]] for path in self._paths[part]], np.int64)


def _pictures(folder: os.DirEntry[str], where: str) -> Iterator[os.DirEntry[str]]:
    """The pictures of a class. ConfigError where one is of a kind that is not read: leaving it out would change the set."""
    for entry in os.scandir(folder):
        ending = Path(entry.name).suffix.lower()
        if entry.name.startswith(".") or ending not in (*READ, *UNREAD):
            continue
        if ending in UNREAD:
            refuse(where, f"{_shown(entry)} is of a kind that is not read", f"make it one of {', '.join(READ[:3])}, …")
        if "\n" in folder.name + entry.name:
            refuse(where, f"{_shown(entry)} has a line break in its name", "rename it")
        yield entry


def _size(entry: os.DirEntry[str], where: str) -> int:
    try:
        return entry.stat().st_size
    except OSError as error:
        problem = "is a link to nothing" if entry.is_symlink() else f"cannot be read ({error.strerror})"
        refuse(where, f"{_shown(entry)} {problem}", "copy the picture again, or remove it")


def _shown(entry: os.DirEntry[str]) -> str:
    """The end of a path on one line."""
    return ascii(files.short(entry.path))[1:-1]
