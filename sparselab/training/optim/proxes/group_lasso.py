"""Group lasso (ProxSG, HSPG) and projection on the largest groups [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.training.optim.prox import PROXES, Blocks, Prox

if TYPE_CHECKING:
    from torch import Tensor


@PROXES.register("group_lasso")
class GroupLasso(Prox):
    """``lambda sum_j |theta_j|``: each group's norm falls by learning rate x lambda, to zero at least (ProxSG).

    How many groups stay is an outcome; ``keep`` and ``levels`` only say what ``levels_met`` is measured against. With
    ``half_space=0.5`` the second half of the run also sets a group to zero where the step turned it around,
    <theta_new, theta_old> < eps |theta_old|^2, and lets no group return (HSPG, Chen et al.).
    """

    def factors(self, sizes: Tensor, lam: float, blocks: Blocks, weights: Tensor) -> Tensor:
        return (1 - lam / sizes).clamp_min(0).where(sizes > 0, 0.0)

    def penalty(self, sizes: Tensor, blocks: Blocks, weights: Tensor) -> float:
        return float(sizes.sum())


@PROXES.register("hard")
class Hard(Prox):
    """The groups with the largest norms stay as they are, the others are zero: projection, as in iterative hard thresholding.

    ``weight`` has no part in it.
    """

    def factors(self, sizes: Tensor, lam: float, blocks: Blocks, weights: Tensor) -> Tensor:
        from sparselab.weights.select import largest

        return largest(sizes, blocks.level).to(sizes.dtype)
