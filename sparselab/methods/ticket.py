"""A mask that another network found: lottery tickets, retraining with the same mask, fine-tuning of a pruned network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.methods.method import METHODS, Method
from sparselab.spec.options import Options

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.sparsity.probe import Probe
    from sparselab.sparsity.slots import Moment, Slot


@METHODS.register("ticket")
class Ticket(Method):
    """Keep the positions whose weights are largest in ``source``; train the network's own weights there, mask fixed.

    source: a network's weights file, or ``cell:<overrides>`` of the cell that makes it; null is the network's own weights as
    they are before the first update. Where the source is as sparse as is asked for, the mask is the source's own: its zeros
    rank last. With the initial weights of the source's seed it is a lottery ticket (Frankle & Carbin 2019, arXiv 1803.03635).
    """

    class Options(Options):
        source: str | None = Field(None, description="a .safetensors file, cell:…, or null for its own weights")

    options: Options
    schedules = ("constant",)

    def files(self) -> dict[str, str]:
        return {"source": self.options.source} if self.options.source else {}

    def prepare(self, slots: list[Slot], probe: Probe) -> None:
        if self.options.source is None:
            self.scores = {slot.name: slot.dense.abs() for slot in slots}
            return
        from safetensors import safe_open

        with safe_open(self.options.source, framework="pt") as file:
            self.scores = {slot.name: file.get_tensor(slot.name).abs().to(slot.mask.device) for slot in slots}

    def score(self, slot: Slot, moment: Moment) -> Tensor:
        return self.scores[slot.name]
