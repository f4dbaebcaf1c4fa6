"""Class-incremental learning: an example is told from those of all tasks [no torch]."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.training.scenarios.scenario import SCENARIOS, Scenario, ScenarioOptions


@SCENARIOS.register("class_incremental")
class ClassIncremental(Scenario):
    """One head over the classes of all tasks (van de Ven and Tolias 2019, arXiv 1904.07734).

    among: the outputs that the training loss of new examples chooses among: the task's own (neu-spiral/SparCL
    ``use_cl_mask``), those of the tasks so far, or all (aimagelab/mammoth ``models/er.py``).
    """

    knows_task = False

    class Options(ScenarioOptions):
        among: Literal["task", "seen", "all"] = Field(
            description="task, seen or all: the classes that the loss of new examples tells apart"
        )

    options: Options

    def overlaps(self, tasks: list[list[int]]) -> list[Issue]:
        for (one, before), (other, after) in combinations(enumerate(tasks), 2):
            if shared := sorted(set(before) & set(after)):
                problem = f"task {one} has class {shared[0]}, too, and it would be two classes"
                return [Issue(f"scenario.tasks[{other}]", problem, "name it once, or write scenario=task_incremental")]
        return []

    def told_apart(self, task: int) -> tuple[int, int]:
        first, end = self.span(task)
        last = self.span(len(self.groups) - 1)[1]
        return {"task": (first, end), "seen": (0, end), "all": (0, last)}[self.options.among]
