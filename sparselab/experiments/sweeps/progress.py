"""A line for each cell that ends, and one for the whole now and then: for a terminal and for a log file alike.

What is reported is read from the folders of the cells, so it does not matter which launcher runs them, and where.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TextIO

from sparselab.experiments.sweeps import state
from sparselab.experiments.sweeps.cells import Planned

LOOK = 0.5  # seconds between two looks at the folders
EVERY = 30.0  # seconds between two lines about the whole, while nothing ends
ALIKE = 3.0  # times as much work as the largest cell that has ended, or as little as the smallest
WIDTH = 60  # characters of a cell's title


class Progress:
    """Watches cells until they end. Use as a context manager around what runs them.

    before: the signatures of the records that are there already, so that an old failure is not taken for a new one.
    """

    def __init__(
        self,
        name: str,
        total: int,
        finished: int,
        metric: str | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.name, self.total, self.metric, self.clock = name, total, metric, clock
        self.finished, self.failed = finished, 0
        self.stream = stream or sys.stderr
        self.waiting: dict[str, tuple[Planned, state.Signature]] = {}
        self.began = clock()
        self.ended: list[tuple[float, float]] = []  # work and seconds of each cell that finished here
        self.first_end = self.began
        self._told = self.began
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, cells: Iterable[Planned]) -> None:
        """These are to run; whatever their folders hold now does not count."""
        for cell in cells:
            self.waiting[cell.id] = (cell, state.signature(cell.folder))

    def __enter__(self) -> Progress:
        self._thread = threading.Thread(target=self._loop, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self.look()

    def _loop(self) -> None:
        while not self._ended.wait(LOOK):
            self.look()
            if self.clock() - self._told > EVERY:
                self.tell()

    def look(self) -> None:
        """Report every cell that has ended since the last look."""
        with self._lock:
            for id, (cell, before) in list(self.waiting.items()):
                ended = state.ended(cell.folder, id, before)
                if ended is not None:
                    del self.waiting[id]
                    self._report(cell, ended)

    def fail(self, cell: Planned, reason: str) -> None:
        """Report a failure that left no record."""
        with self._lock:
            if self.waiting.pop(cell.id, None) is not None:
                self._report(cell, state.Ended("failed", reason, {}, 0.0))

    def finish(self, cell: Planned) -> None:
        """Report a success that was there before anybody watched."""
        with self._lock:
            ended = state.ended(cell.folder, cell.id)
            if ended is not None and self.waiting.pop(cell.id, None) is not None:
                self._report(cell, ended)

    def _report(self, cell: Planned, ended: state.Ended) -> None:
        good = ended.status == "finished"
        if good:
            self.first_end = self.first_end if self.ended else self.clock()
            self.ended.append((cell.work, ended.seconds))
        self.finished += good
        self.failed += not good
        what = f"{self._number(ended)}  {span(ended.seconds)}" if good else ended.reason
        title = cell.title if len(cell.title) <= WIDTH else cell.title[: WIDTH - 1] + "…"
        count = f"[{self.finished + self.failed:>{len(str(self.total))}}/{self.total}]"
        self.say(f"{count} {ended.status}  {cell.id}  {title}  {what}")
        self.tell(least=5.0)

    def _number(self, ended: state.Ended) -> str:
        key = self.metric if self.metric in ended.metrics else None
        key = key or next((name for name in sorted(ended.metrics) if name.startswith("test.")), None)
        return f"{key} {ended.metrics[key]:.4g}" if key else ""

    def tell(self, least: float = 0.0) -> None:
        """The line about the whole, unless there was one in the last ``least`` seconds."""
        left = self.total - self.finished - self.failed
        if not left or self.clock() - self._told < least:
            return
        self._told = self.clock()
        failed = f", {self.failed} failed" if self.failed else ""
        self.say(f"{self.name}: {self.finished} of {self.total} finished{failed}, {left} left{self._eta()}")

    def _eta(self) -> str:
        """Nothing is said where what is left is unlike all that has ended."""
        rest = [cell.work for cell, _ in self.waiting.values()]
        done = [work for work, _ in self.ended]
        if not rest or not done or max(rest) > ALIKE * max(done) or min(rest) < min(done) / ALIKE:
            return ""
        start, each = two_numbers(self.ended)
        seconds = sum(start + each * work for work in rest)
        alone = sum(seconds for _, seconds in self.ended[1:])
        if alone:  # how many run at a time, and what lies between two cells, since the first of them ended
            seconds *= (self.clock() - self.first_end) / alone
        return f", about {span(seconds)} to go"

    def say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


def two_numbers(ended: list[tuple[float, float]]) -> tuple[float, float]:
    """Fit (seconds to start, seconds per unit of work), neither negative, to (work, seconds).

    Of cells with equal work all is work.
    """
    mean_work = sum(work for work, _ in ended) / len(ended)
    mean = sum(seconds for _, seconds in ended) / len(ended)
    spread = sum((work - mean_work) ** 2 for work, _ in ended)
    if not spread:
        return 0.0, mean / mean_work
    each = max(0.0, sum((work - mean_work) * (seconds - mean) for work, seconds in ended) / spread)
    start = mean - each * mean_work
    return (start, each) if start >= 0 else (0.0, mean / mean_work)


def span(seconds: float) -> str:
    """``41 s``, ``8 min``, ``5.2 h``, ``3.1 days``."""
    for size, unit, digits in ((86_400, "days", 1), (3_600, "h", 1), (60, "min", 0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"


def failures(rows: list[tuple[str, str, str]], total: int) -> str:
    """The table of what failed: (id, title, reason), one line each."""
    width = min(max(len(title) for _, title, _ in rows), WIDTH)
    lines = [f"{len(rows)} of {total} cells failed:"]
    lines += [f"  {id}  {title if len(title) <= width else title[: width - 1] + '…':<{width}}  {reason}"
              for id, title, reason in rows]  # fmt: skip
    return "\n".join(lines)
