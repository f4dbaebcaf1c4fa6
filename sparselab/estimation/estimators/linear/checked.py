"""Base of linear regressors without intercept: checked input, and one line for what is wrong with it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sparselab.estimation.estimators.checks import one_line

FEW = 4  # non-zeros that are looked for where nobody says how many


class Checked(RegressorMixin, BaseEstimator):
    """Base: ``coef_`` (d,), ``intercept_`` 0. Dense finite data of two samples at least; others are refused in one line."""

    coef_: np.ndarray

    def _checked(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """``X`` (n, d) and ``y`` (n,) in float64."""
        with one_line():
            X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
        return X, np.asarray(y, dtype=np.float64)

    def predict(self, X: Any) -> np.ndarray:
        """<x, coef_> for each row of ``X`` (n, d): (n,)."""
        check_is_fitted(self)
        with one_line():
            X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_


def whole(name: str, value: Any, least: int = 1) -> int:
    """``value`` as a whole number of at least ``least``; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}={value!r}: has to be a whole number, at least {least}")
    return int(value)


def number(name: str, value: Any, least: float = 0.0, most: float = math.inf, open_ends: bool = True) -> float:
    """``value`` as a number between the ends; ValueError otherwise. open_ends: they are not allowed themselves."""
    fine = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if fine and (least < value < most if open_ends else least <= value <= most and math.isfinite(value)):
        return float(value)
    ends = f"above {least:g}" if open_ends else f"at least {least:g}"
    upper = "" if math.isinf(most) else f" and {'below' if open_ends else 'at most'} {most:g}"
    raise ValueError(f"{name}={value!r}: has to be a number {ends}{upper}")


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: one of {', '.join(choices)}")


def nonzeros(k: Any, X: np.ndarray, samples: bool = True) -> int:
    """The number of non-zeros to look for: ``k``, or at most FEW where it is None. ValueError where there are fewer columns.

    samples: more than there are samples are refused, too (no least squares would have one answer).
    """
    most = min(X.shape) if samples else X.shape[1]
    if k is None:
        return min(FEW, most)
    k = whole("k", k)
    for count, what in ((X.shape[1], "n_features"), (len(X), "n_samples")):
        if k > count and (samples or what == "n_features"):
            raise ValueError(f"k={k}: more non-zeros than {what}={count}")
    return k
