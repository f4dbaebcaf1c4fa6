"""A removal at work in a run: which examples are left, and when the next ones leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sparselab.inputs.data.seeds import generator
from sparselab.training.removals.torch_side.tally import UNSEEN, Tally

if TYPE_CHECKING:
    from sparselab.inputs.data.loader import Batch, Job, Source
    from sparselab.training.loop.loader import RunLoader
    from sparselab.training.removals.removal import Removal


class Left:
    """``source`` without the examples that have left; rows stay those of the whole.

    here: (n,) bool, by row.
    """

    def __init__(self, source: Source):
        self.source = source
        self.here = np.ones(len(source), dtype=bool)

    def __len__(self) -> int:
        return int(self.here.sum())

    def rows(self, rng: np.random.Generator | None) -> np.ndarray:
        """(len,) the examples of one epoch, in order."""
        rows = self.source.rows(rng)
        return rows[self.here[rows]]

    def batches(self, jobs: Iterable[Job]) -> Iterator[Batch]:
        """As the source's."""
        return self.source.batches(jobs)


class Remover:
    """Counts what becomes of the training examples, and removes those that the removal names where an epoch ends.

    sources: of each task, in order; one without a scenario. runs: their micro-batches. Which examples of equal score leave is a
    function of the seed, the task and the epoch.
    """

    def __init__(
        self,
        removal: Removal,
        sources: Sequence[Left],
        runs: Sequence[RunLoader],
        seed: int,
        device: torch.device | str = "cpu",
    ):
        self.removal = removal
        self.sources = sources
        self.seed = seed
        sizes = [len(source.here) for source in sources]
        self.firsts = np.cumsum([0, *sizes])
        epochs = max(len(run.epochs) for run in runs)
        self.tally = Tally(int(self.firsts[-1]), epochs, device)
        self.due: dict[int, tuple[int, int]] = {}  # update of the run after which examples leave: task, epoch to come
        begun, seen, whole = 0, 0, 0.0
        for task, (run, size) in enumerate(zip(runs, sizes, strict=True)):
            for epoch, (first, end) in enumerate(zip((0, *run.epochs), run.epochs, strict=False)):
                if removal.before(epoch):
                    self.due[begun + first] = task, epoch
                batches = min(end, run.updates) - first
                seen += batches
                whole += batches * (size // run.loader.batch_size) / (end - first)
            begun += run.updates
        self.share = seen / whole

    def look(self, batch: tuple[Tensor, ...], logits: Tensor) -> None:
        """Count a batch of training examples.

        Args:
            batch: inputs, labels (b,) and numbers (b,) of the examples
            logits: (b, classes) of the network as it trains
        """
        self.tally.look(batch[2], logits.detach().argmax(-1) == batch[1])

    def after_update(self, update: int) -> None:
        """Remove what is due after so many updates."""
        if update not in self.due:
            return
        task, epoch = self.due[update]
        source, first = self.sources[task], int(self.firsts[task])
        mine = slice(first, first + len(source.here))
        scores = self.removal.scores(self.tally)[mine].cpu().numpy()
        unseen = (self.tally.last[mine] == UNSEEN).cpu().numpy()
        source.here[self.first_to_go(scores, unseen, source.here, task, epoch)] = False
        self.tally.restart()

    def first_to_go(
        self, scores: np.ndarray, unseen: np.ndarray, here: np.ndarray, task: int, epoch: int
    ) -> np.ndarray:
        """Rows of the examples that leave: lowest scores first, those that were not seen last.

        Args:
            scores: (n,) int
            unseen: (n,) bool
            here: (n,) bool, examples that have not left before
            task: whose examples these are
            epoch: the one to come

        Returns:
            (k,) int64, no row twice.
        """
        chance = generator("removal", self.seed, task, epoch).permutation(len(scores))
        order = np.lexsort((chance, scores, unseen, ~here))
        return order[: self.removal.each(len(scores))]

    def measures(self) -> dict[str, float]:
        """``data``: share of the visits that the same epochs have without a removal. ``removed``: examples that have left."""
        return {"data": self.share, "removed": float(sum(int((~source.here).sum()) for source in self.sources))}

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"here": [torch.from_numpy(source.here.copy()) for source in self.sources], "tally": self.tally.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for source, here in zip(self.sources, state["here"], strict=True):
            source.here[:] = here.cpu().numpy()
        self.tally.load(state["tally"])
