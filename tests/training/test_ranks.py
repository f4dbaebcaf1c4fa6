from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from sparselab.core.errors import ConfigError, RunFailed, Stopped
from sparselab.running.signals import SIGNALS, StopFlag
from sparselab.training.ranks import supervisor as ranks

PLAN = SimpleNamespace(config={"trainer": {"devices": 2, "threads": 3}}, overrides=["a=1"], dependencies={})
SCRIPT = """
import json, os, sys, time
rank = int(os.environ["LOCAL_RANK"])
request = json.loads(sys.stdin.readline())
def end(kind, content, code, when=1.0):
    print("noise"); print(json.dumps([kind, content, when])); sys.stdout.flush(); os._exit(code)
"""


@pytest.fixture
def end_of(monkeypatch):
    """``end_of(body)``: what :func:`supervise` raises when each rank is a process that does ``body``."""

    def run(body, flag=None):
        monkeypatch.setattr(ranks, "COMMAND", (sys.executable, "-c", SCRIPT + body))
        monkeypatch.setattr(ranks, "GRACE", 0.3)
        return ranks.supervise(PLAN, StopFlag() if flag is None else flag)

    return run


def test_each_rank_gets_the_request_and_its_place(end_of, tmp_path):
    end_of(f"""
keys = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
with open({str(tmp_path)!r} + "/" + str(rank), "w") as file:
    json.dump([request, [os.environ[key] for key in keys]], file)
end("finished", None, 0)
""")
    first, second = (json.loads((tmp_path / name).read_text()) for name in "01")
    assert first[0] == second[0] == {"config": PLAN.config, "overrides": ["a=1"], "needs": {}}
    port = first[1][4]
    assert first[1] == ["0", "0", "2", "127.0.0.1", port, "3"] and second[1] == ["1", "0", "2", "127.0.0.1", port, "3"]
    assert 1024 <= int(port) < 65536


def test_a_failure_ends_the_others_after_a_grace(end_of):
    began = time.monotonic()
    with pytest.raises(RunFailed, match=r"^disk full$"):
        end_of('end("failed", "disk full", 1) if rank == 1 else time.sleep(60)')
    assert time.monotonic() - began < 10


def test_what_explains_most_is_said(end_of, capfd):
    with pytest.raises(ConfigError) as refused:
        end_of('end("refused", [["a", "b", "c"]], 2) if rank == 1 else end("crashed", "lost", 1)')
    assert str(refused.value) == "a: b — c"
    with pytest.raises(RunFailed, match=r"^no memory$"):
        end_of('end("failed", "no memory", 1) if rank == 1 else end("stopped", "s", 75)')
    with pytest.raises(RunFailed, match=r"^a rank crashed: ValueError: first$"):
        end_of('end("crashed", "Traceback\\nValueError: first", 1, 1.0) if rank else end("crashed", "x: lost", 1, 2.0)')
    assert capfd.readouterr().err == "Traceback\nValueError: first\n"
    with pytest.raises(RunFailed, match=r"^rank 0 was killed by SIGSEGV$"):
        end_of('os.kill(os.getpid(), 11) if rank == 0 else end("crashed", "neighbour lost", 1)')
    with pytest.raises(RunFailed, match=r"^rank 1 ended with exit code 5$"):
        end_of('os._exit(5) if rank == 1 else end("finished", None, 0)')


def test_a_request_to_stop_reaches_every_rank(end_of):
    flag = StopFlag()
    flag.request("SIGUSR1")
    with pytest.raises(Stopped, match=r"^SIGUSR1 saved$"):
        end_of('end("stopped", sys.stdin.readline().strip() + " saved", 75)', flag)


def test_a_signal_to_every_process_ends_no_rank_however_young(end_of, monkeypatch):
    """A scheduler signals all processes of a job, and a rank needs a second until it ignores that."""
    start = subprocess.Popen

    def signalled(*args, **options):
        process = start(*args, **options)
        for number in SIGNALS:
            process.send_signal(number)
        return process

    monkeypatch.setattr(subprocess, "Popen", signalled)
    end_of("""
import signal
assert {signal.SIGTERM, signal.SIGUSR2} <= signal.sigpending()
end("finished", None, 0)
""")
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_rank_that_dies_before_it_listens(end_of):
    with pytest.raises(RunFailed, match="ended with exit code 1"):
        end_of("raise SystemExit(1)")


@pytest.mark.parametrize(
    ("environment", "launched"),
    [
        ({}, False),
        ({"LOCAL_RANK": "0"}, True),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, False),
    ],
)
def test_launched(monkeypatch, environment, launched):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ranks.launched() is launched
