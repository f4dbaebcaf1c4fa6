"""An estimator: what is fitted to a sample. The class here is the cheap half; ``build`` gives a scikit-learn estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.spec.options import Options as AnyOptions
from sparselab.spec.registry import Registry

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from sparselab.spec.faults import Fault


class Estimator:
    """Base of estimators.

    ``takes``   the kinds of draws it can be fitted to (see ``Problem.draws``).
    ``version`` raise it when the rule changes: it is part of a cell's id.
    """

    Options: ClassVar[type[AnyOptions]] = AnyOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    takes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, options: AnyOptions):
        self.options = options

    def faults(self) -> list[Fault]:
        """What the options say wrong together. No numpy."""
        return []

    def build(self, seed: int) -> BaseEstimator:
        """A fresh estimator with ``fit(X, y=None)`` and ``score``; ``seed`` is for those that draw."""
        raise NotImplementedError

    def report(self, fitted: Any) -> dict[str, float]:
        """What a fitted estimator says about its own work (iterations, say), by name."""
        return {}


ESTIMATORS: Registry[Estimator] = Registry("estimator", "sparselab.estimators")
