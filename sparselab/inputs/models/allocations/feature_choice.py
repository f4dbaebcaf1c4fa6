"""Feature choice: every feature takes its best tokens of the batch, as many as a law says [no torch at import]."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.inputs.models.allocation import ALLOCATIONS, Budgeted, best_pairs, nth_largest, quick
from sparselab.inputs.models.zipf import shares

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.inputs.models.shared import Shared

MEMORY = 0.9  # of the averages that features are ranked by


@ALLOCATIONS.register("feature_choice")
class FeatureChoice(Budgeted):
    """Each feature's ``m`` largest magnitudes of a batch of n tokens; all ``m`` sum to ``k n`` (arXiv 2411.02124, abstract).

    ``const``: the same m for all (the abstract). ``zipf``: m of a feature of rank r is proportional to (r + beta)^-alpha (a
    reviewer says that a Zipf law sets it; this form is ours), at least 1 and at most n. Features are ranked by how often
    they would fire were the budget spent on the best pairs anywhere, averaged, every ``rerank`` batches [ours]: their
    own firing follows the law that they are given. Alone, a token's features fire where they reach the mean of the smallest
    magnitude that batches kept of that feature [ours].
    """

    thresholds = "each"

    class Options(Budgeted.Options):
        law: Literal["const", "zipf"] = Field("zipf", description="const: as many tokens for each feature; or zipf")
        alpha: float = Field(1.0, ge=0, description="exponent of the Zipf law, at least 0; 0 is const")
        beta: float = Field(20.0, ge=0, description="what is added to ranks, at least 0")
        rerank: int = Field(40, ge=1, description="batches after which features are ranked anew, at least 1")

    options: Options

    def counts(self, features: int, tokens: int) -> list[int]:
        """Tokens that the feature of each rank may take of a batch of so many; falling."""
        o = self.options
        return _counts(features, tokens, o.k * tokens, o.alpha if o.law == "zipf" else 0.0, o.beta)

    def state(self, features: int) -> dict[str, Tensor]:
        import torch

        return {"rank": torch.arange(features), "wanted": torch.zeros(features)}

    def kept(self, magnitudes: Tensor, state: dict[str, Tensor], shared: Shared) -> Tensor:
        import torch

        counts = self.counts(magnitudes.shape[1], len(magnitudes) * shared.world)
        mine = torch.tensor(counts, device=magnitudes.device)[state["rank"]]
        if quick(magnitudes, shared):
            reached = magnitudes >= (bar := nth_largest(magnitudes.T.contiguous(), mine))
            if bool(((torch.count_nonzero(reached, 0) == mine) | (bar <= 0)).all()):  # else some are equal
                return reached
        values, at = magnitudes.topk(min(counts[0], len(magnitudes)), 0)
        return torch.zeros_like(magnitudes, dtype=torch.bool).scatter_(0, at, shared.best(values, mine))

    def learn(self, magnitudes: Tensor, state: dict[str, Tensor], batch: int, shared: Shared) -> None:
        if self.options.law == "const" or batch % self.options.rerank:
            return
        tokens = len(magnitudes) * shared.world
        fired = shared.total(best_pairs(magnitudes, self.options.k * tokens, shared).float().sum(0)) / tokens
        state["wanted"].lerp_(fired, 1.0 if not batch else 1 - MEMORY)
        order = state["wanted"].argsort(descending=True, stable=True)
        state["rank"].scatter_(0, order, state["rank"].new_tensor(range(len(order))))


@lru_cache(maxsize=64)
def _counts(features: int, tokens: int, budget: int, alpha: float, beta: float) -> list[int]:
    return [min(max(1, round(budget * share)), tokens) for share in shares(features, alpha, beta)]
