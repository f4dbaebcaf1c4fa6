"""One cell of a sweep, in whichever process a launcher puts it [no torch before the cell runs]."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sparselab.core.errors import ConfigError, RunFailed, Stopped
from sparselab.experiments.sweeps import lease, state

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sparselab.running.engine import Plan

STOP = "stop"  # a file of this name in a sweep's folder asks its jobs to start nothing more
LOG = "log.txt"  # what a cell prints, in its folder


@dataclass(frozen=True)
class Outcome:
    """An outcome of a job that its cell's folder does not show.

    finished, failed: also in the folder, unless it could not be written. busy: another process has the cell. stopped:
    on request, resumable. left: not begun, because the sweep was asked to stop.
    """

    id: str
    state: Literal["finished", "failed", "busy", "stopped", "left"]
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """The message from a launcher to the process of a cell."""

    id: str
    overrides: tuple[str, ...]
    folder: Path  # the sweep's
    config_dir: str | None = None
    paper: str | None = None
    tier: str | None = None


def task(config: DictConfig) -> dict[str, str]:
    """The task function that Hydra's launchers call; an :class:`Outcome` as a mapping."""
    from hydra.core.hydra_config import HydraConfig

    settings = HydraConfig.get()
    own = settings.sweeper
    overrides = tuple(text.removeprefix("++") for text in settings.overrides.task)
    job = Job(own.cell, overrides, Path(settings.sweep.dir), own.config_dir, own.paper, own.tier)
    return asdict(execute(job))


def execute(job: Job) -> Outcome:
    """Run the cell, unless it is done, busy, or the sweep was asked to stop. Raises nothing but a request to leave."""
    if (job.folder / STOP).exists():
        return Outcome(job.id, "left")
    try:
        plan = plan_again(job)
    except ConfigError as refused:
        return Outcome(job.id, "failed", str(refused.issues[0]))
    if state.done(plan.folder, plan.id):
        return Outcome(job.id, "finished")
    try:
        held = lease.take(plan.folder, lease.myself(job.folder.name))
    except RunFailed as failed:
        return Outcome(job.id, "failed", str(failed))
    if isinstance(held, lease.Holder):
        return Outcome(job.id, "busy", str(held))
    try:
        if state.done(plan.folder, plan.id):  # by the one who had the lease before
            return Outcome(job.id, "finished")
        return attempt(plan, job)
    finally:
        held.release()


def plan_again(job: Job) -> Plan:
    """The plan, made here. ConfigError where it is no longer that of the cell that the sweep planned."""
    from sparselab.core.errors import refuse
    from sparselab.running.planning import plan_of

    plan = plan_of(list(job.overrides), job.config_dir)
    if plan.id != job.id:
        refuse(f"cell {job.id}", "has become another one: code, data or weights have changed", "start the sweep again")
    plan.config |= {key: value for key, value in (("paper", job.paper), ("tier", job.tier)) if value}
    return plan


def attempt(plan: Plan, job: Job) -> Outcome:
    """Run the cell with its output in its own log."""
    from sparselab.running.run_cell import run_cell

    with threads_kept(), logged(Path(plan.folder)):
        if (job.folder / STOP).exists():  # importing torch takes seconds
            return Outcome(plan.id, "left")
        try:
            run_cell(plan)
            return Outcome(plan.id, "finished")
        except Stopped as stopped:
            reason = str(stopped)
            print(reason, file=sys.stderr)
        except KeyboardInterrupt:
            reason = "interrupted"
            print(reason, file=sys.stderr)
        except ConfigError as refused:
            return failed(plan, str(refused.issues[0]))
        except RunFailed as error:
            return failed(plan, " ".join(str(error).split()))
        except Exception as error:
            traceback.print_exc()
            return failed(plan, f"{type(error).__name__}: {' '.join(str(error).split())} (see {plan.folder}/{LOG})")
        finally:
            clean()
    hand_on(reason)
    return Outcome(plan.id, "stopped", reason)


def failed(plan: Plan, reason: str) -> Outcome:
    """Leave a record that says why, unless another process has finished the cell meanwhile or the disk refuses."""
    from sparselab.storage import record as records

    print(f"failed: {reason}", file=sys.stderr)
    if state.done(plan.folder, plan.id):
        return Outcome(plan.id, "finished")
    body = {"id": plan.id, "status": "failed", "config": plan.recorded_config(), "overrides": plan.overrides}
    try:
        records.write(plan.folder, {**body, "metrics": {}, "reason": reason})
    except RunFailed:
        pass
    return Outcome(plan.id, "failed", reason)


def hand_on(reason: str) -> None:
    """Give a signal that ended a cell to whoever owned it before the cell did.

    Under submitit that is its handler, which requeues a job that is preempted or out of time and leaves. Without such a
    signal a Slurm job leaves without a result: Slurm itself knows whether it was cancelled or will be started again.
    """
    number = getattr(signal, reason.partition(":")[0], None)
    handler = signal.getsignal(number) if isinstance(number, signal.Signals) else None
    if number is not None and callable(handler) and handler is not signal.default_int_handler:
        with suppress(
            subprocess.SubprocessError
        ):  # Slurm ends scontrol too, with the job that it has just queued again
            signal.raise_signal(number)
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        raise SystemExit(75)


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Send what is printed inside to the cell's log, or nowhere if that cannot be written."""
    path = folder / LOG
    writable = os.access(path if path.exists() else folder, os.W_OK)
    with (
        (path if writable else Path(os.devnull)).open("a", buffering=1, encoding="utf-8") as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        yield


@contextmanager
def threads_kept() -> Iterator[None]:
    """A cell may set torch's threads for itself; the next cell of this process gets what this one found."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def clean() -> None:
    """Give the GPU's memory back, for the next cell of this process and for others; Python's own waits for no one."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
