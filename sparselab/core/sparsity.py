"""The value after ``sparsity=``: how much is kept, and in what shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sparselab.core.errors import ConfigError, Issue, refuse, short, spell

FORMS = 'write 0.9, "2:4", block:4x1:0.8, channel:0.5, in_channel:0.5 or dense'


@dataclass(frozen=True)
class Sparsity:
    """A requested sparsity. ``density`` is the fraction of weights KEPT; N:M always means N kept of M.

    kind: ``dense`` | ``unstructured`` | ``nm`` | ``block`` | ``channel`` (outputs: filters) | ``in_channel`` (inputs); or
    ``iso``, which a plan replaces by the unstructured sparsity at which a transformed network costs what the plain one does.
    """

    kind: str
    density: float
    n: int | None = None
    m: int | None = None
    block: tuple[int, int] | None = None

    @property
    def sparsity(self) -> float:
        return float(1 - Fraction(str(self.density))) if self.kind != "nm" else 1 - self.density

    def __str__(self) -> str:
        gone = f"{self.sparsity:.10g}"
        return {
            "dense": "dense",
            "iso": "iso",
            "unstructured": gone,
            "nm": f"{self.n}:{self.m}",
            "block": f"block:{self.block[0]}x{self.block[1]}:{gone}" if self.block else "",
            "channel": f"channel:{gone}",
            "in_channel": f"in_channel:{gone}",
        }[self.kind]

    @classmethod
    def parse(cls, value: Any, where: str = "sparsity") -> Sparsity:
        """Parse ``0.9``, ``2:4``, ``block:4x1:0.8``, ``channel:0.5``, ``in_channel:0.5``, ``iso`` or ``dense``; anything
        else is ConfigError."""
        if isinstance(value, cls):
            return value
        at = short(f"{where}={spell(value)}")
        if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
            refuse(at, "not a sparsity", FORMS)
        if isinstance(value, (int, float)):
            return cls._number(value, at)
        text = str(value).strip()
        if text.lower() in ("dense", "iso"):
            return cls(text.lower(), 1.0)
        if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE):
            return cls._number(float(text) if re.search(r"[.e]", text, re.IGNORECASE) else int(text), at)
        if match := re.fullmatch(r"(-?\d+):(-?\d+)", text):
            return cls._n_of_m(int(match[1]), int(match[2]), at)
        if match := re.fullmatch(r"(channel|in_channel):(.+)", text):
            return cls(match[1], cls._fraction(match[2], at))
        if match := re.fullmatch(r"block:(\d+)x(\d+):(.+)", text):
            rows, columns = int(match[1]), int(match[2])
            if rows < 1 or columns < 1:
                refuse(at, "a block has at least one row and one column", "write block:4x1:0.8")
            return cls("block", cls._fraction(match[3], at), block=(rows, columns))
        fix = FORMS
        if match := re.fullmatch(r"(\d+)/(\d+)", text):
            fix = f'for {match[1]} kept of {match[2]} write "{match[1]}:{match[2]}"'
        if match := re.fullmatch(r"(\d\d?(\.\d+)?) ?%", text):
            fix = f"for {match[1]} % write {float(match[1]) / 100:.10g}"
        raise ConfigError([Issue(at, "not a sparsity", fix)])

    @classmethod
    def _number(cls, value: int | float, at: str) -> Sparsity:
        if isinstance(value, int) and value > 1:
            n, m = divmod(value, 60)  # YAML 1.1 reads an unquoted 2:4 as base 60
            if 0 < n < m:
                percent = f", and for {value} % write 0.{value:02d}" if value < 100 else ""
                refuse(at, f"looks like an unquoted {n}:{m}", f'write "{n}:{m}" in quotes{percent}')
        return cls._unstructured(value, at)

    @classmethod
    def _unstructured(cls, value: float, at: str) -> Sparsity:
        density = cls._fraction(value, at)
        return cls("dense", 1.0) if density == 1 else cls("unstructured", density)

    @staticmethod
    def _fraction(value: Any, at: str) -> float:
        try:
            gone = float(value)
        except ValueError:
            refuse(at, f"{value!r} is not a fraction", FORMS)
        if not 0 <= gone < 1:
            hint = f"for {gone:g} % write {gone / 100:g}" if 1 < gone < 100 else "for 50 % write 0.5"
            refuse(at, "must be in [0, 1)", hint)
        return float(1 - Fraction(str(value if not isinstance(value, str) else float(value))))

    @classmethod
    def _n_of_m(cls, n: int, m: int, at: str) -> Sparsity:
        if n < 0 or m < 1:
            refuse(at, "N:M counts weights: N kept of every M", 'write "2:4"')
        if n == 0:
            refuse(at, f"keeps none of every {m}", f'N must be at least 1: write "1:{m}"')
        if n == m:
            refuse(at, f"keeps {n} of every {m}, which is dense", "use method=dense")
        if n > m:
            refuse(at, f"keeps {n} of every {m}: N must be below M", f'for {m} of {n} write "{m}:{n}"')
        return cls("nm", n / m, n=n, m=m)
