"""The easiest examples leave: those that a network seldom forgets [no torch at import]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.training.removals.removal import REMOVALS, Removal, RemovalOptions

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.removals.torch_side.tally import Tally


@REMOVALS.register("forgetting")
class Forgetting(Removal):
    """Fewest forgetting events first (Toneva et al. 2019, arXiv 1812.05159; dynamic data removal of arXiv 2209.09476).

    An event is an example that was right when it was last seen, and now is wrong, among all outputs of the network. One that
    never was right counts as forgotten at every epoch (neu-spiral/SparCL ``compute_forgetting_statistics``).
    ``counts=mistaken`` counts how often it was wrong.
    """

    class Options(RemovalOptions):
        counts: Literal["forgotten", "mistaken"] = Field(
            description="forgotten or mistaken: what counts against an example's removal"
        )

    options: Options

    def scores(self, tally: Tally) -> Tensor:
        return tally.forgotten() if self.options.counts == "forgotten" else tally.wrong.long()


@REMOVALS.register("random")
class AtRandom(Removal):
    """Examples leave at random: what removals that look at them are compared with."""

    def scores(self, tally: Tally) -> Tensor:
        import torch

        return torch.zeros_like(tally.wrong, dtype=torch.int64)
