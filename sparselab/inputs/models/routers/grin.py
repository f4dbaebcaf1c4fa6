"""Router of GRIN: experts are drawn, and the gradient is estimated (SparseMixer-v2) [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.inputs.models.router import ROUTERS, Counted

if TYPE_CHECKING:
    from torch import Tensor


@ROUTERS.register("grin")
class GRIN(Counted):
    """``k`` experts one after another, each drawn among those near the best that is left (Liu et al. 2024, arXiv 2409.12136).

    Near is within ``2 * jitter`` of the best score, relative to the larger of the two sizes. The gate is the softmax over
    those. In training a draw that is not the best counts a third with probability 3/4 (Heun's third-order method), and the
    scores' gradient is that of the softmax; in evaluation the best is taken. As in thunlp/BlockFFN, sparse_mixer.py.
    """

    class Options(Counted.Options):
        jitter: float = Field(0.1, ge=0, description="half the relative distance from the best score, at least 0")

    options: Options

    def gates(self, scores: Tensor, gain: Tensor | None, training: bool) -> Tensor:
        import torch

        gates = torch.zeros_like(scores)
        left = scores
        for _ in range(self.options.k):
            at, gate = self.drawn(scores, left, training)
            gates = gates.scatter(-1, at, gate)
            left = left.scatter(-1, at, float("-inf"))
        return gates

    def drawn(self, scores: Tensor, left: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        """Draw one expert of each token.

        Args:
            scores: (…, experts) float32
            left: the same, -inf for experts that the token has
            training: whether the expert is drawn; else it is the best

        Returns:
            (…, 1) int64, the expert; (…, 1), its gate, whose gradient goes to ``scores``.
        """
        import torch

        from sparselab.inputs.models.mixture import Drawn

        with torch.no_grad():
            best, first = left.max(-1, keepdim=True)
            far = (best - scores) / scores.abs().clamp(min=best) > 2 * self.options.jitter
            near = left.masked_fill(far, float("-inf"))
            shares = near.softmax(-1)
            at, factor = first, torch.ones_like(best)
            if training:
                at = (near - torch.empty_like(near).exponential_().log()).argmax(-1, keepdim=True)
                whole = (at == first) | (torch.rand_like(best) > 0.75)
                factor = torch.where(whole, 1.0, 0.3333)
        gate: Tensor = Drawn.apply(scores, shares, at, factor)
        return at, gate
