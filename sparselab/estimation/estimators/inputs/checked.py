"""Checked input whose errors have one line."""

from __future__ import annotations

import math
from typing import Any

from sklearn.utils.validation import validate_data

from sparselab.estimation.estimators.checks import is_number, is_whole, one_line


def checked(estimator: Any, *data: Any, **options: Any) -> Any:
    """scikit-learn's ``validate_data``. Its ValueError or TypeError (sparse, NaN, too few samples …) comes in one line."""
    with one_line():
        return validate_data(estimator, *data, **options)


def one_of(estimator: Any, name: str, choices: Any) -> None:
    """ValueError unless the option ``name`` is one of ``choices``."""
    if (value := getattr(estimator, name)) not in choices:
        raise ValueError(f"{name}={value!r}: one of {', '.join(choices)}")


def number(estimator: Any, name: str, low: float, high: float = math.inf, *, closed: bool = False) -> None:
    """ValueError unless the option ``name`` is a finite number above ``low`` (or at it, if ``closed``) and below ``high``."""
    value = getattr(estimator, name)
    if not is_number(value) or value >= high or value < low or (value == low and not closed):
        ends = f"a number {'of at least' if closed else 'above'} {low:g}"
        raise ValueError(f"{name}={value!r}: write {ends}" + (f" and below {high:g}" if high < math.inf else ""))


def whole(estimator: Any, name: str, low: int = 1) -> None:
    """ValueError unless the option ``name`` is a whole number of at least ``low``."""
    value = getattr(estimator, name)
    if not is_whole(value) or value < low:
        raise ValueError(f"{name}={value!r}: write a whole number of at least {low}")
