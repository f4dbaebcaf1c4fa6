"""How large the scales of batch norms are, of units that masks keep and of units that they remove."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sparselab.core.data_types import Pair
from sparselab.core.errors import Issue, RunFailed
from sparselab.core.options import Options
from sparselab.running.parts import pending
from sparselab.training.given_masks import file_issues
from sparselab.training.metrics.metric import METRICS, Metric, Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sparselab.core.model_spec import Layer


@METRICS.register("norm_scales")
class NormScales(Metric):
    """``scale_kept`` and ``scale_removed``: mean |gamma| of the units that masks keep and remove; ``scale_removed_max``.

    Norms are those behind the layers that the cell's targets name. Masks are those of ``masks``, else the cell's own; a dense
    cell without any has ``scale_kept`` alone, of all units.
    """

    needs: ClassVar[Pair | None] = None

    class Options(Options):
        masks: str | None = Field(
            description="a masks.safetensors of this network, {cell: …} of a cell that makes it, or null: its own"
        )

    def files(self) -> dict[str, str]:
        return {"masks": self.options.masks} if self.options.masks is not None else {}

    def against(self, layers: list[Layer], dependencies: Mapping[str, str]) -> list[Issue]:
        if self.options.masks is None or not layers or pending(self.options.masks, dependencies):
            return []
        return file_issues(self.options.masks, f"metric.{self.name}.masks", layers)

    def measure(self, subject: Subject) -> dict[str, float]:
        import torch

        from sparselab.storage.tensors import load_masks
        from sparselab.weights.whole_units import kept_units

        masks: Mapping[str, Tensor] = subject.masks
        if self.options.masks is not None:
            masks = load_masks(Path(self.options.masks).expanduser())
        kept, removed = [], []
        for layer in subject.weights:
            if not layer.norm:
                raise RunFailed(
                    f"metric.{self.name}: there is no norm behind {layer.name} — exclude it (targets.exclude)"
                )
            size = subject.network.get_parameter(f"{layer.norm}.weight").detach().float().abs()
            if masks and layer.tensor not in masks:
                raise RunFailed(f"metric.{self.name}: the masks have none of {layer.name} — give both the same targets")
            stays = (
                kept_units(masks[layer.tensor]).to(size.device) if masks else torch.ones_like(size, dtype=torch.bool)
            )
            kept.append(size[stays])
            removed.append(size[~stays])
        found = {"scale_kept": float(torch.cat(kept).mean())}
        if (gone := torch.cat(removed)).numel():
            found |= {"scale_removed": float(gone.mean()), "scale_removed_max": float(gone.max())}
        return found
