"""Several processes of one run on one machine: who starts them, stops them and says how they ended [no torch].

The process that the user started trains nothing. It starts one process a device, hands on requests to stop, and turns
their end into one: the record, or one line and an exit code. A rank that dies takes the others with it after a grace; a
supervisor that dies takes its ranks with it, because their standard input ends. It is the same under a scheduler, whose
job has one task: srun's ranks would each have to be told, and to find out, all of this.

Lightning's own launcher makes rank 0 the parent of the others and kills it, without a word, when one of them fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sparselab.core.errors import ConfigError, Issue, RunFailed, Stopped
from sparselab.running.signals import SIGNALS, StopFlag

if TYPE_CHECKING:
    from sparselab.running.engine import Plan

COMMAND = (sys.executable, "-m", "sparselab.training.ranks.rank")
GRACE = 10.0  # seconds from the first rank that fails to the end of the others
POLL = 0.05  # seconds
KINDS = ("refused", "failed", "stopped", "killed", "crashed", "finished")  # how a rank ends, what explains most first


def launched() -> bool:
    """True if something already started this process as one of several ranks (torchrun; :func:`supervise` needs not ask).

    Slurm's own variables say nothing of it: an interactive job has them too.
    """
    return "LOCAL_RANK" in os.environ


def supervise(plan: Plan, flag: StopFlag) -> None:
    """Run ``plan`` in ``trainer.devices`` processes to its end.

    Raises what a run in one process raises: ConfigError, RunFailed, Stopped.
    """
    request = json.dumps({"config": plan.config, "overrides": plan.overrides, "needs": plan.dependencies})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        ranks = [_Rank(number, plan, port, request, stack) for number in range(plan.config["trainer"]["devices"])]
        _wait(ranks, flag)
        _raise_worst(ranks)


class _Rank:
    """A process of the run, as its supervisor sees it."""

    def __init__(self, number: int, plan: Plan, port: int, request: str, stack: contextlib.ExitStack):
        trainer = plan.config["trainer"]
        threads = trainer["threads"] or max(1, len(os.sched_getaffinity(0)) // trainer["devices"])
        environment = {
            "LOCAL_RANK": str(number),
            "NODE_RANK": "0",
            "WORLD_SIZE": str(trainer["devices"]),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")])),
        }
        self.number = number
        self.answer: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (the stack closes it)
        stack.enter_context(self.answer)
        # A session of its own: what a terminal sends to the whole group reaches the supervisor alone. A scheduler signals
        # every process; until the rank ignores that, it inherits that these signals wait.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=self.answer,
                stderr=_errors(),
                env=os.environ | environment,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        stack.callback(self._end)
        self.say(request)

    def say(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended; _wait sees that
            self.process.stdin.write(f"{line}\n".encode())  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]

    def outcome(self) -> tuple[str, Any, float]:
        """(kind, what of it, when by the machine's clock) as the rank itself put it; "killed" where it could not."""
        self.answer.seek(0)
        lines = self.answer.read().decode(errors="replace").splitlines()
        try:
            kind, content, when = json.loads(lines[-1])
        except (IndexError, ValueError, TypeError):
            code = self.process.returncode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return "killed", f"rank {self.number} {how}", 0.0
        return kind, content, when

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # type: ignore[union-attr]


def _errors() -> IO[str] | None:
    """Return the stream for progress: a sweep gives each cell a log of its own. None: the usual one."""
    try:
        sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return None
    return sys.stderr


def _wait(ranks: list[_Rank], flag: StopFlag) -> None:
    """Until all have ended; what is left ``GRACE`` seconds after a failure is killed."""
    told, deadline = False, float("inf")
    while any(rank.process.poll() is None for rank in ranks) and time.monotonic() < deadline:
        if flag and not told:
            told = True
            for rank in ranks:
                rank.say(flag.name)
        if deadline == float("inf") and any(rank.process.poll() for rank in ranks):
            deadline = time.monotonic() + GRACE
        time.sleep(POLL)
    for rank in ranks:
        rank.process.kill()
        rank.process.wait()


def _raise_worst(ranks: list[_Rank]) -> None:
    """One end for all. A rank that can say what went wrong explains those that only lost their neighbour after it."""
    outcomes = [rank.outcome() for rank in ranks]
    kind, content, _ = min(outcomes, key=lambda outcome: (KINDS.index(outcome[0]), outcome[2]))
    if kind == "refused":
        raise ConfigError([Issue(*issue) for issue in content])
    if kind == "stopped":
        raise Stopped(content)
    if kind == "crashed":
        print(content, file=sys.stderr)
        raise RunFailed(f"a rank crashed: {content.splitlines()[-1]}")
    if kind != "finished":
        raise RunFailed(content)
