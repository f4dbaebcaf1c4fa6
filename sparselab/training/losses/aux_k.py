"""Losses for features that do not fire: aux_k, and aux_zipf, which is for those that fire too rarely as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.data_types import Activations
from sparselab.training.losses.extra_loss import LOSSES, ExtraLoss

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.losses.context import StepContext

CODES = (Activations, Activations)


@LOSSES.register("aux_k")
class AuxK(ExtraLoss):
    """Loss of restoring the error from features that are dead (Gao et al. 2024, arXiv 2406.04093, appendix A.2).

    The error ``e = x - x_hat``, held fixed, is restored from the ``k`` largest values that dead features have before the rule
    chooses; the loss is the squared error over that of the mean of e (openai/sparse_autoencoder train.py). 0 where no feature
    is dead, or nothing is left to restore.

    Dead is what has not fired in ``model.window`` training batches.
    """

    class Options(ExtraLoss.Options):
        weight: float = Field(ge=0, description="factor of the loss, at least 0; 1/32 is the papers'")
        k: int | None = Field(ge=1, description="features that restore the error of a vector; null: half its width")

    options: Options
    needs_states = True
    needs_pair = CODES

    def prepare(self, context: StepContext) -> None:
        context.watch_states()

    def idle(self, context: StepContext) -> Tensor:
        """(features,) bool: the features that are to learn from the error."""
        dead: Tensor = context.network.select.dead  # type: ignore[union-attr, assignment]
        return dead

    def loss(self, context: StepContext, batch: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        import torch

        from sparselab.training.tasks.reconstruction import scatter

        assert context.states is not None
        idle = self.idle(context).nonzero()[:, 0]  # waits for the device, and spares most updates all of the rest
        if not len(idle):
            return logits.new_zeros(())
        before = context.states.blocks[0][:, idle]
        values, at = before.topk(min(self.options.k or max(batch[1].shape[-1] // 2, 1), len(idle)), sorted=False)
        codes = torch.zeros_like(before).scatter(-1, at, values.relu())
        restored = codes @ context.network.decoder.weight[:, idle].T.to(codes.dtype)  # type: ignore[union-attr, index]
        error = batch[1] - logits.detach().float()
        squared, scale = (restored.float() - error).square().mean(), scatter(error)
        return torch.where(
            scale > 0, squared / scale.clamp(min=torch.finfo(scale.dtype).tiny), torch.zeros_like(squared)
        )


@LOSSES.register("aux_zipf")
class AuxZipf(AuxK):
    """Auxiliary loss aux_k for all features that are used too little.

    arXiv 2411.02124 says that its aux_zipf_loss generalises aux_k_loss to those; the paper's text was not to be had, and this
    form is ours.

    Zipf's law is fitted to the densities of the features that are not dead. One is used too little where its own is below
    ``share`` of the law's at its rank, or where it is dead. With the dead alone the loss is aux_k.
    """

    version = 2  # 2: what is left of a dead feature's average density is no point of the fit

    class Options(AuxK.Options):
        share: float = Field(gt=0, le=1, description="share of the law's density below which one is too rare")

    options: Options

    def idle(self, context: StepContext) -> Tensor:
        from sparselab.inputs.models.zipf import fitted

        dead = super().idle(context)
        density: Tensor = context.network.select.density  # type: ignore[union-attr, assignment]
        alive = density.masked_fill(dead, 0)  # an average that only decays comes to 0 after thousands of batches
        return (alive < self.options.share * fitted(alive)) | dead
