"""Laws of one variable, fitted to points by least squares: coefficients with their intervals, residuals, R².

Laws that are no line on any scale are fitted by Levenberg and Marquardt's method (scipy), from several starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

LEAST = 3  # places on the axis: any two lie on a curve
STEEPEST = 8.0  # of the exponents that are looked at beside an offset
CONFIDENCE = 0.95
FLOORS = (1e-3, 0.03, 0.3, 1.0)  # below the lowest point, in ranges of y: where the search for a floor starts
BEST = 3  # starts that are followed to the end
BENDS = (0.1, 0.3, 0.6, 1.0, 1.5, 2.5)  # where the search for an exponent beside it starts


@dataclass(frozen=True)
class Curve:
    """A fitted curve of y at x. slope: the exponent of a power, the rate of an exponential, the slope of a line."""

    slope: float
    r2: float


@dataclass(frozen=True)
class Law:
    """A law of one variable.

    logs: whether logarithms of x, and of y, are fitted. names: of the coefficients, in the order that ``at`` takes them. slope:
    the one that claims are about. gradient: (n, coefficients), of ``at``.
    """

    logs: tuple[bool, bool]
    names: tuple[str, ...]
    slope: str
    at: Callable[..., Any]
    gradient: Callable[..., Any]

    @property
    def straight(self) -> bool:
        """True if it is a line on its scale."""
        return len(self.names) == 2

    @property
    def least(self) -> int:
        """Places that a fit takes: one more than coefficients."""
        return len(self.names) + 1


@dataclass(frozen=True)
class LawFit:
    """A fitted law: coefficients by name, their 95 % intervals, what it leaves of every point (on its own scale), R²."""

    coefficients: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    residuals: tuple[float, ...]
    r2: float


def line(x: Any, a: float, b: float) -> Any:
    """A line, a + b x."""
    return a + b * x


def offset_power(x: Any, c: float, a: float, b: float) -> Any:
    """A power beside an offset, c + a x^b; with b below 0 it comes to rest at c.

    The law of SiLU networks of Luo et al. (arXiv 2411.02335): A = A0 - c D^-alpha.
    """
    return c + a * x**b


def stretched(x: Any, c: float, b: float, a: float, s: float) -> Any:
    """A stretched exponential above a floor, c + e^(b - a x^s); with a and s above 0 it falls to c.

    The law of ReLU networks of Luo et al. (arXiv 2411.02335): A = A0 + e^(b - c D^alpha).
    """
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return c + np.exp(np.clip(b - a * x**s, -700, 700))


def _of_line(x: Any, a: float, b: float) -> Any:
    import numpy as np

    return np.stack([np.ones_like(x), x], -1)


def _of_offset_power(x: Any, c: float, a: float, b: float) -> Any:
    import numpy as np

    power = x**b
    return np.stack([np.ones_like(x), power, a * power * np.log(x)], -1)


def _of_stretched(x: Any, c: float, b: float, a: float, s: float) -> Any:
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        above, power = stretched(x, 0.0, b, a, s), x**s
        return np.nan_to_num(np.stack([np.ones_like(x), above, -power * above, -a * power * np.log(x) * above], -1))


LAWS: dict[str, Law] = {
    "power": Law((True, True), ("log a", "exponent"), "exponent", line, _of_line),
    "exponential": Law((False, True), ("log a", "rate"), "rate", line, _of_line),
    "logarithmic": Law((True, False), ("a", "slope"), "slope", line, _of_line),
    "linear": Law((False, False), ("a", "slope"), "slope", line, _of_line),
    "offset_power": Law((False, False), ("c", "a", "exponent"), "exponent", offset_power, _of_offset_power),
    "stretched": Law((False, False), ("c", "b", "a", "exponent"), "exponent", stretched, _of_stretched),
}


def scaled(values: Sequence[float], log: bool) -> list[float] | None:
    """The values, or their logarithms; None where one has none."""
    if not log:
        return list(values)
    return [math.log(v) for v in values] if min(values) > 0 else None


def curve_of(name: str, x: Sequence[float], y: Sequence[float]) -> Curve:
    """Fit a law and tell its slope and R²; NaN where it has no fit.

    Args:
        name: of the law, one of :data:`LAWS`
        x: (n,) numbers, above 0 where their logarithm or a power of them counts
        y: (n,)
    """
    xs, ys = scaled(x, LAWS[name].logs[0]), scaled(y, LAWS[name].logs[1])
    if xs is None or ys is None:
        return Curve(math.nan, math.nan)
    if LAWS[name].straight:
        return straight(xs, ys)
    if name == "offset_power":
        return beside_an_offset(xs, ys)
    found = fit_law(name, x, y)
    return Curve(found.coefficients[LAWS[name].slope], found.r2)


def straight(x: Sequence[float], y: Sequence[float]) -> Curve:
    """Least squares of a line; a constant y is fitted perfectly by slope 0."""
    import numpy as np  # scipy.stats.linregress is the same sums; to import it takes longer than all fits of a report

    if len(set(y)) == 1:
        return Curve(0.0, 1.0)
    of_x, together, _, of_y = np.cov(x, y, bias=True).flat
    correlation = min(1.0, max(-1.0, float(together / np.sqrt(of_x * of_y)))) if of_y else 0.0
    return Curve(float(together / of_x), correlation**2)


def beside_an_offset(x: Sequence[float], y: Sequence[float]) -> Curve:
    """Least squares of y = c + a x^b: for each b a line in x^b, and the b of the best of them.

    The smallest residual is bracketed on a grid of b, which has several local ones, and refined there.
    """
    from scipy.optimize import minimize_scalar

    middle = _middle(x)

    def missed(b: float) -> float:
        return 1 - straight([(v / middle) ** b for v in x], y).r2 if b else math.inf

    grid = [i / 10 for i in range(int(-10 * STEEPEST), int(10 * STEEPEST) + 1) if i]
    best = min(grid, key=missed)
    low, high = best - 0.1, best + 0.1
    found = minimize_scalar(missed, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    b = float(found.x) if found.fun <= missed(best) else best
    return Curve(b, 1 - missed(b))


def _middle(x: Sequence[float]) -> float:
    """The geometric mean of x, by which it is divided so that no power overflows."""
    return math.exp(math.fsum(map(math.log, x)) / len(x))


def fit_law(name: str, x: Sequence[float], y: Sequence[float]) -> LawFit:
    """Fit a law by least squares.

    Intervals are those of the law made linear at the fit, by Student's t with as many degrees of freedom as there are more
    points than coefficients. The exponent of ``stretched`` is above 0 and at most ``STEEPEST``.

    Args:
        name: of the law, one of :data:`LAWS`
        x: (n,) numbers, above 0 where their logarithm or a power of them counts
        y: (n,)

    Returns:
        The fit; all its numbers are NaN where there is none.
    """
    import numpy as np

    law = LAWS[name]
    xs, ys = scaled(x, law.logs[0]), scaled(y, law.logs[1])
    values = None if xs is None or ys is None else _least_squares(name, tuple(xs), tuple(ys))
    if xs is None or ys is None or values is None:
        return LawFit(dict.fromkeys(law.names, math.nan), dict.fromkeys(law.names, (math.nan, math.nan)), (), math.nan)
    at, of = np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    left = of - law.at(at, *values)
    all_of_it = float(((of - of.mean()) ** 2).sum())
    reach = _reach(law.gradient(at, *values), left)
    return LawFit(
        dict(zip(law.names, values, strict=True)),
        {key: (v - r, v + r) for key, v, r in zip(law.names, values, reach, strict=True)},
        tuple(map(float, left)),
        1 - float(left @ left) / all_of_it if all_of_it else 1.0,
    )


@lru_cache(maxsize=256)  # a claim about exponent and R² asks for the same fit twice
def _least_squares(name: str, x: tuple[float, ...], y: tuple[float, ...]) -> tuple[float, ...] | None:
    """The coefficients of the smallest sum of squares; None where no start comes to any."""
    import numpy as np
    from scipy.optimize import least_squares

    law, of = LAWS[name], np.asarray(y, dtype=float)
    if law.straight:
        slope = straight(x, y).slope
        return float(of.mean() - slope * np.mean(x)), slope
    middle = _middle(x)
    at = np.asarray(x, dtype=float) / middle

    def climb(start: Any, close: float, most: int) -> Any:
        return least_squares(
            lambda c: law.at(at, *c) - of, start, lambda c: law.gradient(at, *c),
            method="lm", x_scale="jac", xtol=close, ftol=close, gtol=close, max_nfev=most,
        )  # fmt: skip

    def fits(found: Any) -> bool:
        return bool(np.isfinite(found.cost)) and (name != "stretched" or 0 < found.x[-1] <= STEEPEST)

    tried = sorted(filter(fits, (climb(start, 1e-6, 50) for start in _starts(name, at, of))), key=lambda f: f.cost)
    found = sorted(filter(fits, (climb(f.x, 1e-15, 300) for f in tried[:BEST])), key=lambda f: f.cost)
    if not found:
        return None
    *first, factor, exponent = map(float, found[0].x)
    return (*first, factor / middle**exponent, exponent)  # the power is of x itself


def _starts(name: str, x: Any, y: Any) -> Iterator[list[float]]:
    """Coefficients to start from: beside each exponent (and floor) a line's."""
    import numpy as np

    if name == "offset_power":
        b = beside_an_offset(x, y).slope
        a = straight(x**b, y).slope
        yield [float(y.mean() - a * (x**b).mean()), a, b]
        return
    extent = float(y.max() - y.min()) or 1.0
    for floor in FLOORS:
        above = np.log(y - (y.min() - floor * extent))
        for s in BENDS:
            fall = straight(x**s, above).slope
            yield [float(y.min() - floor * extent), float(above.mean() - fall * (x**s).mean()), -fall, s]


def _reach(gradient: Any, left: Any) -> list[float]:
    """Half the width of every coefficient's interval; NaN where there are no more points than coefficients."""
    import numpy as np
    from scipy.special import stdtrit

    points, count = gradient.shape
    if points <= count:
        return [math.nan] * count
    size = np.linalg.norm(gradient, axis=0)
    size[size == 0] = 1.0
    inverse = np.linalg.pinv((gradient / size).T @ (gradient / size), rcond=1e-15)
    variance = np.maximum(np.diag(inverse), 0) / size**2 * (left @ left) / (points - count)
    return [float(r) for r in stdtrit(points - count, (1 + CONFIDENCE) / 2) * np.sqrt(variance)]
