"""A removal against the other parts of its cell, before anything runs [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.core.data_types import Classes
from sparselab.core.errors import Issue
from sparselab.core.points import point_of

if TYPE_CHECKING:
    from sparselab.training.parts import UncheckedParts


def against_others(made: UncheckedParts) -> list[Issue]:
    """The issues of a removal with the data, with what replaces or mixes examples, and with what counts in epochs."""
    removal, cell, found = made.removal, made.cell, []
    if removal is None:
        return []
    where = f"removal={removal.name}"
    if made.has("data"):
        data = made.parts["data"]
        if not isinstance(data.targets, Classes):
            problem = f"asks which examples are right, and targets of dataset {data.name} are {data.targets.noun}"
            return [Issue(where, problem, "leave it out")]
        if not data.train:
            return [Issue(where, f"how many examples {data.name} has is known once it is read", "leave it out")]
    if made.has("dataset") and (
        mixup := getattr(getattr(made.parts["dataset"].options, "augment", None), "mixup", 0.0)
    ):
        problem = f"mixes examples, which {where} numbers one by one"
        found.append(Issue(f"dataset.augment.mixup={mixup:g}", problem, "write dataset.augment={}"))
    if made.adapt is not None:
        problem = f"has examples of its own, and {where} numbers the data's"
        found.append(Issue(f"adapt={made.adapt.name}", problem, "leave one of them out"))
    if "trainer" not in made.invalid:
        if (devices := cell.trainer.devices) > 1:
            problem = f"each process would count its own examples alone for {where}"
            found.append(Issue(f"trainer.devices={devices}", problem, "write trainer.devices=1"))
        for point in filter(None, map(point_of, cell.trainer.keep_at)):
            if not point.isdigit() and point != "0epochs":
                problem = f"epochs have different lengths under {where}"
                found.append(Issue(f"trainer.keep_at=[{point}]", problem, "write updates, such as 100"))
    return found
