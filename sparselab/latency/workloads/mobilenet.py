"""MobileNet v1 (arXiv 1704.04861) and v2 (arXiv 1801.04381), whose time is in their 1x1 convolutions."""

from __future__ import annotations

from pydantic import Field

from sparselab.core.options import Options
from sparselab.latency.workloads.workload import WORKLOADS, Step, Workload

# (outputs at width 1, stride) of the separable blocks.
V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
# (expansion, outputs at width 1, blocks, stride of the first one).
V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FEATURES = 1280  # of MobileNet v2 before its head


class SizeOptions(Options):
    """Base of both."""

    width: float = Field(gt=0, le=8, description="factor of all widths, above 0")
    image: int = Field(ge=32, le=4096, description="side of the image in pixels, 32 to 4096")
    classes: int = Field(ge=2, description="at least 2")


def rounded(channels: float, divisor: int = 8) -> int:
    """To a multiple of ``divisor``, not more than 10 % below (as in the authors' code)."""
    near = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * channels else near


@WORKLOADS.register("mobilenet_v1")
class MobileNetV1(Workload):
    """13 separable blocks: a depthwise 3x3 and a pointwise convolution each."""

    Options = SizeOptions
    options: SizeOptions

    def steps(self) -> list[Step]:
        o = self.options
        channels = rounded(32 * o.width)
        steps = [Step("stem", channels, 3, (o.image, o.image), kernel=3, stride=2)]
        for outputs, stride in V1:
            steps.append(Step("depthwise", channels, channels, steps[-1].after, kernel=3, stride=stride))
            steps.append(Step("pointwise", rounded(outputs * o.width), channels, steps[-1].after))
            channels = steps[-1].outputs
        return [*steps, Step("head", o.classes, channels, steps[-1].after, activated=False)]


@WORKLOADS.register("mobilenet_v2")
class MobileNetV2(Workload):
    """17 inverted residuals: expand, depthwise 3x3, project without an activation."""

    Options = SizeOptions
    options: SizeOptions

    def steps(self) -> list[Step]:
        o = self.options
        channels = rounded(32 * o.width)
        steps = [Step("stem", channels, 3, (o.image, o.image), kernel=3, stride=2)]
        for expansion, width, blocks, first in V2:
            for block in range(blocks):
                outputs, stride, inner = rounded(width * o.width), first if block == 0 else 1, channels * expansion
                if expansion > 1:
                    steps.append(Step("pointwise", inner, channels, steps[-1].after))
                steps.append(Step("depthwise", inner, inner, steps[-1].after, kernel=3, stride=stride))
                added = stride == 1 and channels == outputs
                steps.append(Step("pointwise", outputs, inner, steps[-1].after, activated=False, residual=added))
                channels = outputs
        features = rounded(FEATURES * max(1.0, o.width))
        steps.append(Step("pointwise", features, channels, steps[-1].after))
        return [*steps, Step("head", o.classes, features, steps[-1].after, activated=False)]
