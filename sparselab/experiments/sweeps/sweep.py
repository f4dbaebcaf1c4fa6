"""From planned cells to an exit code: who runs when, what is waited for, what is tried again.

The folders of the cells say what has happened; what a launcher returns only adds what they cannot say. So a launcher
that breaks down half-way costs nothing but its own lines, and a second sweep on the same runs folder is just another
process.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sparselab.core import plugins
from sparselab.core.errors import Issues, RunFailed
from sparselab.experiments.comparison.table import side_by_side
from sparselab.experiments.sweeps import lease, state
from sparselab.experiments.sweeps.cells import Asked, Planned, Schedule
from sparselab.experiments.sweeps.job import STOP, Outcome
from sparselab.experiments.sweeps.progress import Progress, failures
from sparselab.storage import record as records

FAILED, NONDETERMINISTIC, STOPPED = 1, 3, 75
TRIES = 3  # of a cell whose process dies without a word: killed, or its machine was
POLL = 1.0  # seconds between two looks at cells that others hold
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)

# Runs cells somewhere, and returns what each had to say, in their order; None where one died without a word.
Launch = Callable[[Sequence[Planned]], Sequence[Outcome | None]]


class LauncherBroke(Exception):
    """The launcher itself failed, with some of its cells perhaps done."""


def new_token() -> str:
    """A name for a sweep's folder, unlike any other's."""
    return f"{time.time_ns():x}-{socket.gethostname().partition('.')[0][:16]}-{os.getpid()}"


@dataclass
class Sweep:
    """The cells of one command, until each of them is finished, has failed, or the sweep was asked to stop.

    folder: for the request to stop, and for what a launcher leaves. force: finished cells run again.
    """

    asked: Asked
    schedule: Schedule
    folder: Path
    launch: Launch
    failed: dict[str, str] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    stopped: bool = False
    idle: int = 0  # rounds of the launcher in a row in which nothing happened

    def run(self) -> int:
        """Returns 0 (all finished), 1 (some failed), 3 (some are not deterministic) or 75 (stopped)."""
        cells = list(self.schedule.cells.values())
        todo = {cell.id for cell in cells if cell.force or not state.done(cell.folder, cell.id)}
        finished = len(cells) - len(todo)
        self.progress = Progress(self.asked.name, len(cells), finished, self.asked.metric)
        self.progress.say(self._headline(len(cells), finished))
        if not todo:
            return self._conclude(todo)
        self._prepare([cell for cell in cells if cell.id in todo])
        self.progress.watch(cell for cell in cells if cell.id in todo)
        try:
            with self._listening(), self.progress:
                for level in self.schedule.levels():
                    self._finish([cell for cell in level if cell.id in todo])
        finally:
            self._tidy()
        return self._conclude(todo)

    def _headline(self, total: int, finished: int) -> str:
        shared = total - len(self.schedule.asked)
        again = self.schedule.count - len(self.schedule.asked)
        notes = [f"{finished} finished before"] if finished else []
        notes += [f"{shared} that others need"] if shared else []
        notes += [f"{again} asked for again"] if again else []
        return f"{self.asked.name}: {total} cell{'s' if total > 1 else ''}" + (
            f" ({', '.join(notes)})" if notes else ""
        )

    def _prepare(self, cells: list[Planned]) -> None:
        """Set unusable records aside; forget what is to run again, unless somebody is at it.

        Raises ConfigError, with nothing touched, where a newer sparselab wrote a record.
        """
        issues = Issues()
        for cell in cells:
            with issues.collect():
                state.broken(cell.folder, cell.id)
        issues.raise_if_any()
        for cell in cells:
            if cell.force and lease.held(cell.folder) is None:
                shutil.rmtree(cell.folder, ignore_errors=True)
            elif (reason := state.broken(cell.folder, cell.id)) is not None:
                try:
                    aside = state.set_aside(cell.folder)
                except OSError as error:
                    raise RunFailed(f"{reason}; it cannot be set aside ({error.strerror})") from None
                self.progress.say(f"{reason.partition(' — ')[0]}: set aside as {aside}, its cell runs again")

    def _finish(self, cells: list[Planned]) -> None:
        """Run these cells to their end; returns early when the sweep is asked to stop."""
        left = {cell.id: cell for cell in cells}
        told = False
        while left and not self._asked_to_stop():
            ready, elsewhere = self._sort(left)
            if ready:
                self._launch(ready)
            elif elsewhere:
                if not told:
                    told = True
                    whom = sorted({str(holder) for holder in elsewhere.values()})
                    self.progress.say(f"waiting for {len(elsewhere)} cells that others run ({'; '.join(whom[:3])})")
                time.sleep(POLL)

    def _sort(self, left: dict[str, Planned]) -> tuple[list[Planned], dict[str, lease.Holder]]:
        """(cells to launch, holders of cells that another process runs); what has ended leaves ``left``."""
        ready: list[Planned] = []
        elsewhere: dict[str, lease.Holder] = {}
        self.progress.look()
        for cell in list(left.values()):
            ended = cell.id not in self.progress.waiting
            if not ended and state.done(cell.folder, cell.id):  # before anybody could watch
                self.progress.finish(cell)
                ended = True
            if ended:
                del left[cell.id]
                there = state.ended(cell.folder, cell.id)
                if there is not None and there.status == "failed":
                    self.failed.setdefault(cell.id, there.reason)
            elif broken := [id for id in cell.dependencies if id in self.failed]:
                self._fail(cell, f"needs cell {broken[0]}, which failed")
                del left[cell.id]
            elif (holder := lease.held(cell.folder)) is not None:
                elsewhere[cell.id] = holder
            elif self.tries[cell.id] >= TRIES:
                self._fail(cell, f"its process died {TRIES} times without a word (killed? out of memory?)")
                del left[cell.id]
            else:
                ready.append(cell)
        return ready, elsewhere

    def _launch(self, cells: list[Planned]) -> None:
        """One round of the launcher, and what came of it. Raises RunFailed for a launcher that runs nothing."""
        waiting, died = len(self.progress.waiting), self.tries.total()
        outcomes: Sequence[Outcome | None] = []
        reason = "it runs nothing"
        try:
            outcomes = self.launch(cells)
        except LauncherBroke as broke:
            reason = str(broke)
            self.progress.say(f"{reason}: what is left is started again")
        self.progress.look()
        for cell, outcome in zip_longest(cells, outcomes):
            if cell.id in self.progress.waiting:
                self._learn(cell, outcome)
        moved = self.stopped or len(self.progress.waiting) < waiting or self.tries.total() > died
        busy = any(outcome is not None and outcome.state == "busy" for outcome in outcomes)
        self.idle = 0 if moved or busy else self.idle + 1
        if self.idle >= TRIES:
            raise RunFailed(f"the launcher gives up: {reason} — see hydra/launcher")

    def _learn(self, cell: Planned, outcome: Outcome | None) -> None:
        """Report a cell that left no record."""
        if outcome is None:
            holder = lease.read(cell.folder)  # a process that is killed leaves its lease behind
            self.tries[cell.id] += holder is not None and holder.dead()
        elif outcome.state in ("stopped", "left"):
            self.stopped = True
        elif outcome.state == "failed":
            self._fail(cell, outcome.reason)

    def _fail(self, cell: Planned, reason: str) -> None:
        self.failed[cell.id] = reason
        self.progress.fail(cell, reason)

    def _asked_to_stop(self) -> bool:
        self.stopped = self.stopped or (self.folder / STOP).exists()
        return self.stopped

    def stop(self, name: str, forward: int | None = None) -> None:
        """Start nothing more. ``forward``: a signal for this machine's processes that run cells of the sweep."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / STOP).touch()
        os.write(2, f"\n{name}: the sweep stops once its running cells are saved\n".encode())
        if forward is None:
            return
        for cell, _ in list(self.progress.waiting.values()):
            holder = lease.read(cell.folder)
            if holder is not None and holder.sweep == self.folder.name and holder.alive_here():
                with suppress(OSError):
                    os.kill(holder.pid, forward)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """A first signal asks to stop, a second one leaves at once. A running cell of this process owns them meanwhile."""

        def handle(number: int, frame: Any) -> None:
            if (self.folder / STOP).exists():
                os._exit(STOPPED)
            # What a terminal sends reaches every process of the sweep by itself, and twice would mean: at once.
            self.stop(signal.Signals(number).name, None if number == signal.SIGINT else signal.SIGTERM)

        before = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _tidy(self) -> None:
        """Remove the sweep's folder, with a launcher's logs only where all went well."""
        with suppress(OSError):
            (self.folder / STOP).unlink(missing_ok=True)
            if not self.failed and not self.stopped:
                shutil.rmtree(self.folder)
            else:
                self.folder.rmdir()
        with suppress(OSError):
            self.folder.parent.rmdir()

    def _conclude(self, todo: set[str]) -> int:
        """Print what there is to say at the end, and the exit code that says it."""
        cells = self.schedule.cells
        say = self.progress.say
        for cell in cells.values():
            if state.done(cell.folder, cell.id):  # its process may have been killed before it could give the lease back
                lease.forget(cell.folder)
        if self.failed:
            say(failures([(id, cells[id].title, reason) for id, reason in self.failed.items()], len(cells)))
            if self.folder.exists():
                say(f"the launcher's logs: {self.folder}")
        odd = [path for cell in cells.values() for path in records.conflicts(cell.folder)]
        for path in odd:
            say(f"{path}: another run of this cell gave another result; both are kept")
        if self.stopped:
            left = sum(1 for id in todo if id not in self.failed and not state.done(cells[id].folder, id))
            say(f"{self.asked.name}: stopped on request, {left} of {len(cells)} cells left — the same command goes on")
            return STOPPED
        if not self.asked.paper:
            for line in side_by_side(cells[id].folder for id in cells if id in self.schedule.asked):
                say(line)
        say(f"{self.asked.name}: {len(cells) - len(self.failed)} of {len(cells)} cells finished")
        if self.asked.paper and not self.failed:
            folder = ["--config-dir", os.path.relpath(self.asked.config_dir)] if self.asked.config_dir else []
            words = [*folder, *plugins.words(), f"paper={self.asked.paper}", f"tier={self.asked.tier}"]
            say(f"the table: sparselab table {shlex.join(words)}")
        return NONDETERMINISTIC if odd else FAILED if self.failed else 0
