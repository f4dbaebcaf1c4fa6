"""One of several processes of a run: ``python -m sparselab.training.ranks.rank``, started by :mod:`.ranks`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any

from sparselab.core.errors import ConfigError, RunFailed, Stopped
from sparselab.running.signals import EXIT_STOPPED, SIGNALS, StopFlag
from sparselab.training.engine import Train


def main() -> int:
    """Take the request from standard input, train, put how it ended on standard output. Returns the exit code."""
    for number in SIGNALS:  # requests to stop come through the supervisor, to all ranks alike
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # they waited since before this process was born
    flag = StopFlag()
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_obey, args=(flag,), daemon=True).start()
    engine = Train(Train.Options())
    outcome: tuple[str, Any]
    try:
        engine.train(engine.plan(request["config"], request["overrides"], dependencies=request["needs"]), flag)
        outcome, code = ("finished", None), 0
    except ConfigError as refused:
        outcome, code = ("refused", [[issue.where, issue.problem, issue.fix] for issue in refused.issues]), 2
    except Stopped as stopped:
        outcome, code = ("stopped", str(stopped)), EXIT_STOPPED
    except RunFailed as failed:
        outcome, code = ("failed", str(failed)), 1
    except Exception:
        outcome, code = ("crashed", traceback.format_exc()), 1
    print(f"\n{json.dumps([*outcome, time.monotonic()])}", flush=True)
    return code


def _obey(flag: StopFlag) -> None:
    """Each line is a request to stop; the end of the input is the end of the supervisor, and of this process."""
    for line in sys.stdin:
        flag.request(line.strip())
    os._exit(EXIT_STOPPED)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # at once: after a failure the process group would wait for ranks that are gone
