"""Thresholding rules: proximal maps of penalties on a code, entry by entry (Rentzeperis et al. 2023, arXiv 2301.10002).

A rule answers two questions. ``shrink(u, lam, step)`` is what is left of ``u`` after a gradient step of size ``step``;
``cost(r, lam)`` is the penalty that it is made for, so that ``shrink`` minimises ½(r - u)² + step · cost(r). Zeros are exact.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from sparselab.estimation.estimators.checks import is_number

NEWTON = 60  # most steps for l_q; fewer than ten are taken

Array = np.ndarray


class Rule(ABC):
    """Base of the rules. ``convex``: whether the penalty is."""

    convex: ClassVar[bool] = False

    @abstractmethod
    def shrink(self, u: Array, lam: float, step: float) -> Array:
        """An array of the shape of ``u``; ``u`` stays as it is."""

    @abstractmethod
    def cost(self, r: Array, lam: float) -> Array:
        """The penalty of each entry of ``r``."""


class Soft(Rule):
    """l1: sign(u) max(|u| - lam step, 0)."""

    convex = True

    def shrink(self, u: Array, lam: float, step: float) -> Array:
        found = np.abs(u)
        found -= lam * step
        np.maximum(found, 0, out=found)
        return np.copysign(found, u, out=found)

    def cost(self, r: Array, lam: float) -> Array:
        return lam * np.abs(r)


class Hard(Rule):
    """l0 as in the released code: ``u`` is kept where |u| >= sqrt(lam step), which minimises with lam / 2 for each non-zero."""

    def shrink(self, u: Array, lam: float, step: float) -> Array:
        return np.where(np.abs(u) >= np.sqrt(lam * step), u, 0)

    def cost(self, r: Array, lam: float) -> Array:
        return 0.5 * lam * (r != 0)


class HardProx(Rule):
    """l0 with lam for each non-zero: ``u`` is kept where |u| > sqrt(2 lam step)."""

    def shrink(self, u: Array, lam: float, step: float) -> Array:
        return np.where(np.abs(u) > np.sqrt(2 * lam * step), u, 0)

    def cost(self, r: Array, lam: float) -> Array:
        return lam * (r != 0)


class Half(Rule):
    """l_1/2 in closed form (Xu et al. 2012), for lam / 2 · |r|^½: what is left of an entry jumps from 0 to two thirds of it."""

    def shrink(self, u: Array, lam: float, step: float) -> Array:
        theta = lam * step
        found = np.zeros_like(u)
        on = np.abs(u) > np.cbrt(54) / 4 * theta ** (2 / 3)
        big = u[on]
        angle = np.arccos(theta / 8 * (np.abs(big) / 3) ** -1.5)
        found[on] = 2 / 3 * big * (1 + np.cos(2 * np.pi / 3 - 2 / 3 * angle))
        return found

    def cost(self, r: Array, lam: float) -> Array:
        return 0.5 * lam * np.sqrt(np.abs(r))


class Lq(Rule):
    """lam |r|^q for 0 < q < 1. There is no closed form: the larger root of r + lam step q r^(q-1) = |u| by Newton's method."""

    def __init__(self, q: float):
        if not is_number(q) or not 0 < q < 1:
            raise ValueError(f"q={q!r}: a number in (0, 1); q=1 is penalty='soft', q=0 is penalty='hard_prox'")
        self.q = q

    def shrink(self, u: Array, lam: float, step: float) -> Array:
        q, theta = self.q, lam * step
        found = np.zeros_like(u)
        if theta == 0:
            return found + u
        least = (2 * theta * (1 - q)) ** (1 / (2 - q))  # what is left of an entry that just passes
        on = np.abs(u) > least + theta * q * least ** (q - 1)
        size = np.abs(u[on])
        r = size.copy()  # right of the root of a convex function: Newton's steps come down to it and never pass it
        for _ in range(NEWTON):
            slope = theta * q * r ** (q - 1)
            move = (r + slope - size) / (1 + (q - 1) * slope / r)
            r -= move
            if not (np.abs(move) > 4 * np.finfo(r.dtype).eps * r).any():
                break
        found[on] = np.copysign(r, u[on])
        return found

    def cost(self, r: Array, lam: float) -> Array:
        return lam * np.abs(r) ** self.q


class CEL0(Rule):
    """The continuous exact relaxation of l0 (Soubies et al. 2015) for atoms of length 1.

    Its cost is lam - ½(sqrt(2 lam) - |r|)², and lam from sqrt(2 lam) on; it has the global minimisers of lam ||r||_0. For a
    step of 1 and above it is hard thresholding.
    """

    def shrink(self, u: Array, lam: float, step: float) -> Array:
        size, edge = np.abs(u), math.sqrt(2 * lam)
        if step >= 1:
            return np.where(size > math.sqrt(2 * lam * step), u, 0)
        left = size - edge * step
        np.maximum(left, 0, out=left)
        left /= 1 - step
        np.minimum(left, size, out=left)
        return np.copysign(left, u, out=left)

    def cost(self, r: Array, lam: float) -> Array:
        return lam - 0.5 * np.maximum(math.sqrt(2 * lam) - np.abs(r), 0) ** 2


RULES: dict[str, type[Rule]] = {"soft": Soft, "hard": Hard, "hard_prox": HardProx, "half": Half, "cel0": CEL0, "lq": Lq}


def rule_of(penalty: str, q: float) -> Rule:
    """The rule of that name; ``q`` is looked at by ``lq`` only. ValueError for another name or q."""
    if not isinstance(penalty, str) or penalty not in RULES:
        raise ValueError(f"penalty={penalty!r}: one of {', '.join(RULES)}")
    return Lq(q) if RULES[penalty] is Lq else RULES[penalty]()
