"""Sources of a :class:`~sparselab.inputs.data.loader.Loader`: images and text in memory, pictures on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sparselab.core.errors import Issue, RunFailed
from sparselab.inputs.data import augment as operations
from sparselab.inputs.data.augment import Augment
from sparselab.inputs.data.loader import Batch, InMemory, Job, sent
from sparselab.inputs.data.pictures import undecodable
from sparselab.inputs.data.seeds import generator

IGNORE = -100  # a target that no loss and no metric counts


class Images(InMemory):
    """Images that lie on ``device`` as uint8; batches are (b, c, h, w) float32, normalised, and (b,) int64 labels.

    With mixup the labels are (b, classes) float32. ``augment`` is used in training only.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        classes: int,
        augment: Augment,
        device: str = "cpu",
    ):
        self.images = images.to(device)
        self.labels = labels.to(device)
        self.normalise = Normalise(mean, std, device)
        self.classes = classes
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, job: Job) -> Batch:
        if job.place is None:
            rows = self._send(job.rows[job.mine])
            return self.normalise(self.images[rows]), self.labels[rows]
        rng = job.generator()
        count = len(job.rows)
        draw = self.augment.draw(rng, count, *self.images.shape[2:])
        mine = np.arange(count)[job.mine]
        images, labels = self._augmented(job.rows, draw, mine)
        if not self.augment.mixup:
            return images, labels
        # partners come from the global batch and may be another rank's: every rank has all images
        others, other_labels = self._augmented(job.rows, draw, rng.permutation(count)[job.mine])
        share = rng.beta(self.augment.mixup, self.augment.mixup)
        return torch.lerp(others, images, share), torch.lerp(self._one_hot(other_labels), self._one_hot(labels), share)

    def _augmented(self, rows: np.ndarray, draw: operations.Draw, mine: np.ndarray) -> Batch:
        at, draw = self._send(rows[mine]), draw[mine]
        images = operations.crop_and_flip(self.images, at, draw, self.augment)
        if self.augment.affine:
            images = operations.affine(images.float(), draw)
        images = self.normalise(images)
        if self.augment.cutout:
            images = operations.cutout(images, draw, self.augment.cutout)
        return images, self.labels[at]

    def _send(self, rows: np.ndarray) -> Tensor:
        return sent(rows, self.images.device)

    def _one_hot(self, labels: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(labels, self.classes).float()


class Normalise:
    """Pixels in [0, 255] (b, c, h, w) to float32 (pixel / 255 - mean) / std."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: str):
        self.mean = (torch.tensor(mean) * 255).view(-1, 1, 1).to(device)
        self.std = (torch.tensor(std) * 255).view(-1, 1, 1).to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels.to(torch.float32).sub_(self.mean).div_(self.std)


class Windows(InMemory):
    """Windows of ``block`` tokens of a 1-D token tensor; batches are (b, block) int64 inputs and targets.

    Targets are the inputs one token on. Training draws windows anywhere, as many an epoch as fit side by side.
    Evaluation goes through the text side by side, so each of its ``len - 1`` predictions is made once; what the last
    window lacks is :data:`IGNORE` in the targets. Where the text consists of records of ``block`` tokens (``apart``), training
    draws each of them once an epoch.
    """

    def __init__(self, tokens: Tensor, block: int, device: str = "cpu", apart: bool = False):
        self.tokens = tokens.to(device)
        self.block = block
        self.apart = apart
        self.offsets = torch.arange(block + 1, device=device)

    def __len__(self) -> int:
        return -(-max(len(self.tokens) - 1, 0) // self.block)

    def rows(self, rng: np.random.Generator | None) -> np.ndarray:
        """Return the start of each window."""
        if rng is None:
            return np.arange(len(self)) * self.block
        if self.apart:
            return rng.permutation(len(self)) * self.block
        return rng.integers(0, max(len(self.tokens) - self.block, 1), len(self))

    def batch(self, job: Job) -> Batch:
        starts = sent(job.rows[job.mine], self.tokens.device)
        at = starts[:, None] + self.offsets
        window = self.tokens[at.clamp(max=len(self.tokens) - 1)].long()
        return window[:, :-1], window[:, 1:].masked_fill(at[:, 1:] > self.last(starts)[:, None], IGNORE)

    def last(self, starts: Tensor) -> Tensor:
        """(b,) the last token that each window at ``starts`` (b,) predicts."""
        return torch.full_like(starts, len(self.tokens) - 1)


class Streams(Windows):
    """A text in ``streams`` parts that are read side by side, for truncated backpropagation through time.

    Each part is read in order: row i of a batch goes on where row i of the batch before ended. A batch must have ``streams``
    rows.

    Parts are of one length. In training what fills no whole window of each is left out, and no epoch has another order.
    Evaluation makes each of the ``len - 1`` predictions once.
    """

    def __init__(self, tokens: Tensor, block: int, streams: int, train: bool, device: str = "cpu"):
        super().__init__(tokens, block, device)
        predictions = max(len(tokens) - 1, 0)
        self.streams = streams
        self.length = predictions // streams if train else -(-predictions // streams)
        self.windows = self.length // block if train else -(-self.length // block)

    def __len__(self) -> int:
        return self.windows * self.streams

    def rows(self, rng: np.random.Generator | None) -> np.ndarray:
        return (np.arange(self.windows)[:, None] * self.block + np.arange(self.streams) * self.length).ravel()

    def last(self, starts: Tensor) -> Tensor:
        return ((starts // self.length + 1) * self.length).clamp(max=len(self.tokens) - 1)


class ImageStore(Protocol):
    """Encoded pictures by row. Must survive pickling: worker processes read it."""

    def open(self, row: int) -> Any:
        """Row ``row`` as an RGB ``PIL.Image``."""

    def title(self, row: int) -> str:
        """Return its name for a message."""


@dataclass(frozen=True)
class Key:
    """The key from which a worker makes one example; ``place`` is (seed, epoch) in training."""

    row: int
    place: tuple[int, int] | None


class Pictures:
    """Pictures decoded by worker processes: (b, 3, size, size) float32 on ``device`` and (b,) int64 labels.

    Training takes a random part of the picture (8 to 100 % of the area, sides 3:4 to 4:3, as in Szegedy et al. 2015)
    and mirrors every other one, by numbers addressed by (seed, epoch, row): workers share no state. Evaluation takes
    the middle ``size`` of the picture resized to ``resize`` on its short side.
    """

    def __init__(
        self,
        store: ImageStore,
        labels: np.ndarray,
        *,
        size: int,
        resize: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augment: bool,
        device: str = "cpu",
        workers: int = 0,
    ):
        self.labels = labels
        self.device = device
        self.normalise = Normalise(mean, std, device)
        self._keys = _KeyQueue()
        self._loader: Iterable[Any] = torch.utils.data.DataLoader(
            Decoder(store, labels, size, resize, augment),  # type: ignore[arg-type]
            batch_sampler=self._keys,
            num_workers=workers,
            collate_fn=_Stack(size),
            pin_memory=device.startswith("cuda"),
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else every epoch takes a number from the global generator
        )

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rng: np.random.Generator | None) -> np.ndarray:
        return np.arange(len(self)) if rng is None else rng.permutation(len(self))

    def batches(self, jobs: Iterable[Job]) -> Iterator[Batch]:
        self._keys.jobs = jobs
        for made in self._loader:
            if isinstance(made, str):
                raise RunFailed(made)
            pixels, labels = (part.to(self.device, non_blocking=True) for part in made)
            yield self.normalise(pixels), labels


class _KeyQueue:
    """The loader's batch sampler: the keys of the jobs of the epoch under way."""

    jobs: Iterable[Job] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        for job in self.jobs:
            yield [Key(int(row), job.place and job.place[:2]) for row in job.rows[job.mine]]


@dataclass(frozen=True)
class Decoder:
    """Key to ((3, size, size) uint8, label), or to a message where the picture cannot be decoded."""

    store: ImageStore
    labels: np.ndarray
    size: int
    resize: int
    augment: bool

    def __getitem__(self, key: Key) -> tuple[np.ndarray, int] | str:
        from PIL import Image

        try:
            picture = self.store.open(key.row)
        except undecodable() as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            title = ascii(self.store.title(key.row))[1:-1]
            return str(Issue(title, f"cannot be decoded ({reason})"[:80], "copy the picture again"))
        mirrored = False
        if self.augment and key.place is not None:
            rng = generator("augment", *key.place, key.row)
            box = random_part(rng, picture.width, picture.height)
            mirrored = bool(rng.random() < 0.5)
        else:
            side = min(picture.size) * self.size / self.resize
            left, top = (picture.width - side) / 2, (picture.height - side) / 2
            box = (left, top, left + side, top + side)
        made = np.asarray(picture.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box))
        if mirrored:
            made = made[:, ::-1]
        return np.ascontiguousarray(made.transpose(2, 0, 1)), int(self.labels[key.row])


def random_part(rng: np.random.Generator, width: int, height: int) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a random part of a picture; the middle square where ten tries do not fit."""
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        wide, high = np.sqrt(area * ratio), np.sqrt(area / ratio)
        if wide <= width and high <= height:
            left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
            return float(left), float(top), float(left + wide), float(top + high)
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


@dataclass(frozen=True)
class _Stack:
    """Examples to a batch, which may have none; the first message instead, where there is one."""

    size: int

    def __call__(self, made: list[tuple[np.ndarray, int] | str]) -> tuple[Tensor, Tensor] | str:
        messages = [one for one in made if isinstance(one, str)]
        if messages:
            return messages[0]
        pixels = np.array([one[0] for one in made], np.uint8).reshape(-1, 3, self.size, self.size)
        return torch.from_numpy(pixels), torch.tensor([one[1] for one in made], dtype=torch.int64)
