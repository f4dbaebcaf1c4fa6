"""AdamS: Adam for methods that pull weights from inside the first moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparselab.training.optim.optim import OPTIMS, Optim, OptimOptions

if TYPE_CHECKING:
    import torch


@OPTIMS.register("adams")
class AdamS(Optim):
    """Adam; weights that the method blends into (``ChangesMoments.blend``) follow AdamS (arXiv 2509.25996, algorithm 1).

    Their second moment is that of the blended first moment, which is small at first: an update is up to 1 / (1 - beta1)
    times Adam's until the second moment has caught up. Warm up.
    """

    blends = True

    class Options(OptimOptions):
        beta1: float = Field(ge=0, lt=1, description="in [0, 1)")
        beta2: float = Field(ge=0, lt=1, description="in [0, 1)")
        eps: float = Field(ge=0, description="at least 0")

    options: Options

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        from sparselab.training.optim.torch_side.adams import AdamS

        o = self.options
        return AdamS(groups, lr=o.lr, betas=(o.beta1, o.beta2), eps=o.eps)
