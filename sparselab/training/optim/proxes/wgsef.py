"""The weighted group sparse envelope function: at most k groups of a layer, k fixed beforehand [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.training.optim.prox import PROXES, Blocks, Prox

if TYPE_CHECKING:
    from torch import Tensor


@PROXES.register("wgsef")
class WGSEF(Prox):
    """``lambda GS_k(theta)``, GS_k(theta) = half the least sum of d_j |theta_j|^2 / u_j over u in [0, 1]^m with sum u <= k.

    The largest convex function below "half the weighted squares where at most k groups are not zero, else infinite" (Refael,
    Arbel, Huleihel, arXiv 2212.12921, whose body could not be read: the group form of the ungrouped envelope of Beck & Refael
    2022). With k = 1 it is the squared group lasso, with all groups a ridge. Groups vanish exactly, the others shrink by
    u / (lambda d + u) at each step; more than k may stay while lambda x sum of rates is small.
    """

    class Options(Prox.Options):
        weights: Literal["one", "sqrt_size"] = Field("one", description="d_j: one, or the root of a group's size")
        solver: Literal["sort", "bisect"] = Field("sort", description="sort or bisect: how the root is found")

    version = 2
    options: Options

    def factors(self, sizes: Tensor, lam: float, blocks: Blocks, weights: Tensor) -> Tensor:
        from sparselab.training.optim.torch_side.envelope import factors

        return factors(sizes, lam, blocks.level, self._weighted(weights), self.options.solver)

    def penalty(self, sizes: Tensor, blocks: Blocks, weights: Tensor) -> float:
        from sparselab.training.optim.torch_side.envelope import envelope

        d = self._weighted(weights)
        return envelope(sizes if d is None else d.sqrt() * sizes, blocks.level)

    def _weighted(self, sizes: Tensor) -> Tensor | None:
        return sizes.sqrt() if self.options.weights == "sqrt_size" else None
