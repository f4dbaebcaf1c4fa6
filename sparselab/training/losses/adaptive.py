"""A loss's factor that follows the loss [no torch]."""

from __future__ import annotations

from typing import Any


class AdaptiveFactor:
    """lambda_cs over its start, as arXiv 2507.08771, appendix B, moves it.

    It is 1 for ``settle`` updates. Then, after every window of updates, it is multiplied by gamma, the window's mean loss over
    that of the window before; where gamma is above 1 by ``least_rise`` at least. A loss that falls so has a factor that falls.
    It stays where one of the means is not above 0, as that of chunks that use no expert is (1e-5 a token below).

    cap: most that it may be; None: no bound. gradual: each value is reached linearly over the next window (thunlp/BlockFFN,
    value_scheduler.py, with a cap of 4), else at once.
    """

    def __init__(self, settle: int, every: int, least_rise: float, cap: float | None, gradual: bool):
        self.settle, self.every, self.least_rise, self.cap, self.gradual = settle, every, least_rise, cap, gradual
        self.before: float | None = None  # the mean loss of the last window
        self.start = self.end = 1.0
        self.since = 0

    def move(self, done: int, mean: float) -> None:
        """Take in a window that ends after update ``done``, and its ``mean`` loss."""
        if self.before is not None and self.before > 0 and mean > 0 and done >= self.settle:
            gamma = mean / self.before
            target = self.end * (gamma if gamma <= 1 else max(self.least_rise, gamma))
            self.start, self.end = self.end, target if self.cap is None else min(target, self.cap)
            self.since = done
        self.before = mean

    def at(self, done: int) -> float:
        """The factor of the update after ``done`` others."""
        if not self.gradual:
            return self.end
        return self.start + (self.end - self.start) * min(1.0, (done + 1 - self.since) / self.every)

    def state(self) -> dict[str, Any]:
        """Numbers for a checkpoint."""
        return {"before": self.before, "start": self.start, "end": self.end, "since": self.since}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.before, self.start, self.end, self.since = (state[k] for k in ("before", "start", "end", "since"))
