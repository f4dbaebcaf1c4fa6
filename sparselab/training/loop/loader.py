"""The whole run as one stream of micro-batches, addressed by their index; and a loader that can be interrupted."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate as sums
from itertools import repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.inputs.data.loader import Loader


class RunLoader:
    """``updates`` batches of ``loader``, epoch after epoch, each cut into ``accumulate`` micro-batches.

    Cutting batches (instead of making small ones) gives every update the same examples, augmented alike, whatever the
    number of micro-batches. ``start`` is the micro-batch at which a resumed run goes on.

    lengths: batches of one epoch after another, where they differ; the loader has to have as many when an epoch begins.
    epochs: the update after which each epoch is over; the last one may not be finished.
    """

    def __init__(self, loader: Loader, updates: int, accumulate: int, lengths: Iterator[int] | None = None):
        self.loader = loader
        loader.cuts = accumulate
        self.updates = updates
        self.accumulate = accumulate
        self.start = 0
        self.epochs: list[int] = []
        for end in sums(lengths or repeat(len(loader))):
            self.epochs.append(end)
            if end >= updates:
                break

    def __len__(self) -> int:
        return self.updates * self.accumulate

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        index = self.start
        while index < len(self):
            update = index // self.accumulate
            epoch = bisect_right(self.epochs, update)
            self.loader.position(epoch, update - (self.epochs[epoch - 1] if epoch else 0))
            for batch in self.loader:
                chunks = [part.chunk(self.accumulate) for part in batch]
                for micro in range(index % self.accumulate, self.accumulate):
                    yield tuple(part[micro] for part in chunks)
                    index += 1
                if index >= len(self):
                    return


class Interruptible:
    """``loader``, with ``check`` called before each batch; what it raises ends the iteration."""

    def __init__(self, loader: Any, check: Callable[[], None]):
        self.loader = loader
        self.check = check

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for batch in self.loader:
            self.check()
            yield batch
