"""Lightning's checkpoints through the project's store: atomic, hashed, verified, the last two kept."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import torch

from sparselab.core.errors import refuse
from sparselab.core.processor import instructions
from sparselab.storage.atomic import shown
from sparselab.training.loop.lightning import pl, update_of

if TYPE_CHECKING:
    from sparselab.storage.checkpoints import Checkpoint, Checkpoints


ELSEWHERE = "elsewhere"


class StoreIO(pl.plugins.CheckpointIO):
    """Lightning says what is in a checkpoint and when it is read; where and how is the store's."""

    def __init__(self, checkpoints: Checkpoints, found: Checkpoint | None):
        self.checkpoints = checkpoints
        self.found = found
        self.facts: dict[str, Any] = {}  # for the manifest; see bit_facts

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.checkpoints.save(checkpoint, update_of(checkpoint), self.facts)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint that was verified before the run began; its bytes are not read twice."""
        if self.found is None:
            raise FileNotFoundError(str(path))
        return self.found.state

    def remove_checkpoint(self, path: Any) -> None:
        """The store removes what it no longer needs by itself."""


def bit_facts(devices: int, device: torch.device) -> dict[str, Any]:
    """Return the facts besides the cell that decide bits: equal facts promise equal results."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
        "devices": devices,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "instructions": instructions() if device.type == "cpu" else "",
    }


def check_content(found: Checkpoint, content: str, where: str) -> None:
    """ConfigError where the run would go on with other data than it began with.

    A local copy that changes makes another cell. A set of the hub is known by its name until it is loaded.
    """
    if found.facts.get("data", content) != content:
        folder = shown(found.path.parent)
        refuse(where, f"not the data of the first {found.step:,} updates", f"remove {folder} to start afresh")


def difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The facts that differ from those of a checkpoint, ``threads 4 then, 1 now``; empty where none does."""
    changed = (key for key in now if key in then and then[key] != now[key])
    return "; ".join(f"{key} {then[key]} then, {now[key]} now" for key in changed)


def resumed(found: Checkpoint | None, facts: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The facts to keep in this run's checkpoints, and a line for a person, empty where there is nothing to say.

    ``elsewhere`` among them says what was different at any resume so far: bits that are not as they would have been
    stay so, however often the run is resumed where it was last.
    """
    if found is None:
        return facts, ""
    changed = difference(found.facts, facts)
    elsewhere = [text for text in (found.facts.get(ELSEWHERE, ""), changed) if text]
    facts = {**facts, ELSEWHERE: "; ".join(elsewhere)} if elsewhere else facts
    line = f"resumed elsewhere ({changed}): the result may differ in its last bits, and its record promises none"
    return facts, line if changed else ""
