"""Signals: the first one sets a flag, which is honoured where nothing is lost by it [no torch]."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sparselab.core.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
EXIT_STOPPED = 75


class StopFlag:
    """Set by the first request to stop. A second one leaves at once, without saving: the last checkpoint stands."""

    def __init__(self) -> None:
        self.name = ""
        self._interrupts = False

    def __bool__(self) -> bool:
        return bool(self.name)

    def request(self, name: str) -> None:
        """Ask to stop; ``name`` says who does. Safe in a signal handler and from another thread."""
        if self.name:
            os._exit(EXIT_STOPPED)
        self.name = name

    def check(self, when: str) -> None:
        """Stop here, where nothing has to be saved, if that was asked for. Raises Stopped."""
        if self:
            raise stopped(self, when)

    @contextmanager
    def at_once(self, when: str) -> Iterator[None]:
        """Inside, where nothing would have to be saved, a request interrupts whatever goes on. Raises Stopped."""
        self.check(when)
        self._interrupts = True
        try:
            yield
        except KeyboardInterrupt:
            raise stopped(self, when) from None
        finally:
            self._interrupts = False
        self.check(when)

    def _handle(self, number: int, frame: Any) -> None:
        self.request(signal.Signals(number).name)
        if self._interrupts:
            raise KeyboardInterrupt
        os.write(2, f"\n{self.name}: stopping after this update; a second signal leaves at once\n".encode())

    @contextmanager
    def listening(self) -> Iterator[StopFlag]:
        """Own the signals while inside (nothing else may: Lightning's handlers are kept out)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def stopped(flag: StopFlag, when: str) -> Stopped:
    """Return the exception for a run that stops on request; ``when`` completes "stopped"."""
    return Stopped(f"{flag.name or 'another rank'}: stopped {when} — the same command goes on from there")
