"""The course of a scenario through a run: where tasks begin and end, what each is scored at, and what is recalled of them."""

from __future__ import annotations

import math
from bisect import bisect_right
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.core.seeds import derive_seed
from sparselab.inputs.data.loader import Job
from sparselab.training.loop.evaluate import evaluate
from sparselab.training.loop.lightning import torchmetrics
from sparselab.training.scenarios import matrix as numbers
from sparselab.training.tasks.totals import totals

if TYPE_CHECKING:
    from sparselab.inputs.data.loader import Loader
    from sparselab.training.loop.loop import Loop
    from sparselab.training.loop.module import TaskModule
    from sparselab.training.scenarios.scenario import Scenario
    from sparselab.training.tasks.task import Batch


class Course:
    """A scenario at work in a run.

    ends: the update after which each task is over. train, test: loaders of each task's examples. own, whole: matrices of
    accuracies, among the outputs of a task and among all. firsts: the number of the first training example of each task.
    """

    def __init__(
        self,
        scenario: Scenario,
        ends: tuple[int, ...],
        train: list[Loader],
        test: list[Loader],
        seed: int,
        precision: Any,
    ):
        self.scenario = scenario
        self.ends = ends
        self.train = train
        self.test = test
        self.seed = seed
        self.precision = precision
        self.own: list[list[float]] = []
        self.whole: list[list[float]] = []
        self.last: dict[str, float] = {}  # sums over all tasks after the last one
        self.firsts = [0]
        for loader in train:
            self.firsts.append(self.firsts[-1] + len(loader.source))

    @property
    def begins(self) -> tuple[int, ...]:
        """The update after which each task begins, 0 for the first."""
        return (0, *self.ends[:-1])

    def task(self, step: int) -> int:
        """Return the task that the update after ``step`` updates belongs to."""
        return min(bisect_right(self.ends, step), len(self.ends) - 1)

    def within(self, step: int) -> tuple[int, int]:
        """(updates of the task under way that are done after ``step`` updates of the run, all of its updates)."""
        task = self.task(step)
        return step - self.begins[task], self.ends[task] - self.begins[task]

    def shown(self, logits: Tensor, step: int) -> Tensor:
        """Logits of which the training loss sees those that its task tells apart.

        Args:
            logits: (n, outputs)
            step: updates done

        Returns:
            (n, outputs); the others are minus infinity: they have no share in a softmax and no gradient.
        """
        first, end = self.scenario.told_apart(self.task(step))
        if (first, end) == (0, logits.shape[1]):
            return logits
        hidden = torch.full_like(logits, -math.inf)
        hidden[:, first:end] = logits[:, first:end]
        return hidden

    def after_update(self, loop: Loop, step: int) -> None:
        """At the end of a task: its masks are kept, all tasks so far are scored, and the next one begins."""
        if step not in self.ends or len(self.own) > self.ends.index(step):  # a skipped step leaves the number as it was
            return
        task, sparsifier = self.ends.index(step), loop.sparsifier
        sparsifier.end_task(task)
        self._score(loop, task)
        if task + 1 < len(self.ends):
            optimizer = loop.trainer.optimizers[0]
            if self.scenario.options.fresh_optimizer:
                optimizer.state.clear()
            sparsifier.begin_task(task + 1, step, optimizer)

    def _score(self, loop: Loop, after: int) -> None:
        """A row of the matrices: every task so far under its own masks, those to come under the masks and head of this one."""
        own, whole, summed = [], [], {"loss": 0.0, "n": 0.0}
        for task, loader in enumerate(self.test):
            solved = min(task, after)
            if task > after and not self.scenario.options.ahead:
                break
            first, end = self.scenario.span(solved)
            scored = Scored(loop.task, first, end, first - self.scenario.span(task)[0])
            with loop.sparsifier.as_task(solved):
                told = evaluate(scored, loader, f"test.task {task}", self.precision)
            own.append(told["own"])
            whole.append(told["all"])
            if task <= after:
                summed = {key: summed[key] + told[key] * (told["n"] if key == "loss" else 1) for key in summed}
        self.own.append(own)
        self.whole.append(whole)
        self.last = summed

    def scores(self) -> dict[str, float]:
        """Numbers of the finished run, all from test data: by the view of the scenario, then by either view."""
        views = {"task": self.own, "class": self.whole}
        view = views["task" if self.scenario.knows_task else "class"]
        share, count = numbers.accuracy(view), self.last["n"]
        found = {
            "accuracy": share,
            "accuracy_se": math.sqrt(share * (1 - share) / count),
            "loss": self.last["loss"] / count,
            "n": count,
            "bwt": numbers.backward_transfer(view),
            "forgetting": numbers.forgetting(view),
            "late": numbers.learnt_late(view),
        }
        if self.scenario.options.ahead:
            found["fwt"] = numbers.forward_transfer(view)
        for name, matrix in views.items():
            found[f"accuracy_{name}"] = numbers.accuracy(matrix)
            found[f"forgetting_{name}"] = numbers.forgetting(matrix)
        found |= {f"task{j}": value for j, value in enumerate(view[-1])}
        return found | {f"learnt{j}": row[j] for j, row in enumerate(view)}

    def table(self) -> bytes:
        """The matrices as CSV: a line for each pair of tasks."""
        lines = ["after,task,accuracy_task,accuracy_class"]
        for i, (own, whole) in enumerate(zip(self.own, self.whole, strict=True)):
            lines += [f"{i},{j},{a!r},{b!r}" for j, (a, b) in enumerate(zip(own, whole, strict=True))]
        return ("\n".join(lines) + "\n").encode()

    def recalled(self, examples: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Training examples of any tasks again, augmented anew.

        Args:
            examples: (k,) int64, their numbers as batches give them
            key: the address of the augmentation

        Returns:
            (inputs (k, *inputs), labels (k,)), in their order.
        """
        wanted = examples.cpu().numpy()
        of = np.searchsorted(np.array(self.firsts), wanted, side="right") - 1
        places, parts = [], []
        for task in np.unique(of):
            at = np.flatnonzero(of == task)
            place = derive_seed(self.seed, "recalled", key, int(task)), 0, 0
            rows = wanted[at] - self.firsts[task]
            parts.append(next(iter(self.train[task].source.batches([Job(rows, np.arange(len(rows)), place)]))))
            places.append(at)
        order = torch.from_numpy(np.argsort(np.concatenate(places)))
        inputs, labels = (torch.cat([part[i] for part in parts]) for i in (0, 1))
        order = order.to(labels.device)
        return inputs[order], labels[order]

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"own": [*map(list, self.own)], "whole": [*map(list, self.whole)], "last": dict(self.last)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.own, self.whole, self.last = state["own"], state["whole"], state["last"]


class Scored:
    """A task's examples as they are scored: among outputs ``first`` to ``end``, and among all.

    shift: what is added to labels, for a task that is solved with the head of another.
    """

    def __init__(self, module: TaskModule, first: int, end: int, shift: int):
        self.module = module
        self.network = module.network
        self.first, self.end, self.shift = first, end, shift

    def scoring(self) -> AbstractContextManager[None]:
        """As the run's."""
        return self.module.scoring()

    def metrics(self) -> Any:
        """Fresh sums, on the CPU."""
        return torchmetrics.MetricCollection({**totals("own", "all", "loss", "n")}, compute_groups=False)

    def score(self, metrics: Any, batch: Batch) -> None:
        """Add a batch, which may have no example for this rank."""
        if not len(batch[0]):
            return
        inputs, labels = self.module.task.batch(batch)[:2]
        logits, labels = self.module.logits(inputs).float(), labels + self.shift
        own = logits[:, self.first : self.end]
        metrics["own"].update((own.argmax(-1) == labels - self.first).sum())
        metrics["all"].update((logits.argmax(-1) == labels).sum())
        metrics["loss"].update(F.cross_entropy(own, labels - self.first, reduction="sum"))
        metrics["n"].update(len(labels))

    def numbers(self, values: dict[str, float], split: str) -> dict[str, float]:
        """Shares of right answers, the mean loss among a task's outputs, and the number of examples."""
        n = values["n"]
        return {"own": values["own"] / n, "all": values["all"] / n, "loss": values["loss"] / n, "n": n}
