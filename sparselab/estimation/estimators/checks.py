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
