"""Machine unlearning: which training examples are to be forgotten, and which part is trained on [no torch]."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from sparselab.core.errors import refuse
from sparselab.inputs.data import subset

FORMS = re.compile(r"class:(\d+)|random:(0?\.\d+)")


@dataclass(frozen=True)
class Forget:
    """The examples to forget: every example of class ``label``, or ``fraction`` of all, drawn over the classes in turn.

    The draw is fixed, like those of the splits. A class that is forgotten leaves validation and test as well: there is
    nothing to be right about (OPTML-Group/Unlearn-Sparse main_forget.py).
    """

    label: int | None = None
    fraction: float = 0.0

    @classmethod
    def parse(cls, text: str, classes: int) -> Forget:
        """``class:3`` or ``random:0.1``. ConfigError for anything else, and for a class that is not there."""
        found = FORMS.fullmatch(text)
        if found is None or (found[2] and not 0 < float(found[2]) < 1):
            refuse(f"dataset.forget={text}", "is neither a class nor a fraction", "write class:0 or random:0.1")
        if found[1] and int(found[1]) >= classes:
            refuse(
                f"dataset.forget={text}", f"there are {classes} classes, from 0", f"write class:{classes - 1} or less"
            )
        return cls(int(found[1])) if found[1] else cls(None, float(found[2]))

    def rows(self, labels: np.ndarray) -> np.ndarray:
        """Which of the training examples with these labels, as ascending positions."""
        if self.label is not None:
            return np.flatnonzero(labels == self.label)
        return subset.balanced(labels, round(self.fraction * len(labels)), "forget")

    def stays(self, labels: np.ndarray) -> np.ndarray:
        """Return the positions of examples that are still scored.

        Args:
            labels: (n,) int64 of validation or test examples

        Returns:
            (k,) positions, ascending.
        """
        return np.flatnonzero(labels != self.label) if self.label is not None else np.arange(len(labels))

    def sizes(self, train: int, classes: int) -> tuple[int, int]:
        """(forgotten, retained) of ``train`` examples, where the classes are equally large."""
        gone = train // classes if self.label is not None else round(self.fraction * train)
        return gone, train - gone
