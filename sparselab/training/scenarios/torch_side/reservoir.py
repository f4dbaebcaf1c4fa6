"""A buffer of examples seen so far, every one of them in it with the same probability."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparselab.core.seeds import derive_seed
from sparselab.inputs.data.seeds import generator


class Reservoir:
    """Reservoir sampling (Vitter 1985, algorithm R): after n examples each is among the ``size`` kept with size / n.

    Randomness is a function of the seed and of how many examples have been seen: the content is the whole state.

    examples: (size,) int64, numbers of examples. outputs: (size, outputs) float32 of the network when each was seen, from the
    first that brings some on. seen: examples so far.
    """

    def __init__(self, size: int, seed: int):
        self.size = size
        self.seed = seed
        self.seen = 0
        self.examples = torch.zeros(size, dtype=torch.int64)
        self.outputs: Tensor | None = None

    def __len__(self) -> int:
        return min(self.seen, self.size)

    def add(self, examples: Tensor, outputs: Tensor | None = None) -> None:
        """Look at examples, one after another.

        Args:
            examples: (n,) int64, their numbers
            outputs: (n, outputs) to be kept beside them, or None
        """
        rng = generator("reservoir", self.seed, self.seen)
        if outputs is not None and self.outputs is None:
            self.outputs = outputs.new_zeros((self.size, outputs.shape[1]), dtype=torch.float32)
        numbers = examples.cpu()
        for i in range(len(numbers)):
            place = self.seen if self.seen < self.size else int(rng.integers(0, self.seen + 1))
            self.seen += 1
            if place < self.size:
                self.examples[place] = numbers[i]
                if outputs is not None and self.outputs is not None:
                    self.outputs[place] = outputs[i].float()

    def draw(self, count: int, which: int = 0) -> Tensor:
        """Choose ``count`` of the places (all, where there are fewer), no place twice.

        Args:
            count: how many
            which: of several draws between two calls of :meth:`add`

        Returns:
            (k,) int64 places in the buffer.
        """
        rng = generator("draw", self.seed, self.seen, which)
        return torch.from_numpy(rng.choice(len(self), min(count, len(self)), replace=False))

    def key(self, which: int = 0) -> int:
        """Return an address for what happens to a draw, such as augmentation."""
        return derive_seed(self.seed, "key", self.seen, which)

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"seen": self.seen, "examples": self.examples, "outputs": self.outputs}

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from a checkpoint."""
        self.seen, self.examples = state["seen"], state["examples"].cpu()
        self.outputs = None if state["outputs"] is None else state["outputs"].to(device)
