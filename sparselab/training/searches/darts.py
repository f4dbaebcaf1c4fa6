"""Differentiable architecture search, and its form that sees the network pruned [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.training.searches.search import SEARCHES, Search

if TYPE_CHECKING:
    from sparselab.training.parts import UncheckedParts
    from sparselab.training.searches.torch_side.architect import Architect, Searched


@SEARCHES.register("darts")
class Darts(Search):
    """DARTS (Liu et al. 2019, arXiv 1806.09055): Adam on the weights of operations, by the gradient of the validation loss.

    ``unrolled``: of the loss after one more step of the network's weights, equation 7 there with the finite difference of
    equation 8; else of the loss as the weights are. ``sparsity``: the loss is that of a copy without this share of each layer,
    the smallest by magnitude (DASS, arXiv 2207.06968); a network that has masks is seen with these.
    """

    class Options(AnyOptions):
        unrolled: bool = Field(description="true or false: look one update of the weights ahead")
        sparsity: float | None = Field(ge=0, lt=1, description="share of each layer that the copy is without, or null")
        lr: float = Field(gt=0, description="Adam's learning rate, above 0")
        weight_decay: float = Field(ge=0, description="Adam's L2 penalty, at least 0")
        beta1: float = Field(ge=0, lt=1, description="in [0, 1)")
        beta2: float = Field(ge=0, lt=1, description="in [0, 1)")

    options: Options

    @property
    def passes(self) -> int:
        return 12 if self.options.unrolled else 3

    def issues(self, made: UncheckedParts) -> list[Issue]:
        found = []
        if self.options.unrolled and made.has("optim") and not made.parts["optim"].plain:
            problem = f"looks ahead by a step of SGD, and optim={made.parts['optim'].name} steps otherwise"
            found.append(Issue("search.unrolled=true", problem, "write optim=sgd or search.unrolled=false"))
        if self.options.unrolled and "trainer" not in made.invalid and made.cell.trainer.accumulate > 1:
            problem = "looks ahead by the gradient of a whole batch, and micro-batches come one by one"
            found.append(Issue("search.unrolled=true", problem, "write trainer.accumulate=1 or search.unrolled=false"))
        return found

    def architect(self, searched: Searched) -> Architect:
        from sparselab.training.searches.torch_side.architect import Architect

        return Architect(self.options, searched)
