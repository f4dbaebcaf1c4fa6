"""Tasks by the kind of data they read."""

from sparselab.training.tasks.classify import Classify
from sparselab.training.tasks.language import LanguageModel
from sparselab.training.tasks.task import Task

TASKS: dict[str, type[Task]] = {"image": Classify, "text": LanguageModel}
