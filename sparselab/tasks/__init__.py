"""Tasks by the kind of data they read."""

from sparselab.tasks.classify import Classify
from sparselab.tasks.language import LanguageModel
from sparselab.tasks.task import Task

TASKS: dict[str, type[Task]] = {"image": Classify, "text": LanguageModel}
