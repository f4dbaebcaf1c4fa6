"""A scenario: one run learns several tasks, one after another, each with classes of its own [no torch]."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from sparselab.core.data_types import Classes, Images, spoken
from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from sparselab.core.data_spec import DataSpec

Groups = tuple[tuple[int, ...], ...]


class ScenarioOptions(Options):
    """Options of every scenario."""

    defaults_from: ClassVar[str] = "scenario/_base"

    tasks: Annotated[int, Field(ge=1)] | list[list[Annotated[int, Field(ge=0)]]] = Field(
        description="a number of equal tasks, classes in order, or a list such as [[0, 1], [2, 3]]"
    )
    fresh_optimizer: bool = Field(description="true or false: the optimiser forgets everything before each task")
    ahead: bool = Field(description="true or false: score tasks to come, too, with the head of the task just learnt")


class Scenario:
    """Override what differs. A task is a group of classes; the network has one output for each class of each task, in order.

    Epochs, learning rates and (of methods that ask for it) masks begin anew with each task. After each, all tasks so far are
    scored: the matrix of accuracies A[i, j], of task j after task i.

    ``knows_task``: which task an example is of is known when it is scored. ``version``: raise it when the rule changes.

    groups: classes of each task, once :meth:`look` has seen the data. sizes: training examples of each, where classes are
    equally large. examples: of all tasks together.
    """

    Options: ClassVar[type[ScenarioOptions]] = ScenarioOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    knows_task: ClassVar[bool] = True

    def __init__(self, options: Any):
        self.options = options
        self.groups: Groups = ()
        self.sizes: tuple[int, ...] = ()
        self.examples = 0

    def issues(self, data: DataSpec) -> list[Issue]:
        """Return the issues with ``data``, before any division."""
        if not isinstance(data.inputs, Images) or not isinstance(data.targets, Classes):
            problem = f"divides images by their classes, and dataset {data.name} is {spoken(data.pair)}"
            return [Issue(f"scenario={self.name}", problem, "leave it out")]
        if data.val:
            fix = "write dataset.val=0"
            return [Issue(f"dataset.val={data.val}", "a scenario scores every task and validates nothing", fix)]
        tasks = self.options.tasks
        if isinstance(tasks, int):
            if data.classes % tasks:
                problem = f"{data.name} has {data.classes} classes, which that number does not divide"
                return [Issue(f"scenario.tasks={tasks}", problem, f"write a divisor of {data.classes}, or a list")]
            return []
        if not tasks:
            return [Issue("scenario.tasks=[]", "there is no task", "write scenario.tasks=5")]
        for number, classes in enumerate(tasks):
            where = f"scenario.tasks[{number}]"
            if not classes:
                return [Issue(where, "is a task without classes", "name its classes, or leave it out")]
            if len(set(classes)) < len(classes):
                return [Issue(where, "names a class twice", "name each once")]
            if max(classes) >= data.classes:
                problem = f"{data.name} has {data.classes} classes, from 0"
                return [Issue(f"{where}: {max(classes)}", problem, f"at most {data.classes - 1}")]
        return self.overlaps(tasks)

    def overlaps(self, tasks: list[list[int]]) -> list[Issue]:
        """Return the issues with classes that several tasks have."""
        return []

    def look(self, data: DataSpec) -> None:
        """Settle which classes each task has, and how many training examples."""
        tasks, classes = self.options.tasks, data.classes
        if isinstance(tasks, int):
            each = classes // tasks
            tasks = [list(range(task * each, (task + 1) * each)) for task in range(tasks)]
        self.groups = tuple(map(tuple, tasks))
        self.sizes = tuple(data.train * len(group) // classes for group in self.groups)
        self.examples = data.train * sum(map(len, self.groups)) // classes

    def sees(self, data: DataSpec) -> DataSpec:
        """Return the data as the network sees them: a class for each class of each task."""
        return replace(data, targets=Classes(sum(map(len, self.groups))))

    def span(self, task: int) -> tuple[int, int]:
        """(first, end) of the outputs that are ``task``'s."""
        first = sum(len(group) for group in self.groups[:task])
        return first, first + len(self.groups[task])

    def told_apart(self, task: int) -> tuple[int, int]:
        """(first, end) of the outputs among which the training loss of ``task`` chooses: its own."""
        return self.span(task)


SCENARIOS: Registry[Scenario] = Registry("scenario", "sparselab.training.scenarios")
