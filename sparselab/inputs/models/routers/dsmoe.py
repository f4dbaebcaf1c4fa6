"""Router with experts that every token shares [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.inputs.models.router import ROUTERS, WHERE, Counted, largest

if TYPE_CHECKING:
    from torch import Tensor


@ROUTERS.register("dsmoe")
class DSMoE(Counted):
    """The first ``shared`` experts always, with a factor of 1, and of the others the ``k - shared`` most probable.

    DeepSeekMoE (Dai et al. 2024, arXiv 2401.06066) as thunlp/BlockFFN has it: probabilities are divided by their sum.
    """

    class Options(Counted.Options):
        shared: int = Field(2, ge=1, description="experts that all tokens have, at least 1 and below k")

    options: Options

    def issues(self, experts: int) -> list[Issue]:
        o, found = self.options, super().issues(experts)
        if o.shared >= o.k:
            fix = f"write at most {o.k - 1}" if o.k > 1 else f"write {WHERE}.k=2 or more"
            found.append(Issue(f"{WHERE}.shared={o.shared}", f"leaves none of k={o.k} experts to choose", fix))
        return found

    def scored(self, experts: int) -> int:
        return experts - self.options.shared

    def gates(self, scores: Tensor, gain: Tensor | None, training: bool) -> Tensor:
        import torch

        shared = scores.new_ones(*scores.shape[:-1], self.options.shared)
        chosen = largest(scores.softmax(-1), self.options.k - self.options.shared)
        return torch.cat([shared, chosen], -1)
