"""Image sets that fit in memory [no torch at import]."""

from __future__ import annotations

import gzip
import importlib.util
import io
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Classes, Images
from sparselab.core.errors import Issues, refuse
from sparselab.core.options import off
from sparselab.inputs.data import cache, files, hub, subset
from sparselab.inputs.data.augment import Augment
from sparselab.inputs.data.dataset import DATASETS, Dataset
from sparselab.inputs.data.forget import Forget
from sparselab.inputs.data.pictures import eight_bits, undecodable
from sparselab.inputs.data.sets.images import IMAGENET, ImageOptions, choose, counts

if TYPE_CHECKING:
    from sparselab.inputs.data.splits import ImageSplits

AT_ONCE = 1024  # images that are resized together
Pair = tuple[np.ndarray, np.ndarray]  # images (n, c, h, w) uint8, labels (n,) int64


class ArrayOptions(ImageOptions):
    """Options of every in-memory image set."""

    defaults_from: ClassVar[str] = "dataset/_images"

    augment: Augment = Field(description="a mapping such as {crop: 4, flip: true}, or {}")
    forget: str | None = off(
        None,
        description="class:<number> or random:<fraction> of the training images, to be forgotten; or null",
    )
    train_on: Literal["all", "retain", "forget"] = off(
        "all",
        description="all, retain (without what is forgotten) or forget (nothing else)",
    )
    pool: int = off(1, ge=1, description="pixels of a side of the squares whose mean becomes one pixel")
    resize: int | None = off(None, ge=1, description="side in pixels that images are resized to, or null")
    colour: bool = off(False, description="true: grey images as three equal channels, for a network that reads colour")
    normalise: Literal["dataset", "imagenet"] = off(
        "dataset", description="dataset, or imagenet for weights that were trained with ImageNet's statistics"
    )
    n_shot: int | None = off(
        None, ge=1, description="images of each class to train on, at least 1, drawn by train_draw; null for all"
    )
    train_draw: int = off(
        0, ge=0, description="which draw of n_shot or limit_train images; one for each seed shows their scatter"
    )


