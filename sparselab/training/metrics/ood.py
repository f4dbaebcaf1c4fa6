"""Detection of out-of-distribution images by the network's confidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.data_types import Images
from sparselab.core.errors import Issue, Issues, did_you_mean
from sparselab.core.options import Options
from sparselab.core.seeds import derive_seed
from sparselab.inputs.data.dataset import DATASETS, Dataset
from sparselab.training.metrics.metric import METRICS, Metric, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.core.data_spec import DataSpec

SIDE = 4  # tiles along each side of a shuffled image


@METRICS.register("ood")
class OutOfDistribution(Metric):
    """Area under the ROC curve of the largest softmax probability (Hendrycks and Gimpel 2017, arXiv 1610.02136).

    ``auroc_<set>`` is the chance that a test image is read with more confidence than an image of the set (0.5: it
    cannot tell). The sets ``made`` here have an image for each test image and are the same in every cell:

    - ``noise``: every pixel uniform in [0, 1];
    - ``shuffled``: the test image cut into 4 x 4 tiles, in random order (the border that 4 does not divide stays);
    - ``negative``: 1 - pixel.

    None of them is a set of arXiv 2202.02643, which uses other datasets of photographs; ``datasets`` names such ones:
    their test images, grey or in colour as the network's own are, resized (bilinear) to their size.
    """

    class Options(Options):
        made: list[Literal["noise", "shuffled", "negative"]] = Field(
            description="any of noise, shuffled, negative; or []"
        )
        datasets: list[str] = Field(description="names of image datasets, such as [mnist], or []")

    def issues(self, data: DataSpec) -> list[Issue]:
        found = Issues(super().issues(data))
        for name in self.options.datasets:
            where = f"metric.ood.datasets={name}"
            if name not in DATASETS:
                found.add(where, "no such dataset", did_you_mean(name, DATASETS))
            elif name == data.name:
                found.add(where, "is what the network is trained on", "name another dataset")
        if not self.options.made and not self.options.datasets:
            found.add("metric.ood", "has no set to compare with", "write metric.ood.made=[noise]")
        if not found.found:
            for name, dataset in self.datasets().items():
                with found.collect():
                    if not isinstance(dataset.spec().inputs, Images):
                        found.add(f"metric.ood.datasets={name}", "is not a dataset of images", "name another dataset")
        return found.found

    def datasets(self) -> dict[str, Dataset]:
        return {name: _whole(name, self.data_dir) for name in self.options.datasets}

    def measure(self, subject: Subject) -> dict[str, float]:
        inside = [confidence(subject, inputs) for inputs, _ in subject.batches()]
        found = {name: auroc(inside, made(subject, CHANGES[name])) for name in self.options.made}
        for name, dataset in self.datasets().items():
            found[name] = auroc(inside, others(subject, dataset))
        return {f"auroc_{name}": value for name, value in found.items()}


def _whole(name: str, data_dir: str | None) -> Dataset:
    """A dataset none of whose images are held out: its statistics are those of all training images."""
    cls = DATASETS[name]
    return cls(cls.Options(**({"val": 0} if "val" in cls.Options.model_fields else {})), data_dir)


def confidence(subject: Subject, inputs: Tensor) -> Tensor:
    """Return how sure the network is.

    Args:
        subject: the network
        inputs: (n, c, h, w), as the network reads them

    Returns:
        (n,) largest softmax probability of each.
    """
    import torch

    with torch.no_grad():
        return subject.logits(inputs).softmax(-1).amax(-1)


def auroc(inside: list[Tensor], outside: Iterator[Tensor]) -> float:
    """Return the area under the ROC curve, over all ranks; torchmetrics computes it, exactly.

    Args:
        inside: scores of test images, (n,) each batch
        outside: scores of other images, likewise

    Returns:
        From 0 to 1; 0.5 is chance.
    """
    import torch
    from torchmetrics.classification import BinaryAUROC

    area = BinaryAUROC().to(inside[0].device)
    for target, scores in ((1, inside), (0, outside)):
        for batch in scores:
            area.update(batch, torch.full(batch.shape, target, device=batch.device))
    return float(area.compute())


def made(subject: Subject, change: Callable[[Tensor, int], Tensor]) -> Iterator[Tensor]:
    """Confidences in changed test images, batch by batch; a place is a batch and a rank's share of it."""
    rank, world = ranks()
    for index, (inputs, _) in enumerate(subject.batches()):
        yield confidence(subject, subject.inputs(change(subject.pixels(inputs), index * world + rank)))


def others(subject: Subject, dataset: Dataset) -> Iterator[Tensor]:
    """Confidences in another dataset's test images; each rank reads its share of a batch."""
    from torch.nn.functional import interpolate

    rank, world = ranks()
    device = next(subject.network.parameters()).device
    splits: Any = dataset.load()  # of images
    theirs = Subject(subject.network, subject.logits, subject.batches, subject.data, splits.mean, splits.std)
    channels, *size = subject.data.shape
    for inputs, _ in splits.loader("test", 500, 0, rank=rank, world=world, device=str(device)):
        pixels = theirs.pixels(inputs)
        if pixels.shape[1] != channels:
            pixels = pixels.mean(1, keepdim=True).expand(-1, channels, -1, -1)
        yield confidence(subject, subject.inputs(interpolate(pixels, tuple(size), mode="bilinear", antialias=True)))


def ranks() -> tuple[int, int]:
    """(this process, how many there are)."""
    import torch.distributed as dist

    many = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if many else (0, 1)


def noise(pixels: Tensor, place: int) -> Tensor:
    """Draw noise on the CPU, addressed by the place.

    Args:
        pixels: (n, c, h, w)
        place: of the batch

    Returns:
        (n, c, h, w) uniform in [0, 1].
    """
    import torch

    generator = torch.Generator().manual_seed(derive_seed("ood", "noise", place))
    return torch.rand(pixels.shape, generator=generator).to(pixels.device)


def shuffled(pixels: Tensor, place: int) -> Tensor:
    """Put each image's tiles in an order of its own.

    Args:
        pixels: (n, c, h, w)
        place: of the batch

    Returns:
        (n, c, h, w).
    """
    import torch

    count, channels, height, width = pixels.shape
    high, wide = height // SIDE, width // SIDE
    if not high or not wide:
        raise ValueError(f"images of {height}x{width} pixels have no {SIDE}x{SIDE} tiles")
    inner = pixels[:, :, : high * SIDE, : wide * SIDE]
    tiles = inner.reshape(count, channels, SIDE, high, SIDE, wide).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    generator = torch.Generator().manual_seed(derive_seed("ood", "shuffled", place))
    order = torch.rand(count, SIDE * SIDE, generator=generator).argsort(1).to(pixels.device)
    tiles = tiles.gather(1, order[:, :, None, None, None].expand_as(tiles))
    out = pixels.clone()
    back = tiles.unflatten(1, (SIDE, SIDE)).permute(0, 3, 1, 4, 2, 5)
    out[:, :, : high * SIDE, : wide * SIDE] = back.reshape(inner.shape)
    return out


def negative(pixels: Tensor, place: int) -> Tensor:
    """Return the negatives of pixels from 0 to 1."""
    return 1 - pixels


CHANGES: dict[str, Callable[[Tensor, int], Tensor]] = {"noise": noise, "shuffled": shuffled, "negative": negative}
