"""The weights at early points of a run, kept beside its result for cells that start from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.core.errors import RunFailed
from sparselab.storage.atomic import shown
from sparselab.storage.export import early, save_early

if TYPE_CHECKING:
    from torch import nn

    from sparselab.training.loop.loop import Loop


class Keeper:
    """Observer: writes the network as it computes after update k (0: before the first mask), once, without a moving average.

    points: update by spelled point. What it writes precedes the checkpoint of that update, so a resumed run finds it.
    """

    def __init__(self, folder: Path, points: Mapping[str, int]):
        self.folder = folder
        self.points = points

    def begin(self, network: nn.Module) -> None:
        """Before the first mask of a run that begins."""
        self._keep(network, 0)

    def after_update(self, loop: Loop, step: int) -> None:
        if step and loop.trainer.is_global_zero:
            self._keep(loop.task.network, step)

    def _keep(self, network: nn.Module, step: int) -> None:
        for point in (point for point, update in self.points.items() if update == step):
            buffers = [name for name, _ in network.named_buffers()]
            save_early(self.folder, point, network.state_dict(), buffers)

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass


def kept_files(folder: Path, points: Mapping[str, int]) -> dict[str, bytes]:
    """Return the files that were kept, by name. RunFailed where one is gone."""
    found = {}
    for point in points:
        try:
            found[early(point)] = (folder / early(point)).read_bytes()
        except OSError as error:
            problem = f"cannot be read ({error.strerror}) — force=true runs the cell again"
            raise RunFailed(f"{shown(folder / early(point))}: {problem}") from None
    return found
