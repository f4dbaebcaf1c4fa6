"""Ranks that are forks of the test's own process, which has imported everything already: a start costs no seconds.

Only how a rank is started is another: its input, its output, its session and its end are a real one's.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import traceback
from types import SimpleNamespace

import pytest

from sparselab.training.ranks import rank, supervisor


class Forked:
    """What a supervisor asks of ``subprocess.Popen``."""

    def __init__(self, command, *, stdin, stdout, stderr, env, start_new_session):
        read, write = os.pipe()
        self.pid, self.returncode = os.fork(), None
        if not self.pid:
            try:
                for source, target in ((read, 0), (stdout.fileno(), 1), (stderr.fileno() if stderr else 2, 2)):
                    os.dup2(source, target)
                os.close(write)
                os.setsid()
                os.environ.update(env)
                sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, range(3), "rww")
                sys.argv = list(command[1:])
                if command == supervisor.COMMAND and command[1] == "-m":
                    os._exit(rank.main())
                runpy.run_path(command[1], run_name="__main__")
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(70)
        os.close(read)
        self.stdin = os.fdopen(write, "wb")

    def poll(self):
        if self.returncode is None:
            self._ended(os.waitpid(self.pid, os.WNOHANG))
        return self.returncode

    def wait(self):
        if self.returncode is None:
            self._ended(os.waitpid(self.pid, 0))
        return self.returncode

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _ended(self, found):
        if found[0]:
            self.returncode = os.waitstatus_to_exitcode(found[1])


def fork_ranks(patch: pytest.MonkeyPatch) -> None:
    """Let supervisors fork their ranks for as long as ``patch`` lasts."""
    patch.setattr(supervisor, "subprocess", SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE))
