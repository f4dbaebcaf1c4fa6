"""The Gaussian mechanism: how much noise it takes, and what it spends exactly [no numpy: planning asks, too].

With mu = sensitivity / sigma, one release is (eps, delta)-private if and only if delta is at least ``spent(eps, mu)``
(Balle & Wang 2018, arXiv 1805.06530, theorem 8). Releases of mu_1, mu_2 … about one user are together exactly one release
of mu = sqrt(mu_1^2 + mu_2^2 + …) (Dong, Roth & Su 2022, arXiv 1905.02383, corollary 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

LARGEST = 1e100  # standard deviation of a noise that can be squared and summed


def _log_tail(a: float) -> float:
    """log P(Z > a) of a standard normal Z, also where the probability itself is too small for a float."""
    if a < 30:
        return math.log(math.erfc(a / math.sqrt(2)) / 2)
    return -a * a / 2 - math.log(a * math.sqrt(2 * math.pi)) + math.log1p(-1 / a**2 + 3 / a**4 - 15 / a**6)


def spent(epsilon: float, mu: float) -> float:
    """The least delta for which a Gaussian release of ``mu`` = sensitivity / sigma is (epsilon, delta)-private."""
    if mu == 0:
        return 0.0
    below = math.exp(_log_tail(epsilon / mu - mu / 2))
    return max(0.0, below - math.exp(epsilon + _log_tail(epsilon / mu + mu / 2)))


def classical(sensitivity: float, epsilon: float, delta: float) -> float:
    """sigma = sensitivity sqrt(2 log(1.25 / delta)) / epsilon (Dwork & Roth 2014, theorem A.1: proven for epsilon < 1)."""
    return sensitivity * math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def suffices(epsilon: float, delta: float) -> bool:
    """True where the classical sigma is (epsilon, delta)-private: by its proof up to 1, by the exact curve beyond."""
    return epsilon < 1 or spent(epsilon, 1 / classical(1.0, epsilon, delta)) <= delta


def largest_mu(epsilon: float, delta: float) -> float:
    """The largest mu whose release is (epsilon, delta)-private, to 1 part in 1e12, from below."""
    low, high = 0.0, 1.0
    while spent(epsilon, high) <= delta:
        low, high = high, 2 * high
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(epsilon, middle) <= delta else (low, middle)
    return low


def calibrate(
    sensitivities: Sequence[float], shares: Sequence[float], epsilon: float, delta: float, mechanism: str
) -> list[float]:
    """A sigma for each release about one user, so that all together are (epsilon, delta)-private.

    shares: parts of the budget, which add up to 1. mechanism: ``gaussian`` (classical; epsilon and delta are split and added
    up), ``analytic`` (the same split, each release with the least noise for it) or ``joint`` (mu^2 is split instead, which is
    exact for all releases together). ValueError where the classical noise would not do, or is beyond all numbers.
    """
    return bearable(_sigmas(sensitivities, shares, epsilon, delta, mechanism), epsilon, delta)


def bearable(sigmas: Sequence[float], epsilon: float, delta: float) -> list[float]:
    """The sigmas. ValueError where squares of their noise would overflow."""
    if not all(sigma < LARGEST for sigma in sigmas):
        raise ValueError(f"epsilon={epsilon:g}, delta={delta:g}: no number is large enough for such noise; spend more")
    return list(sigmas)


def _sigmas(
    sensitivities: Sequence[float], shares: Sequence[float], epsilon: float, delta: float, mechanism: str
) -> list[float]:
    if mechanism == "joint":
        mu = largest_mu(epsilon, delta)
        return [size / (mu * math.sqrt(share)) for size, share in zip(sensitivities, shares, strict=True)]
    budgets = [(share * epsilon, share * delta) for share in shares]
    if mechanism == "analytic":
        return [size / largest_mu(*budget) for size, budget in zip(sensitivities, budgets, strict=True)]
    for budget in budgets:
        if not suffices(*budget):
            raise ValueError(
                f"epsilon={epsilon:g}: the classical Gaussian mechanism is too weak for {budget[0]:g} a release; "
                "use mechanism='analytic'"
            )
    return [classical(size, *budget) for size, budget in zip(sensitivities, budgets, strict=True)]
