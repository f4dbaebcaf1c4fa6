"""Router of BlockFFN: positive scores at a common length [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.inputs.models.router import ROUTERS, Rectified

if TYPE_CHECKING:
    from torch import Tensor


@ROUTERS.register("relu_rms")
class ReLURMS(Rectified):
    """``A = gain * A1 / sqrt(mean(A1^2) + eps)``, ``A1 = ReLU(scores)`` (arXiv 2507.08771, section 3.1).

    The mean is over all experts, zeros included. A token without a positive score has no expert.
    """

    class Options(Rectified.Options):
        eps: float = Field(1e-6, gt=0, description="added to the mean square, above 0")

    options: Options
    gained = True

    def gates(self, scores: Tensor, gain: Tensor | None, training: bool) -> Tensor:
        assert gain is not None
        positive = scores.relu()
        return gain * (positive * (positive.square().mean(-1, keepdim=True) + self.options.eps).rsqrt())
