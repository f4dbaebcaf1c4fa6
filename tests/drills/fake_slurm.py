"""A Slurm made of files and one thread: what submitit and the launcher ask of it, and nothing else.

``Cluster(folder)`` is the controller. Its ``bin`` holds sbatch, srun, squeue, scontrol and scancel, which are this file:
python fake_slurm.py FOLDER COMMAND ARGUMENTS... A job is a file, jobs/<array>_<task>.json (jobs/<job>.json of a single
one), that the controller alone changes; the commands put requests beside it. Jobs are started, signalled, killed and
started again as Slurm does it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

BEAT = 0.05  # seconds between two looks of the controller
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "scancel")


class Cluster:
    """Use as a context manager. slots: jobs that run at the same time. step: what srun runs, given submitit's folder."""

    def __init__(self, folder: Path, slots: int, step: list[str]):
        self.folder, self.slots = folder, slots
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("jobs", "requests", "bin", "steps"):
            (folder / name).mkdir(parents=True)
        for name in COMMANDS:
            words = shlex.join([sys.executable, "-S", __file__, str(folder), name])
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            (folder / "bin" / name).chmod(0o755)
        (folder / "step").write_text(json.dumps(step))
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Cluster:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        for process in self.running.values():
            _kill(process, signal.SIGKILL)
            process.wait()

    # -- what happens to jobs ------------------------------------------------------------------------------------------

    def warn(self, job: str) -> None:
        """What comes before the end of a job that is preempted or out of time: USR2 to its steps, not to its shell."""
        os.kill(int((self.folder / "steps" / job).read_text()), signal.SIGUSR2)

    def lose_node(self, job: str) -> None:
        """The node is gone, without a signal; Slurm notices and queues the job again."""
        with self._lock:
            self._change(job, requeue=True)
            _kill(self.running[job], signal.SIGKILL)

    def arrays(self) -> set[str]:
        return {path.stem.partition("_")[0] for path in (self.folder / "jobs").glob("*.json")}

    def restarts(self) -> dict[str, int]:
        return {path.stem: json.loads(path.read_text())["restarts"] for path in (self.folder / "jobs").glob("*.json")}

    def state(self, job: str) -> str:
        return str(self._facts(job)["state"])

    # -- the controller ------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._ended.wait(BEAT):
            with self._lock:
                self._obey()
                self._collect()
                self._start()

    def _obey(self) -> None:
        for path in sorted((self.folder / "requests").iterdir()):
            verb, job = path.name.split("-")[1:]
            path.unlink()
            if verb == "requeue":
                self._change(job, requeue=True)
            elif job in self.running:
                self._change(job, cancel=True)
                _kill(self.running[job], signal.SIGTERM)
            else:
                self._change(job, state="CANCELLED")

    def _collect(self) -> None:
        for job, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[job]
            facts = self._facts(job)
            if facts["requeue"]:
                self._change(job, state="PENDING", requeue=False, restarts=facts["restarts"] + 1)
            else:
                self._change(job, state="CANCELLED" if facts["cancel"] else "FAILED" if code else "COMPLETED")

    def _start(self) -> None:
        for path in sorted((self.folder / "jobs").glob("*.json")):
            facts = json.loads(path.read_text())
            if facts["state"] != "PENDING" or len(self.running) >= self.slots:
                continue
            array, _, task = path.stem.partition("_")
            environment = {
                **os.environ, "SLURM_JOB_ID": str(int(array) + int(task or 0)),
                "SLURM_RESTART_COUNT": str(facts["restarts"]), "SLURM_NTASKS": "1",
                "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1",
            }  # fmt: skip
            if task:
                environment |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task}
            self.running[path.stem] = subprocess.Popen(
                ["bash", facts["script"]], env=environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            self._change(path.stem, state="RUNNING")

    def _facts(self, job: str) -> dict:
        return json.loads((self.folder / "jobs" / f"{job}.json").read_text())

    def _change(self, job: str, **facts: object) -> None:
        _write(self.folder / "jobs" / f"{job}.json", {**self._facts(job), **facts})


def _kill(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _write(path: Path, facts: dict) -> None:
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(facts))
    temporary.replace(path)


# -- the commands ------------------------------------------------------------------------------------------------------


def sbatch(folder: Path, words: list[str]) -> int:
    script = Path(words[-1])
    last = re.search(r"^#SBATCH --array=0-(\d+)", script.read_text(), re.MULTILINE)
    array = 100 * (1 + len(list(folder.glob("*.sh"))))
    kept = folder / f"{array}.sh"  # Slurm keeps its own copy
    kept.write_text(script.read_text())
    for job in [f"{array}_{task}" for task in range(int(last[1]) + 1)] if last else [str(array)]:
        facts = {"script": str(kept), "state": "PENDING", "restarts": 0, "requeue": False, "cancel": False}
        _write(folder / "jobs" / f"{job}.json", facts)
    print(f"Submitted batch job {array}")
    return 0


def srun(folder: Path, words: list[str]) -> int:
    """srun --unbuffered --output FILE python -u -m submitit.core._submit SUBMITIT_FOLDER"""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    (folder / "steps" / job).write_text(str(os.getpid()))
    log = os.open(folder / f"{job}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    step = json.loads((folder / "step").read_text())
    os.execv(step[0], [*step, words[-1]])


def squeue(folder: Path, words: list[str]) -> int:
    """Ended jobs are forgotten with their array, at once: the shortest MinJobAge there is."""
    arrays = next(word for word in words if word.startswith("--jobs=")).removeprefix("--jobs=").split(",")
    found = {p.stem: json.loads(p.read_text())["state"] for a in arrays for p in (folder / "jobs").glob(f"{a}*.json")}
    if all(state in ENDED for state in found.values()) and "CANCELLED" not in found.values():
        print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
        return 1
    print("\n".join(f"{job} {state}" for job, state in found.items()))
    return 0


def scontrol(folder: Path, words: list[str]) -> int:
    assert words[0] == "requeue"
    return _request(folder, "requeue", words[1:])


def scancel(folder: Path, words: list[str]) -> int:
    return _request(folder, "cancel", words)


def _request(folder: Path, verb: str, jobs: list[str]) -> int:
    for job in jobs:
        if not (folder / "jobs" / f"{job}.json").exists():
            print("Invalid job id specified", file=sys.stderr)
            return 1
        (folder / "requests" / f"{time.time_ns()}-{verb}-{job}").touch()
    return 0


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[2]](Path(sys.argv[1]), sys.argv[3:]))
