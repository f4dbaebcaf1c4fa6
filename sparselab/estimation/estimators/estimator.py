"""An estimator: what is fitted to a sample. The class here is the cheap half; ``build`` gives a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sparselab.core.registry import Registry
from sparselab.estimation.procedure import Procedure

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator


class Estimator(Procedure):
    """Base of estimators: :meth:`build`, or :meth:`fit` for those that fit many samples at once."""

    def build(self, seed: int) -> BaseEstimator:
        """Make a fresh scikit-learn estimator.

        Args:
            seed: for estimators that draw

        Returns:
            An estimator with ``fit(X, y=None)``, X (n, d) and y (n,) float64, and ``score``.
        """
        raise NotImplementedError

    def fit(self, X: Sequence[Any], y: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        """Fit a fresh estimator to each sample.

        Args:
            X: a sample each, (n, d) float64 where it is a table; nobody may change them
            y: (n,) each, or None
            seeds: one for each sample

        Returns:
            A fitted estimator for each sample.

        Raises:
            ValueError: data that cannot be fitted; the cell fails with its words.
        """
        return [self.build(seed).fit(*data) for *data, seed in zip(X, y, seeds, strict=True)]

    def report(self, fitted: Any) -> dict[str, float]:
        """Return numbers about a fitted estimator's own work (iterations, say), by name.

        Args:
            fitted: what :meth:`fit` gave for one sample

        Returns:
            Finite numbers by name.
        """
        return {}

    def pictures(self, fitted: Any) -> dict[str, bytes]:
        """PNG files to lie beside the record, by name; those of a cell's first draw are kept."""
        return {}


ESTIMATORS: Registry[Estimator] = Registry("estimator", "sparselab.estimation.estimators")
