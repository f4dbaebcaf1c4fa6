"""Batches of a small image set: made where the images lie, against a usual DataLoader in one process."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sparselab.inputs.data.augment import Augment
from sparselab.inputs.data.splits import ImageSplit, ImageSplits
from sparselab.tools.bench.timing import Row, row, turns

SECTION = "40 batches of 128 images of 3x32x32, cropped with padding, mirrored, normalised, against a DataLoader's"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGES, BATCH = 5120, 128


def rows(device: str) -> Iterator[Row]:
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 10, (IMAGES,))
    split = ImageSplit(images, labels)
    loader = ImageSplits(split, split, split, MEAN, STD, 10, Augment(crop=4, flip=True)).loader(
        "train", BATCH, 0, device=device
    )
    crop = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )

    class Usual(Dataset[tuple[torch.Tensor, torch.Tensor]]):
        def __len__(self) -> int:
            return IMAGES

        def __getitem__(self, at: int) -> tuple[torch.Tensor, torch.Tensor]:
            return crop(images[at]), labels[at]

    theirs = DataLoader(Usual(), BATCH, shuffle=True, drop_last=True)

    def usual() -> None:
        for batch in theirs:
            [part.to(device) for part in batch]

    def ours() -> None:
        for _ in loader:
            pass

    yield row(SECTION, "feed", "DataLoader", turns({"DataLoader": usual, "feed": ours}, 5, device, warm_up=1), 0.2)