class ArraySet(Dataset):
    """An image set of known sizes. Subclasses say what it is and where its arrays come from."""

    task = "image_classification"
    Options: ClassVar[type[ArrayOptions]] = ArrayOptions
    options: ArrayOptions
    shape: ClassVar[tuple[int, int, int]]
    classes: ClassVar[int]
    sizes: ClassVar[dict[str, int]]  # images of "train" (validation included) and "test"
    balanced: ClassVar[bool] = False  # whether all classes are equally large
    per_class: ClassVar[tuple[int, ...]] = ()  # images of each class in "train" where they are not equally large

    @abstractmethod
    def source(self) -> Source:
        """Return the checked place of the bytes; ConfigError if they are not there."""

    @abstractmethod
    def arrays(self, source: Source) -> tuple[Pair, Pair]:
        """Train (validation included) and test."""

    @abstractmethod
    def statistics(self, pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of the pixels.

        Args:
            pixels: (n, c, h, w) uint8 of the training split

        Returns:
            (means, deviations) of pixel / 255, a number for each channel.
        """

    @property
    def augments(self) -> bool:
        return self.options.augment != Augment()

    @property
    def size(self) -> tuple[int, int, int]:
        """(channels, height, width) as the network sees it."""
        channels, height, width = self.shape
        pool, side = self.options.pool, self.options.resize
        channels = 3 if self.options.colour else channels
        return (channels, side, side) if side else (channels, height // pool, width // pool)

    def spec(self) -> DataSpec:
        source = self.source()
        title = source.title or self.name
        train, val, test = self._counts()
        return DataSpec(
            name=self.name,
            inputs=Images(*self.size),
            targets=Classes(self.classes),
            train=train,
            val=val,
            test=test,
            fingerprint=source.fingerprint,
            source=source.kind,
            path=str(source.folder or ""),
            title=title if self.size[1:] == self.shape[1:] else f"{title}-{self.size[1]}x{self.size[2]}",
            parts=() if self.options.forget is None else ("retain", "forget"),
        )

    def load(self) -> ImageSplits:
        import torch

        from sparselab.inputs.data.splits import ImageSplit, ImageSplits

        source = self.source()
        self._counts()
        (images, labels), (test_images, test_labels) = self.arrays(source)
        rows = self._chosen(labels, test_labels)
        # Of all training images: a network goes on with the statistics that it was trained with.
        mean, std = self._normalised(images[rows["train"]])
        rows = self._divided(rows, labels, test_labels)
        splits = {}
        for part, at in rows.items():
            pixels, targets = (test_images, test_labels) if part == "test" else (images, labels)
            splits[part] = ImageSplit(torch.from_numpy(self._shown(pixels[at])), torch.from_numpy(targets[at]))
        return ImageSplits(
            **{part: splits.pop(part) for part in ("train", "val", "test")},
            others=splits,
            mean=mean,
            std=std,
            classes=self.classes,
            augment=self.options.augment,
            digests={part: subset.digest(at) for part, at in rows.items()},
        )

    def _shown(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (n, c, h, w) uint8 as the network sees them: pooled, resized, in colour."""
        o = self.options
        pixels = pooled(pixels, o.pool)
        pixels = pixels if o.resize is None else resized(pixels, o.resize)
        return np.repeat(pixels, 3, axis=1) if o.colour else pixels

    def _normalised(self, train: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel that the network sees; ``train`` are training images as they lie."""
        if self.options.normalise != "dataset":
            return IMAGENET
        mean, std = self.statistics(pooled(train, self.options.pool))
        return (mean * 3, std * 3) if self.options.colour else (mean, std)

    def _chosen(self, labels: np.ndarray, test_labels: np.ndarray) -> dict[str, np.ndarray]:
        """The rows of each split."""
        rows = choose(self.options, self._drawn_by(labels), self._drawn_by(test_labels), self.options.train_draw)
        if self.options.n_shot is not None:
            shots = subset.shots(labels[rows["train"]], self.options.n_shot, f"n_shot {self.options.train_draw}")
            rows["train"] = rows["train"][shots]
        return rows

    def _drawn_by(self, labels: np.ndarray) -> np.ndarray:
        """Labels (n,) of the groups that a draw takes equally many images of: the classes."""
        return labels

    def _divided(
        self, rows: dict[str, np.ndarray], labels: np.ndarray, test_labels: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The rows where something is to be forgotten: ``retain`` and ``forget`` too, and the part to train on."""
        if self.options.forget is None:
            return rows
        forget = Forget.parse(self.options.forget, self.classes)
        train = rows["train"]
        gone = train[forget.rows(labels[train])]
        parts = {"all": train, "retain": subset.without(train, gone), "forget": gone}
        stay = {"val": rows["val"][forget.stays(labels[rows["val"]])]}
        stay["test"] = rows["test"][forget.stays(test_labels[rows["test"]])]
        return {"train": parts[self.options.train_on], **stay, "retain": parts["retain"], "forget": gone}

    def _counts(self) -> tuple[int, int, int]:
        """Sizes of train, val and test under the options; ConfigError where the options do not fit the set."""
        side, augment = min(self.size[1:]), self.options.augment
        issues = Issues()
        pool, (_, height, width) = self.options.pool, self.shape
        if height % pool or width % pool:
            problem = f"does not divide {self.name}'s {height}x{width} images"
            issues.add(f"dataset.pool={pool}", problem, "choose a divisor of both sides, or 1")
        if augment.pad == "reflect" and augment.crop >= side:
            what = f"reflection needs a margin below the image's side of {side} pixels"
            issues.add(f"dataset.augment.crop={augment.crop}", what, f"write at most {side - 1}, or pad: zero")
        if self.options.colour and self.shape[0] != 1:
            issues.add("dataset.colour=true", f"{self.name}'s images are in colour", "leave it out")
        elif self.options.normalise != "dataset" and self.size[0] != 3:
            problem = "ImageNet's statistics are of three channels, and these images are grey"
            issues.add("dataset.normalise=imagenet", problem, "add dataset.colour=true")
        sizes = (0, 0, 0)
        with issues.collect():
            sizes = counts(self.name, self.options, self.sizes["train"], self.sizes["test"])
            sizes = (self._drawn(sizes[0]), *sizes[1:])
        if self.options.forget is not None:
            with issues.collect():
                sizes = self._left(Forget.parse(self.options.forget, self.classes), *sizes)
        elif self.options.train_on != "all":
            where = f"dataset.train_on={self.options.train_on}"
            issues.add(where, "nothing is to be forgotten", "write dataset.forget=class:0, say")
        issues.raise_if_any()
        return sizes

    def _drawn(self, train: int) -> int:
        """Training images that are left of ``train`` under ``n_shot``; ConfigError where the options do not say how many."""
        o = self.options
        if o.n_shot is None:
            if o.train_draw and o.limit_train is None:
                problem = "all training images are taken, and there is nothing to draw"
                refuse(
                    f"dataset.train_draw={o.train_draw}",
                    problem,
                    "write dataset.n_shot or limit_train, or leave it out",
                )
            return train
        where = f"dataset.n_shot={o.n_shot}"
        if o.limit_train is not None or o.forget is not None:
            other = "limit_train" if o.limit_train is not None else "forget"
            refuse(where, f"dataset.{other} chooses training images, too", "write one of the two")
        sizes = self.per_class or (self.sizes["train"] // self.classes,) * self.classes
        gone = -(-o.val // self.classes)  # of a class, at most
        if o.n_shot > min(sizes) - gone and o.val % self.classes:
            problem = f"how many images of a class validation leaves is not known with dataset.val={o.val}"
            refuse(where, problem, f"write dataset.val={o.val // self.classes * self.classes}")
        return sum(min(o.n_shot, size - gone) for size in sizes)

    def _left(self, forget: Forget, train: int, val: int, test: int) -> tuple[int, int, int]:
        """The sizes without what is forgotten; ConfigError where a class's size is known only once the labels are read."""
        if forget.label is not None:
            left = []
            for key, size, even in (
                ("limit_train", train, self.balanced or self.options.limit_train is not None),
                ("val", val, True),
                ("limit_test", test, self.balanced or self.options.limit_test is not None),
            ):
                if size % self.classes or not even:
                    problem = f"a class of {self.name} has no known share of {size:,} images"
                    fix = f"write dataset.{key}={max(size // self.classes, 1) * self.classes}"
                    refuse(f"dataset.forget={self.options.forget}", problem, fix)
                left.append(size - size // self.classes)
            val, test = left[1:]
        gone, stays = forget.sizes(train, self.classes)
        return {"all": train, "retain": stays, "forget": gone}[self.options.train_on], val, test


def pooled(pixels: np.ndarray, side: int) -> np.ndarray:
    """(n, c, h, w) uint8, each square of ``side`` x ``side`` pixels replaced by its mean, rounded half to even."""
    if side == 1:
        return pixels
    count, channels, height, width = pixels.shape
    squares = pixels.reshape(count, channels, height // side, side, width // side, side)
    return np.rint(squares.mean((3, 5), dtype=np.float32)).astype(np.uint8)


def resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return ``pixels`` (n, c, h, w) uint8 as (n, c, side, side), bilinear, with antialiasing where images become smaller."""
    import torch
    from torch.nn.functional import interpolate

    out = torch.empty(*pixels.shape[:2], side, side, dtype=torch.uint8)
    for images, place in zip(torch.from_numpy(pixels).split(AT_ONCE), out.split(AT_ONCE), strict=True):
        made = interpolate(images.float(), (side, side), mode="bilinear", antialias=True, align_corners=False)
        place.copy_(made.round_().clamp_(0, 255))
    return out.numpy()


@dataclass(frozen=True)
class Source:
    """The place of a set's bytes.

    kind: ``bundled``, ``local`` or ``hub``. folder: of a local copy. title: as in DataSpec.
    """

    kind: str
    fingerprint: str
    folder: Path | None = None
    title: str = ""


@DATASETS.register("digits")
class Digits(ArraySet):
    """scikit-learn's bundled digits: 1,797 real 8x8 grey images of handwriting (UCI optdigits' test set).

    Test and validation are fixed, class-balanced draws: 1,257 / 180 / 360 with ``val: 180``. Pixels of 0..16 become
    0..255.
    """

    shape = (1, 8, 8)
    classes = 10
    sizes = {"train": 1437, "test": 360}
    per_class = (142, 146, 141, 147, 145, 146, 145, 143, 138, 144)

    def source(self) -> Source:
        self.given_folder()
        path = self._file()
        files.check_file(path, self.where)
        return Source("bundled", files.content_hash([path]))

    def arrays(self, source: Source) -> tuple[Pair, Pair]:
        try:
            with gzip.open(self._file(), "rt") as file:
                table = np.loadtxt(file, delimiter=",", dtype=np.int64)
        except (OSError, EOFError, ValueError) as error:
            refuse(self.where, f"scikit-learn's digits.csv.gz is damaged ({error})"[:90], "reinstall scikit-learn")
        if table.shape != (1797, 65):
            refuse(self.where, f"digits.csv.gz is {table.shape}, not (1797, 65)", "reinstall scikit-learn")
        pixels = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, *self.shape)
        labels = table[:, 64]
        test = subset.balanced(labels, self.sizes["test"], "test")
        train = subset.without(np.arange(len(labels)), test)
        return (pixels[train], labels[train]), (pixels[test], labels[test])

    def statistics(self, pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        scaled = pixels / 255
        return (float(scaled.mean()),), (float(scaled.std()),)

    def _file(self) -> Path:
        """Found without importing scikit-learn, which takes a second."""
        found = importlib.util.find_spec("sklearn")
        if found is None or found.origin is None:
            refuse(self.where, "scikit-learn, which brings the images, is not installed", "pip install scikit-learn")
        return Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"


class PublicSet(ArraySet):
    """A public set: parquet files under the folder of local copies, else the hub.

    Layout: ``<name>/{train*.parquet,test*.parquet}`` with an image column (encoded bytes) and a label column, as
    ``datasets`` writes them. A local copy whose images are JPEG is not the original set, and its title says so.
    """

    repo: ClassVar[str]
    label: ClassVar[str] = "label"
    mean: ClassVar[tuple[float, ...]]
    std: ClassVar[tuple[float, ...]]

    def source(self) -> Source:
        for folder in filter(None, map(self.local, self._folders)):
            paths = [path for part in self.sizes for path in self._shards(folder, part)]
            for path in paths:
                files.check_parquet(path, self.where)
            altered = files.holds(paths[-1], b"JFIF")
            if self._takes_altered or not altered:
                title = f"{self.name}-jpeg" if altered else self.name
                return Source("local", files.content_hash(paths), folder, title)
        hub.check(self.repo, self.where, self._layout)
        return Source("hub", files.listing_hash([(self.repo, 0)]))

    def arrays(self, source: Source) -> tuple[Pair, Pair]:
        return self._part(source, "train"), self._part(source, "test")

    def statistics(self, pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.mean, self.std

    @property
    def _takes_altered(self) -> bool:
        """True if a copy whose images went through JPEG will do."""
        return True

    @property
    def _folders(self) -> tuple[str, ...]:
        """The places of a copy in the folder of local copies, the first choice first."""
        return (self.name,)

    @property
    def _layout(self) -> str:
        return f"{self._folders[0]}/{{train,test}}.parquet"

    def _shards(self, folder: Path, part: str) -> list[Path]:
        shards = sorted(folder.glob(f"{part}*.parquet"))
        if not shards:
            fix = f"add {part}.parquet, or remove the folder to load from the hub"
            refuse(self.where, f"{files.short(folder)} holds no {part}*.parquet", fix)
        return shards

    def _part(self, source: Source, part: str) -> Pair:
        from PIL import __version__ as decoder  # another decoder may round a JPEG differently

        decode = partial(self._decode, source, part)
        key = f"{self.name}-{part}-{source.fingerprint[:24]}-pillow{decoder}"
        packed = cache.array(key, decode) if source.kind == "local" else decode()
        return packed[:, :-8].reshape(-1, *self.shape), packed[:, -8:].copy().view("<i8")[:, 0]

    def _held(self, part: str) -> int:
        """How many images the files of ``part`` hold."""
        return self.sizes[part]

    def _decode(self, source: Source, part: str) -> np.ndarray:
        """(n, c*h*w + 8) uint8: the pixels of each image, and its label as eight bytes."""
        expected, pixels = self._held(part), int(np.prod(self.shape))
        packed = np.empty((expected, pixels + 8), np.uint8)
        labels = np.empty(expected, "<i8")
        count = 0
        for count, (encoded, label) in enumerate(self._rows(source, part), 1):
            if count > expected:
                break
            packed[count - 1, :-8] = self._pixels(encoded, f"{part} image {count - 1}")
            labels[count - 1] = label
        if count != expected:
            number = f"{count}" if count < expected else f"more than {expected}"
            problem = f"{part} holds {number} images, {self.name} has {expected}"
            refuse(self.where, problem, "use the whole set, and dataset.limit_train=… for a part of it")
        if labels.min() < 0 or labels.max() >= self.classes:
            refuse(self.where, f"{part} has labels outside 0..{self.classes - 1}", "copy the files again")
        packed[:, -8:] = labels.view(np.uint8).reshape(-1, 8)
        return packed

    def _rows(self, source: Source, part: str) -> Iterable[tuple[bytes, int]]:
        if source.folder is None:
            import datasets

            table = hub.load(self.repo, part, self.where, self._layout)
            image = next(name for name in ("img", "image") if name in table.column_names)
            for row in table.cast_column(image, datasets.Image(decode=False)):
                yield row[image]["bytes"], row[self.label]
            return
        for path in self._shards(source.folder, part):
            yield from self._shard(path)

    def _shard(self, path: Path) -> Iterable[tuple[bytes, int]]:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path)
            names = table.column_names
            image, label = self._column(names, "image", "img"), self._column(names, self.label, "label")
            encoded = pyarrow.compute.struct_field(table[image], "bytes")
            return zip((cell.as_py() for cell in encoded), table[label].to_pylist(), strict=True)
        except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:50]
            refuse(self.where, f"{files.short(path)} cannot be read ({reason})", "copy the file again")

    @staticmethod
    def _column(names: list[str], *wanted: str) -> str:
        for name in wanted:
            if name in names:
                return name
        raise KeyError(f"no column {wanted[0]}, only {', '.join(names)}")

    def _pixels(self, encoded: Any, what: str) -> np.ndarray:
        """Encoded bytes to (c*h*w,) uint8."""
        from PIL import Image

        try:
            with Image.open(io.BytesIO(encoded)) as picture:
                decoded = np.asarray(eight_bits(picture, "RGB" if self.shape[0] == 3 else "L"))
        except undecodable():
            refuse(self.where, f"{what} cannot be decoded", "copy the files again")
        if decoded.shape[:2] != self.shape[1:]:
            refuse(self.where, f"{what} is {decoded.shape[:2]}, not {self.shape[1:]}", "copy the files again")
        return decoded.reshape(*self.shape[1:], -1).transpose(2, 0, 1).ravel()


@DATASETS.register("mnist")
class Mnist(PublicSet):
    """MNIST (LeCun et al. 1998): 28x28 grey, 10 classes."""

    shape = (1, 28, 28)
    classes = 10
    sizes = {"train": 60_000, "test": 10_000}
    per_class = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    repo = "ylecun/mnist"
    mean = (0.1307,)
    std = (0.3081,)


class ColourOptions(ArrayOptions):
    """Further options of colour sets."""

    normalise: Literal["dataset", "imagenet"] = Field(
        description="dataset, or imagenet for weights that were trained with ImageNet's statistics"
    )
    published: bool = off(
        False, description="true: only the pictures as published, never a copy of them that went through JPEG"
    )


class ColourSet(PublicSet):
    """Base of the colour sets, whose classes are equally large."""

    balanced = True
    Options = ColourOptions
    options: ColourOptions

    @property
    def _takes_altered(self) -> bool:
        return not self.options.published

    @property
    def _folders(self) -> tuple[str, ...]:
        return (f"{self.name}_original", self.name) if self.options.published else (self.name,)


@DATASETS.register("cifar10")
class Cifar10(ColourSet):
    """CIFAR-10 (Krizhevsky 2009): 32x32 colour, 10 classes."""

    shape = (3, 32, 32)
    classes = 10
    sizes = {"train": 50_000, "test": 10_000}
    repo = "uoft-cs/cifar10"
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)


@DATASETS.register("cifar100")
class Cifar100(ColourSet):
    """CIFAR-100 (Krizhevsky 2009): 32x32 colour, 100 fine classes."""

    shape = (3, 32, 32)
    classes = 100
    sizes = {"train": 50_000, "test": 10_000}
    repo = "uoft-cs/cifar100"
    label = "fine_label"
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
