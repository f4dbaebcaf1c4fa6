"""Base of the regressors of users: checked input, no intercept, and limits that never come from the data."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from sparselab.estimation.estimators.checks import is_number, number
from sparselab.estimation.estimators.linear.checked import Checked
from sparselab.estimation.estimators.privacy.limits import LOOKED, RULES, cut, radius
from sparselab.estimation.problems.linear.users import Moments, Rows, Users


def generator(random_state: Any) -> np.random.Generator:
    """A generator for scikit-learn's ``random_state``: None (fresh entropy), a number, a RandomState or a Generator."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31, size=4))
    return np.random.default_rng(random_state)


class Linear(Checked):
    """Base of regressors without intercept: rows are taken as centred, because centring them would be a look at the data."""

    def fit(self, X: Any, y: Any) -> Any:
        """Fit to ``X`` (n, d) and ``y`` (n,), one row per user. ValueError, in one line, for what cannot be fitted."""
        return self.fit_users(Rows(*self._checked(X, y)))

    def fit_users(self, users: Users | Moments) -> Any:
        """Fit to users who are drawn in blocks, or to their second moments."""
        self.n_features_in_ = users.d
        self.intercept_ = 0.0
        self._estimate(users)
        if not np.isfinite(self.coef_).all():
            raise ValueError("the second moments are too large for floats: divide the columns and y by their scales")
        return self

    @abstractmethod
    def _estimate(self, users: Users | Moments) -> None:
        """Set ``coef_``, (d,), and what else is known."""


class Clipped(Linear):
    """Base of regressors that limit what one user can contribute.

    A subclass has ``clip_x`` and ``clip_y`` (a number, ``typical``, ``signs``, ``all`` or ``data``; not private: None,
    too), and ``x_scale`` and ``y_scale``, the standard deviations that are assumed of an entry of x and of y.
    """

    clip_x: Any
    clip_y: Any
    x_scale: float
    y_scale: float
    clip_x_: Any  # a float; None where it may be
    clip_y_: Any
    unlimited = False  # True: None is allowed

    def _limits(self, users: Users | Moments) -> list[str]:
        """Set ``clip_x_`` and ``clip_y_``; returns the reasons why what follows is not private."""
        self._above_zero("x_scale", "y_scale")
        looked = []
        for name in ("clip_x", "clip_y"):
            rule = getattr(self, name)
            if rule is None and self.unlimited:
                continue
            if isinstance(rule, str) and rule not in RULES:
                raise ValueError(f"{name}={rule!r}: one of {', '.join(RULES)}, or a number above 0")
            if not isinstance(rule, str):
                self._above_zero(name)
            if rule == "data":
                looked.append(LOOKED.format(name))
        far, high = self._largest(users) if looked else (0.0, 0.0)
        x = far if self.clip_x == "data" else self.clip_x
        y = high if self.clip_y == "data" else self.clip_y
        self.clip_x_ = None if x is None else radius(x, self.x_scale, users.n, users.d)
        self.clip_y_ = None if y is None else cut(y, self.y_scale, users.n)
        return looked

    @staticmethod
    def _largest(users: Users | Moments) -> tuple[float, float]:
        """The largest |x| and |y| that there are: what a private fit must never ask."""
        if isinstance(users, Moments):
            raise ValueError("moments do not say how long the longest row is: choose clip_x and clip_y without looking")
        far = high = 0.0
        for X, y in users.blocks(0, users.n):
            far = max(far, float(np.linalg.norm(X, axis=1).max()))
            high = max(high, float(np.abs(y).max()))
        return far or 1.0, high or 1.0

    def _above_zero(self, *names: str) -> None:
        for name in names:
            number(self, name, 0.0)


class Private(Clipped):
    """Base of private regressors: ``epsilon``, ``delta`` (None: 1 / n) and the guarantee, ``privacy_spent_``, after a fit."""

    epsilon: float
    delta: float | None

    def _delta(self, n: int) -> float:
        delta = 1 / n if self.delta is None else self.delta
        if not is_number(delta) or not 0 < delta < 1:
            raise ValueError(f"delta={delta!r}: has to be above 0 and below 1, or None for 1 / n")
        return float(delta)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # a handful of users cannot be told anything about in private
        return tags
