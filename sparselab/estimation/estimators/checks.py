"""Checks of estimators' input, each fault in one line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any


@contextmanager
def one_line() -> Iterator[None]:
    """Raise scikit-learn's errors about data with the line breaks taken out."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise type(error)(" ".join(str(error).split())) from None


def is_number(value: Any) -> bool:
    """True for a finite number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """True for a whole number of any type that has only such numbers; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def checked(estimator: Any, *data: Any, **options: Any) -> Any:
    """scikit-learn's ``validate_data``. Its ValueError or TypeError (sparse, NaN, too few samples …) comes in one line."""
    from sklearn.utils.validation import validate_data  # planning imports this module

    with one_line():
        return validate_data(estimator, *data, **options)


def one_of(estimator: Any, name: str, choices: Any) -> None:
    """ValueError unless the option ``name`` is one of ``choices``."""
    value = getattr(estimator, name)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r}: one of {', '.join(choices)}")


def number(estimator: Any, name: str, low: float, high: float = math.inf, *, closed: bool = False) -> float:
    """The option ``name``; ValueError unless it is a finite number above ``low`` (at it, if ``closed``) and below ``high``."""
    value = getattr(estimator, name)
    if not is_number(value) or value >= high or value < low or (value == low and not closed):
        ends = f"a number {'of at least' if closed else 'above'} {low:g}"
        raise ValueError(f"{name}={value!r}: write {ends}" + (f" and below {high:g}" if high < math.inf else ""))
    return float(value)


def whole(estimator: Any, name: str, low: int = 1) -> int:
    """The option ``name``; ValueError unless it is a whole number of at least ``low``."""
    value = getattr(estimator, name)
    if not is_whole(value) or value < low:
        raise ValueError(f"{name}={value!r}: write a whole number of at least {low}")
    return int(value)
