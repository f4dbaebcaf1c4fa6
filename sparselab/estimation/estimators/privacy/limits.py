"""How far one user may reach: from what is assumed of all users, never from their data [no numpy: planning asks, too]."""

from __future__ import annotations

import math

ESCAPE = 1e-6  # chance that "all" leaves for any user to be clipped
RULES = ("typical", "signs", "all", "data")
LOOKED = "{} was chosen by looking at the data"


def radius(rule: float | str, scale: float, n: int, d: int) -> float:
    """The norm that rows of ``d`` entries are shrunk to, ``scale`` being the assumed standard deviation of an entry.

    ``typical``: scale sqrt(2 d). ``signs``: scale sqrt(d), the length of a row of signs. ``all``: beyond it lies
    none of ``n`` normal rows, up to a chance of 1e-6 (Laurent & Massart 2000, lemma 1): scale
    sqrt(d + 2 sqrt(d t) + 2 t), t = log(2 n / 1e-6), of the order sqrt(d + log n).
    """
    if rule == "typical":
        return scale * math.sqrt(2 * d)
    if rule == "signs":
        return scale * math.sqrt(d)
    if rule == "all":
        t = math.log(2 * n / ESCAPE)
        return scale * math.sqrt(d + 2 * math.sqrt(d * t) + 2 * t)
    return float(rule)


def cut(rule: float | str, scale: float, n: int) -> float:
    """The largest |y|: 3 ``scale`` (``typical``, ``signs``), or what no response of ``n`` exceeds (``all``, chance 1e-6)."""
    if rule in ("typical", "signs"):
        return 3 * scale
    if rule == "all":
        return scale * math.sqrt(2 * math.log(4 * n / ESCAPE))
    return float(rule)
