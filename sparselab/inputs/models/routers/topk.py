"""Router by the largest softmax probabilities [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.inputs.models.router import ROUTERS, Counted, largest

if TYPE_CHECKING:
    from torch import Tensor


@ROUTERS.register("topk")
class TopK(Counted):
    """The ``k`` largest softmax probabilities, divided by their sum (Fedus et al. 2021, arXiv 2101.03961, as in Mixtral)."""

    def gates(self, scores: Tensor, gain: Tensor | None, training: bool) -> Tensor:
        return largest(scores.softmax(-1), self.options.k)
