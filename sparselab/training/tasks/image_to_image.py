"""Image-to-image regression, such as restoration [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sparselab.core.data_types import Images
from sparselab.core.errors import Issue
from sparselab.core.options import Options, off
from sparselab.training.tasks.task import TASKS, Batch, Task
from sparselab.training.tasks.totals import totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torchmetrics import Metric

    from sparselab.core.data_spec import DataSpec
    from sparselab.training.losses.context import StepContext

WINDOW = 11  # pixels of SSIM's window (Wang et al. 2004)


@TASKS.register("image_to_image")
class ImageToImage(Task):
    """Mean squared (or absolute) error of pixels from 0 to 1. Batches: two tensors (n, c, h, w).

    psnr: 10 log10(1 / mean squared error) of each image, in dB, and the mean over images; psnr_input: that of what the network
    is given. ssim: structural similarity (Wang et al. 2004) with a Gaussian window of 11 pixels. For both the output is clipped
    to [0, 1]; ``loss`` is the mean squared error of the output as it is.
    """

    needs = (Images, Images)
    headline = "psnr"

    class Options(Options):
        loss: Literal["mse", "l1"] = off("mse", description="mse or l1: the training loss")

    options: Options

    def issues(self, data: DataSpec) -> list[Issue]:
        found = super().issues(data)
        if not found and min(data.targets.shape[1:]) < WINDOW:
            problem = f"scores by SSIM, whose window of {WINDOW} pixels is wider than {data.targets}"
            found.append(Issue(f"task={self.name}", problem, "use larger images or patches"))
        return found

    def criterion(self, outputs: Tensor, batch: Batch, context: StepContext) -> Tensor:
        from torch.nn import functional as F

        error = F.mse_loss if self.options.loss == "mse" else F.l1_loss
        return error(outputs.float(), batch[1])

    def metrics(self, data: DataSpec) -> dict[str, Metric]:
        from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

        def psnr() -> Metric:
            return PeakSignalNoiseRatio((0.0, 1.0), reduction="elementwise_mean", dim=(1, 2, 3))

        ssim = StructuralSimilarityIndexMeasure(data_range=(0.0, 1.0), kernel_size=WINDOW)
        return {**totals("squared", "pixels", "n"), "psnr": psnr(), "psnr_input": psnr(), "ssim": ssim}

    def score(self, metrics: Mapping[str, Metric], outputs: Tensor, batch: Batch, context: StepContext) -> None:
        restored, (given, wanted, *_) = outputs.float(), batch
        metrics["squared"].update((restored - wanted).square().sum())
        metrics["pixels"].update(wanted.numel())
        metrics["n"].update(len(wanted))
        metrics["psnr"].update(restored, wanted)  # torchmetrics clips to the range
        metrics["psnr_input"].update(given.float(), wanted)
        metrics["ssim"].update(restored, wanted)

    def numbers(self, values: Mapping[str, float], split: str, context: StepContext) -> dict[str, float]:
        told = {name: values[name] for name in ("psnr", "psnr_input", "ssim", "n")}
        return {**told, "loss": values["squared"] / values["pixels"]}

    @classmethod
    def lines(cls, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        n, ssim = metrics["test.n"], metrics["test.ssim"]
        gain = metrics["test.psnr"] - metrics["test.psnr_input"]
        text = f"{metrics['test.psnr']:.2f} dB ({gain:+.2f} over its input, SSIM {ssim:.4f}, n = {n:,.0f} images)"
        return [("test PSNR", text)]
