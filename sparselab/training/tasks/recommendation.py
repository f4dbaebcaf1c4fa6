"""Recommendation from implicit feedback [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sparselab.core.data_types import Taken, Users
from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.training.tasks.task import TASKS, Batch, Task
from sparselab.training.tasks.totals import totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torchmetrics import Metric

    from sparselab.core.data_spec import DataSpec
    from sparselab.training.losses.context import StepContext

SCORES = ("recall", "recall_truncated", "ndcg")


@TASKS.register("recommendation")
class Recommendation(Task):
    """Rank the items that a user has not taken yet. Batches: users (n, 1 + candidates) and what they took, (n, items).

    A third part, in evaluation, is bool (n, items): True where an item is not ranked. Of a user who is to find m items, among
    the first k: recall = hits / m (He et al. 2020, arXiv 2002.02126), recall_truncated = hits / min(k, m) (Liang et al. 2018,
    arXiv 1802.05814), ndcg = sum over hits of 1 / log2(1 + rank), over that sum of min(k, m) hits at the top; all are means
    over users. For the first of ``k`` these are their names, for others ``recall_50`` …; ``loss`` is the cross-entropy of what
    is to be found, a mean over users. With one item to find recall is the hit rate.
    """

    needs = (Users, Taken)
    headline = "recall"

    class Options(Options):
        loss: Literal["bpr", "softmax", "bce"] = Field(description="bpr, softmax or bce: the training loss")
        k: list[Annotated[int, Field(ge=1)]] = Field(
            min_length=1, description="how many items are recommended: a list, the first counts"
        )

    options: Options

    def issues(self, data: DataSpec) -> list[Issue]:
        found = super().issues(data)
        if found or not isinstance(data.inputs, Users) or not isinstance(data.targets, Taken):
            return found
        most = max(self.options.k)
        if most > data.targets.ranked:
            problem = f"recommends {most} items, and {data.name} ranks {data.targets.ranked}"
            found.append(Issue(f"task.k={self.options.k}", problem, f"write at most {data.targets.ranked}"))
        if len(set(self.options.k)) < len(self.options.k):
            found.append(Issue(f"task.k={self.options.k}", "names a number twice", "write each once"))
        if self.options.loss == "bpr" and not data.inputs.candidates:
            problem = "compares an item that was taken with one that was not, and examples are users"
            found.append(Issue("task.loss=bpr", problem, "write task.loss=softmax, or dataset.examples=pairs"))
        return found

    def criterion(self, outputs: Tensor, batch: Batch, context: StepContext) -> Tensor:
        from torch.nn import functional as F

        scores, wanted = outputs.float(), batch[1]
        if self.options.loss == "bpr":
            return pairwise(scores)
        if self.options.loss == "bce":
            return F.binary_cross_entropy_with_logits(scores, wanted)
        return -(scores.log_softmax(-1) * wanted).sum(-1).mean()

    def metrics(self, data: DataSpec) -> dict[str, Metric]:
        return totals("n", "loss", *(f"{name}_{k}" for k in self.options.k for name in SCORES))

    def score(self, metrics: Mapping[str, Metric], outputs: Tensor, batch: Batch, context: StepContext) -> None:
        wanted, unranked = batch[1].bool(), batch[2]
        scores = outputs.float().masked_fill(unranked, -float("inf"))
        order = scores.topk(max(self.options.k), -1).indices
        hits, sizes = wanted.gather(-1, order), wanted.sum(-1)
        for k in self.options.k:
            for name, values in zip(SCORES, ranking(hits[:, :k], sizes), strict=True):
                metrics[f"{name}_{k}"].update(values.sum())
        nats = -scores.log_softmax(-1).masked_fill(~wanted, 0.0).sum(-1)
        metrics["loss"].update(nats.double().sum())
        metrics["n"].update(len(wanted))

    def numbers(self, values: Mapping[str, float], split: str, context: StepContext) -> dict[str, float]:
        n, (first, *others) = values["n"], self.options.k
        told = {name: values[f"{name}_{first}"] / n for name in SCORES}
        told |= {f"{name}_{k}": values[f"{name}_{k}"] / n for k in others for name in SCORES}
        return {**told, "loss": values["loss"] / n, "n": n}

    @classmethod
    def lines(cls, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        n, truncated, ndcg = metrics["test.n"], metrics["test.recall_truncated"], metrics["test.ndcg"]
        text = f"{metrics['test.recall']:.4f} (truncated {truncated:.4f}, nDCG {ndcg:.4f}, n = {n:,.0f} users)"
        return [("test recall", text)]


def pairwise(scores: Tensor) -> Tensor:
    """Bayesian personalised ranking (Rendle et al. 2009, arXiv 1205.2618), as softplus(negative - positive).

    Args:
        scores: (n, 1 + negatives), of the item that was taken first

    Returns:
        () float, the mean over all pairs.
    """
    from torch.nn import functional as F

    return F.softplus(scores[:, 1:] - scores[:, :1]).mean()


def ranking(hits: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Recall, truncated recall and nDCG of rankings, a user each, vectorised over users.

    The values are those of torchmetrics' RetrievalRecall and RetrievalNormalizedDCG, which go from user to user in Python.

    Args:
        hits: (n, k) bool, whether the item at each rank is one to find
        sizes: (n,) int64 from 1: how many there are to find

    Returns:
        Three tensors (n,) float64.
    """
    import torch

    k = hits.shape[-1]
    discount = 1 / torch.arange(2, k + 2, dtype=torch.float64, device=hits.device).log2()
    ideal = discount.cumsum(0)[sizes.clamp(max=k) - 1]
    found = hits.sum(-1).double()
    return found / sizes, found / sizes.clamp(max=k), (hits * discount).sum(-1) / ideal
