from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from sparselab.engines.signals import SIGNALS, StopFlag
from sparselab.engines.train.stopping import Agreement, Saver
from sparselab.spec.faults import Stopped


def test_a_signal_sets_the_flag_and_nothing_else(capfd):
    flag = StopFlag()
    before = [signal.getsignal(number) for number in SIGNALS]
    with flag.listening():
        assert not flag
        flag.check("never")
        os.kill(os.getpid(), signal.SIGUSR2)
        assert flag and flag.name == "SIGUSR2"
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert capfd.readouterr().err == "\nSIGUSR2: stopping after this update; a second signal leaves at once\n"
    with pytest.raises(Stopped, match=r"^SIGUSR2: stopped here — the same command goes on from there$"):
        flag.check("here")


def test_a_second_request_leaves_at_once():
    code = "from sparselab.engines.signals import StopFlag; f = StopFlag(); f.request('a'); f.request('b')"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 75


def test_other_threads_leave_signals_alone():
    before = signal.getsignal(signal.SIGTERM)

    def listen():
        with StopFlag().listening():
            found.append(signal.getsignal(signal.SIGTERM))

    found: list = []
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [before]


def test_one_process_agrees_with_itself():
    assert Agreement().any(True, False, True) == [True, False, True]


def saver(minutes, every, times):
    """A saver whose clock shows ``times``, and the steps that it saves."""
    saved: list[str] = []
    loop = SimpleNamespace(trainer=SimpleNamespace(save_checkpoint=saved.append))
    flag = StopFlag()
    observer = Saver(flag, minutes, every, Agreement(), clock=iter(times).__next__)
    return observer, loop, flag, saved


def test_saves_by_count():
    observer, loop, _, saved = saver(None, 3, [0, 0, 0])
    for step in range(1, 8):
        observer.after_update(loop, step)
    assert saved == ["step-3", "step-6"]


def test_saves_by_the_clock():
    # Made at 0 s; asked at 59, 60 (saved; the clock is read again), 61, 119, 120.
    observer, loop, _, saved = saver(1, None, [0, 59, 60, 60, 61, 119, 120, 120])
    for step in range(1, 6):
        observer.after_update(loop, step)
    assert saved == ["step-2", "step-5"]


def test_saves_once_and_stops_on_request():
    observer, loop, flag, saved = saver(None, 1, [0, 0])
    flag.request("SIGTERM")
    with pytest.raises(Stopped, match=r"^SIGTERM: stopped after update 1,000 — "):
        observer.after_update(loop, 1000)
    assert saved == ["step-1000"]


def test_a_signal_interrupts_what_has_nothing_to_save():
    """Loading data, say: a request does not wait until it is over."""
    flag = StopFlag()
    when = "while the data was loaded"
    with flag.listening(), pytest.raises(Stopped, match=f"SIGTERM: stopped {when}"), flag.at_once(when):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it went on")
    asked = StopFlag()
    asked.request("somebody")
    with pytest.raises(Stopped, match="somebody: stopped before"), asked.at_once("before"):
        raise AssertionError("it began")
