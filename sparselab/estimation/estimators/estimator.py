"""An estimator: what is fitted to a sample. The class here is the cheap half; ``build`` gives a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sparselab.core.options import Options as AnyOptions
from sparselab.core.registry import Registry

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from sparselab.core.errors import Issue


class Estimator:
    """Base of estimators.

    ``takes``    the kinds of draws it can be fitted to (see ``Problem.draws``).
    ``together`` draws that are handed to :meth:`fit` at once.
    ``version``  raise it when the rule changes: it is part of a cell's id.
    """

    Options: ClassVar[type[AnyOptions]] = AnyOptions
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    takes: ClassVar[tuple[str, ...]] = ()
    together: ClassVar[int] = 1

    def __init__(self, options: AnyOptions):
        self.options = options

    def issues(self, problem: Any) -> list[Issue]:
        """Return the issues of the options, by themselves or for ``problem``. Imports no numpy."""
        return []

    def work(self, problem: Any) -> float:
        """Return the cost of one fit, in a unit of its own."""
        return float(problem.size())

    def build(self, seed: int) -> BaseEstimator:
        """A fresh estimator with ``fit(X, y=None)`` and ``score``; ``seed`` is for those that draw."""
        raise NotImplementedError

    def fit(self, X: Sequence[Any], y: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        """A fitted estimator for each sample; ValueError for data that cannot be fitted."""
        return [self.build(seed).fit(*data) for *data, seed in zip(X, y, seeds, strict=True)]

    def report(self, fitted: Any) -> dict[str, float]:
        """Return numbers about a fitted estimator's own work (iterations, say), by name."""
        return {}

    def pictures(self, fitted: Any) -> dict[str, bytes]:
        """PNG files to lie beside the record, by name; those of a cell's first draw are kept."""
        return {}


ESTIMATORS: Registry[Estimator] = Registry("estimator", "sparselab.estimation.estimators")
