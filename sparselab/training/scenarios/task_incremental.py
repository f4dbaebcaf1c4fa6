"""Task-incremental learning: an example comes with its task, also when it is scored [no torch]."""

from __future__ import annotations

from sparselab.training.scenarios.scenario import SCENARIOS, Scenario


@SCENARIOS.register("task_incremental")
class TaskIncremental(Scenario):
    """Each task has a head of its own, and only that one is asked (van de Ven and Tolias 2019, arXiv 1904.07734).

    Tasks may share classes: the head of each is its own, whatever it tells apart.
    """
