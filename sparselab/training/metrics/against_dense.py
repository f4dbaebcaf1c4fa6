"""How far a masked network is from the network without masks: what a mask preserves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.errors import Issue, RunFailed
from sparselab.core.options import Options
from sparselab.training.metrics.metric import METRICS, Metric, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from sparselab.core.model_spec import Layer


@METRICS.register("against_dense")
class AgainstDense(Metric):
    """``kl_reverse`` KL(sparse || dense), ``kl_forward`` KL(dense || sparse) and ``loss_batch``, the sparse network's loss.

    Means over examples; batch norms of both networks use the statistics of the batch, as a search for masks does, and
    nothing is dropped.

    dense: the weights of the network without masks, such as those that the cell itself starts from.
    """

    class Options(Options):
        dense: str | None = Field(description="a .safetensors file of this network, or {cell: …}")

    def files(self) -> dict[str, str]:
        return {"dense": self.options.dense} if self.options.dense is not None else {}

    def against(self, layers: list[Layer], dependencies: Mapping[str, str]) -> list[Issue]:
        if self.options.dense is not None:
            return []
        return [Issue(f"metric.{self.name}.dense", "names no network", "write a .safetensors file, or {cell: …}")]

    def measure(self, subject: Subject) -> dict[str, float]:
        import copy

        import torch
        from safetensors.torch import load_file
        from torchmetrics import MeanMetric

        from sparselab.training.losses.preserving import divergence

        networks = [copy.deepcopy(subject.network) for _ in range(2)]
        for module in (module for network in networks for module in network.modules()):
            module.__dict__.pop("forward", None)  # statistics shared by processes: here of this one's share
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.train()  # alone: dropout would differ between the two
        try:
            networks[1].load_state_dict(load_file(Path(self.options.dense).expanduser()))
        except (OSError, RuntimeError) as error:
            problem = str(error).splitlines()[-1].strip()
            raise RunFailed(
                f"metric.{self.name}.dense={self.options.dense}: {problem} — name weights of this network"
            ) from None
        device = next(subject.network.parameters()).device
        means = {name: MeanMetric().to(device) for name in ("kl_reverse", "kl_forward", "loss_batch")}
        with torch.no_grad():
            for inputs, labels in no_singles(subject.batches()):
                sparse, dense = (network(inputs).float() for network in networks)
                means["kl_reverse"].update(divergence(sparse, dense, "reverse"), weight=len(labels))
                means["kl_forward"].update(divergence(sparse, dense, "forward"), weight=len(labels))
                means["loss_batch"].update(torch.nn.functional.cross_entropy(sparse, labels), weight=len(labels))
        return {name: float(mean.compute()) for name, mean in means.items()}


def no_singles(batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Join a batch of one example, of which batch norms have no statistics, to the batch before it.

    Args:
        batches: (inputs, targets)

    Returns:
        The same examples in the same order.
    """
    import torch

    held: tuple[Tensor, Tensor] | None = None
    for inputs, labels in batches:
        if held is not None and len(labels) == 1:
            held = torch.cat([held[0], inputs]), torch.cat([held[1], labels])
            continue
        if held is not None:
            yield held
        held = inputs, labels
    if held is not None:
        yield held
