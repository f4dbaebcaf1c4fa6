"""Accuracy on corrupted test images: noise, blur and loss of contrast of five severities, made on the fly."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from sparselab.core.options import Options as AnyOptions
from sparselab.core.seeds import derive_seed
from sparselab.training.metrics.metric import METRICS, Metric, Subject

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["gaussian_noise", "gaussian_blur", "contrast"]
SEVERITIES: dict[str, tuple[float, ...]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
}
"""By severity, from 1 to 5: standard deviation of noise on pixels in [0, 1], of the blur in pixels; share of contrast left."""
REACH = 4.0  # standard deviations of the blur's kernel


class CorruptionOptions(AnyOptions):
    """Which corruptions, and how severe."""

    kinds: list[Kind] = Field(
        min_length=1,
        description="any of gaussian_noise, gaussian_blur, contrast",
    )
    severities: list[Annotated[int, Field(ge=1, le=5)]] = Field(
        min_length=1, description="from 1 (slight) to 5, such as [3]"
    )

    @field_validator("kinds", "severities")
    @classmethod
    def _once(cls, values: list[object]) -> list[object]:
        if len(set(values)) < len(values):
            raise ValueError("names one twice")
        return values

    def sets(self) -> list[tuple[str, int]]:
        """Every kind at every severity."""
        return [(kind, severity) for kind in self.kinds for severity in self.severities]


@METRICS.register("corrupted")
class Corrupted(Metric):
    """``corrupted_<kind>_<severity>``: accuracy on the test images so corrupted, and ``corrupted``, the mean of all.

    The sets are like those of Hendrycks and Dietterich (2019, arXiv 1903.12261) and are not theirs: "-C-like". Noise is
    drawn for each image from its own pixels, so that batches, order and processes do not matter and every cell sees the
    same pictures, which are rounded to 8 bits.
    """

    Options = CorruptionOptions

    def measure(self, subject: Subject) -> dict[str, float]:
        return accuracies(subject, subject.logits, self.options)


def accuracies(subject: Subject, logits: Callable[[Tensor], Tensor], options: CorruptionOptions) -> dict[str, float]:
    """Accuracy of a network by corruption and severity, and on average. logits: of inputs, (n, classes)."""
    import torch
    from torchmetrics.classification import MulticlassAccuracy

    found: dict[str, float] = {}
    with torch.no_grad():
        for kind, severity in options.sets():
            right = MulticlassAccuracy(subject.data.classes, average="micro")
            for inputs, labels in corrupted(subject, kind, severity):
                right = right.to(labels.device)
                right.update(logits(inputs).argmax(-1), labels)
            found[f"corrupted_{kind}_{severity}"] = float(right.compute())
    return {**found, "corrupted": sum(found.values()) / len(found)}


def corrupted(subject: Subject, kind: str, severity: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The test split with corrupted images, (inputs, labels), as the network reads them."""
    for inputs, labels in subject.batches():
        yield subject.inputs(corrupt(subject.pixels(inputs), kind, severity)), labels


def corrupt(pixels: Tensor, kind: str, severity: int) -> Tensor:
    """Corrupted pictures. pixels: (n, c, h, w) in [0, 1]. severity: 1 to 5. In steps of 1/255, as the pictures were."""
    level = SEVERITIES[kind][severity - 1]
    return (CORRUPTIONS[kind](pixels, level).clamp(0, 1) * 255).round() / 255


def gaussian_noise(pixels: Tensor, level: float) -> Tensor:
    """Add normal noise of this standard deviation to ``pixels`` (n, c, h, w); an image's noise follows from its content."""
    import torch

    noise = torch.empty(pixels.shape)
    for place, image in zip(noise, (pixels * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy(), strict=True):
        seed = derive_seed("corrupted", "gaussian_noise", zlib.crc32(image.tobytes()))
        place.normal_(generator=torch.Generator().manual_seed(seed))
    return pixels + level * noise.to(pixels.device)


def gaussian_blur(pixels: Tensor, level: float) -> Tensor:
    """A Gaussian kernel of this standard deviation in pixels, cut off at four; borders are mirrored."""
    import torch
    from torch.nn.functional import conv2d, pad

    channels, least = pixels.shape[1], min(pixels.shape[2:])
    radius = min(int(REACH * level + 0.5), least - 1)
    at = torch.arange(-radius, radius + 1, device=pixels.device, dtype=pixels.dtype)
    kernel = torch.exp(-(at**2) / (2 * level**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    padded = pad(pixels, (radius,) * 4, mode="reflect")
    return conv2d(conv2d(padded, kernel, groups=channels), kernel.transpose(2, 3), groups=channels)


def contrast(pixels: Tensor, level: float) -> Tensor:
    """Draw each channel of ``pixels`` (n, c, h, w) towards its mean over the image; this share of its deviations is left."""
    mean = pixels.mean((2, 3), keepdim=True)
    return (pixels - mean) * level + mean


CORRUPTIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": gaussian_blur,
    "contrast": contrast,
}
