"""Lightning's checkpoints through the project's store: atomic, hashed, verified, the last two kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.plugins.io import CheckpointIO

if TYPE_CHECKING:
    from sparselab.store.checkpoints import Checkpoint, Checkpoints


class StoreIO(CheckpointIO):
    """Lightning says what is in a checkpoint and when it is read; where and how is the store's."""

    def __init__(self, checkpoints: Checkpoints, found: Checkpoint | None):
        self.checkpoints = checkpoints
        self.found = found

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.checkpoints.save(checkpoint, checkpoint["global_step"])

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint that was verified before the run began; its bytes are not read twice."""
        if self.found is None:
            raise FileNotFoundError(str(path))
        return self.found.state

    def remove_checkpoint(self, path: Any) -> None:
        """The store removes what it no longer needs by itself."""
