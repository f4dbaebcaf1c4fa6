"""Designs made of the tables that scikit-learn brings: many columns, some nearly collinear."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from sklearn import datasets

BINS = 4  # of a wine's feature, beside the feature itself
INKED = 0.05  # share of the images in which a pixel is not empty, at least


def _standard(X: np.ndarray) -> np.ndarray:
    return (X - X.mean(0)) / X.std(0)


def _squared(X: np.ndarray) -> np.ndarray:
    """The standardised columns with all their squares and products."""
    X = _standard(X)
    rows, columns = np.triu_indices(X.shape[1])
    return np.hstack([X, X[:, rows] * X[:, columns]])


def digits() -> np.ndarray:
    """Pixels as they are, without those that are nearly always empty: neighbours are nearly collinear."""
    X = datasets.load_digits(return_X_y=True)[0]
    return X[:, (X > 0).mean(0) >= INKED]


def diabetes_poly() -> np.ndarray:
    """All squares and products. The square of a feature of two values is linear in it."""
    return _squared(datasets.load_diabetes(return_X_y=True)[0])


def breast_cancer_poly() -> np.ndarray:
    """All squares and products of features that are mostly sizes of one thing."""
    return _squared(datasets.load_breast_cancer(return_X_y=True)[0])


def wine_bins() -> np.ndarray:
    """Each feature beside the quarter of the bottles that it falls into, one column a quarter."""
    X = _standard(datasets.load_wine(return_X_y=True)[0])
    edges = np.quantile(X, np.arange(1, BINS) / BINS, axis=0)
    quarter = (X[:, :, None] > edges.T[None]).sum(2)
    return np.hstack([X, (quarter[:, :, None] == np.arange(BINS)).reshape(len(X), -1).astype(float)])


REAL: dict[str, Callable[[], np.ndarray]] = {
    "digits": digits,
    "diabetes_poly": diabetes_poly,
    "breast_cancer_poly": breast_cancer_poly,
    "wine_bins": wine_bins,
}


@lru_cache(maxsize=len(REAL))
def real(design: str) -> np.ndarray:
    """All rows and columns of a design that is a table; nobody may change it."""
    X = np.ascontiguousarray(REAL[design](), dtype=np.float64)
    X.setflags(write=False)
    return X
