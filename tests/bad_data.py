"""Data that no estimator takes, and the check that each is refused in one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone

Case = tuple[tuple[Any, ...], Any, str]


def cases(X: np.ndarray, y: np.ndarray) -> list[Case]:
    """(arguments of fit, the error, words of its line); X (n, d) and y (n,) are sound."""
    holes, endless = X.copy(), np.array(y, float)
    holes[3, 1], endless[2] = np.nan, np.inf
    return [
        ((sparse.csr_array(X), y), TypeError, "[Ss]parse"),
        ((holes, y), ValueError, "contains NaN"),
        ((X[:1], y[:1]), ValueError, "1 sample|minimum of"),
        ((X, y[:-1]), ValueError, "inconsistent"),
        ((X[:, 0], y), ValueError, "2D array"),
        ((X, endless), ValueError, "infinity"),
    ]


def refused_in_one_line(estimator: Any, X: np.ndarray, y: np.ndarray, more: Iterable[Case] = ()) -> None:
    """Every one of :func:`cases`, and of ``more``, is refused by ``fit`` with a line that says why."""
    for given, kind, words in [*cases(X, y), *more]:
        with pytest.raises(kind, match=words) as refused:
            clone(estimator).fit(*given)
        assert "\n" not in str(refused.value)
