"""The data of a scenario: one split for each task, with the labels that the network's outputs have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparselab.core.errors import refuse
from sparselab.inputs.data.loader import Job, Source
from sparselab.inputs.data.splits import ImageSplit, ImageSplits

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.training.loop.loader import RunLoader
    from sparselab.training.scenarios.scenario import Scenario


@dataclass(frozen=True)
class TaskSplits(ImageSplits):
    """Images by task: ``train 0``, ``test 0`` … among :attr:`others`; ``train`` is the first task's, ``test`` that of all.

    whole: the images before they were divided.
    """

    whole: ImageSplits | None = None

    @property
    def content(self) -> str:
        """Return that of the images before they were divided."""
        assert self.whole is not None
        return self.whole.content


def divide(splits: Any, scenario: Scenario) -> TaskSplits:
    """Divide loaded images by the tasks of ``scenario``, whose groups are settled.

    ConfigError where the data do not lie in memory, or a class of a task has no example.
    """
    if not isinstance(splits, ImageSplits):
        refuse(
            f"scenario={scenario.name}", "divides images in memory, and these stay on disk", "choose another dataset"
        )
    others: dict[str, ImageSplit] = {}
    for task, group in enumerate(scenario.groups):
        first, _ = scenario.span(task)
        for part in ("train", "test"):
            others[f"{part} {task}"] = found = of_classes(getattr(splits, part), group, first)
            if len(found.labels.unique()) < len(group):
                refuse(f"scenario.tasks[{task}]", f"a class of it has no {part} image", "raise dataset.limit_train")
    tests = [others[f"test {task}"] for task in range(len(scenario.groups))]
    test = ImageSplit(torch.cat([one.images for one in tests]), torch.cat([one.labels for one in tests]))
    told = {field.name: getattr(splits, field.name) for field in fields(ImageSplits)}
    outputs = scenario.span(len(scenario.groups) - 1)[1]
    told |= {"train": others["train 0"], "test": test, "others": others, "classes": outputs}
    return TaskSplits(**told, whole=splits)


def of_classes(split: ImageSplit, group: tuple[int, ...], first: int) -> ImageSplit:
    """The examples of the classes in ``group``, in their order, labelled from ``first`` on in the order of the group."""
    label = torch.full((int(split.labels.max()) + 1 if len(split) else 1,), -1, dtype=torch.int64)
    for place, which in enumerate(group):
        if which < len(label):
            label[which] = first + place
    labels = label[split.labels.long()]
    chosen = labels >= 0
    return ImageSplit(split.images[chosen], labels[chosen])


class Numbered:
    """``source`` with the number of each example as a third part of every batch: its row, counted from ``first`` on."""

    def __init__(self, source: Source, first: int):
        self.source = source
        self.first = first

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, rng: np.random.Generator | None) -> np.ndarray:
        """(len,) the examples of one epoch, in order."""
        return self.source.rows(rng)

    def batches(self, jobs: Iterable[Job]) -> Iterator[tuple[Tensor, ...]]:
        """Batches of inputs, targets and numbers (b,) int64."""
        for job in jobs:
            inputs, targets = next(iter(self.source.batches([job])))
            numbers = torch.from_numpy(job.rows[job.mine] + self.first).to(targets.device, non_blocking=True)
            yield inputs, targets, numbers


class Stream:
    """The micro-batches of all tasks, one task after another: what a whole run sees, from micro-batch ``start`` on.

    runs: of each task.
    """

    def __init__(self, runs: list[RunLoader]):
        self.runs = runs
        self.start = 0

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        passed = 0
        for run in self.runs:
            run.start = max(0, self.start - passed)
            passed += len(run)
            yield from run
