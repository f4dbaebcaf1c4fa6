"""submitit's launchers, for jobs that may die one by one and be started again by their scheduler."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
from omegaconf import OmegaConf

POLL = 2.0  # seconds between two looks at the queue
GONE = 3  # looks in a row that do not find a job, after which it has ended (a requeue may take it out for a moment)


class PatientLauncher(BaseSubmititLauncher):
    """Submits all jobs at once and waits for each: one that ends without a result costs its own cell only.

    ``launch`` returns None in the place of such a job, where submitit's own launcher raises and forgets the others.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn | None]:
        jobs = self.submit(job_overrides, initial_job_idx)
        stop = Path(str(self.config.hydra.sweep.dir)) / "stop"  # type: ignore[union-attr]
        waiting = dict(enumerate(jobs))
        missed = dict.fromkeys(waiting, 0)
        cancelled = False
        while waiting:
            if stop.exists() and not cancelled:
                cancelled = True
                self.cancel(list(waiting.values()))
            alive = self.alive(list(waiting.values()))
            for number, job in list(waiting.items()):
                missed[number] = 0 if job.job_id in alive else missed[number] + 1
                if job.paths.result_pickle.exists() or missed[number] >= GONE:
                    del waiting[number]
            time.sleep(POLL if waiting else 0)
        return [self.result(job) for job in jobs]

    def submit(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        """As submitit's launcher does it."""
        import submitit

        own = {"submitit_folder", "max_num_timeout"}
        options = {f"{self._EXECUTOR}_{k}": v for k, v in self.params.items() if k == "max_num_timeout"}
        executor = submitit.AutoExecutor(folder=self.params["submitit_folder"], cluster=self._EXECUTOR, **options)
        common = set(OmegaConf.structured(BaseQueueConf).keys())
        settings = {k: v for k, v in self.params.items() if k not in own}
        settings |= self.more()
        executor.update_parameters(**{k if k in common else f"{self._EXECUTOR}_{k}": v for k, v in settings.items()})
        state = Singleton.get_state()
        rows = [
            (list(overrides), "hydra.sweep.dir", initial_job_idx + i, f"job_id_for_{initial_job_idx + i}", state)
            for i, overrides in enumerate(job_overrides)
        ]
        return executor.map_array(self, *zip(*rows, strict=True))

    def more(self) -> dict[str, Any]:
        """Settings of submitit's beside those of the config."""
        return {}

    def result(self, job: Any) -> JobReturn | None:
        """What the job returned; None where it ended without a word."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        if not job.paths.result_pickle.exists():
            return None
        try:
            return job.results()[0]
        except (FailedJobError, UncompletedJobError):
            return None

    def alive(self, jobs: Sequence[Any]) -> set[str]:
        """Ids of the jobs that run or will run."""
        raise NotImplementedError

    def cancel(self, jobs: Sequence[Any]) -> None:
        """Ask the jobs to stop: those that run save first."""
        raise NotImplementedError


class LocalLauncher(PatientLauncher):
    """``hydra/launcher=submitit_local``: a process for each cell, all at once."""

    _EXECUTOR = "local"

    def alive(self, jobs: Sequence[Any]) -> set[str]:
        return {job.job_id for job in jobs if not job.done()}

    def cancel(self, jobs: Sequence[Any]) -> None:
        """Nothing to do: the sweep itself asks the processes of its machine."""


class SlurmLauncher(PatientLauncher):
    """``hydra/launcher=submitit_slurm``: the cells as one array of jobs, each of one task.

    The queue is asked (squeue), not the accounting, which small clusters do not have.
    """

    _EXECUTOR = "slurm"
    _run: ClassVar[Callable[..., Any]] = staticmethod(subprocess.run)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn | None]:
        from sparselab.core.errors import refuse

        for program in ("sbatch", "srun", "squeue", "scontrol", "scancel"):
            if shutil.which(program) is None:
                fix = "start the sweep where Slurm's commands are, or write hydra/launcher=joblib"
                refuse("hydra/launcher=submitit_slurm", f"there is no {program} here", fix)
        self.cancelled: set[str] = set()
        return super().launch(job_overrides, initial_job_idx)

    def more(self) -> dict[str, Any]:
        """Since Slurm 22.05 srun does not inherit the CPUs of a task, and may leave it one."""
        cpus = self.params.get("cpus_per_task")
        return {"srun_args": [f"--cpus-per-task={cpus}"]} if cpus else {}

    def alive(self, jobs: Sequence[Any]) -> set[str]:
        """All of them where the queue does not answer: a scheduler that is restarted comes back."""
        arrays = sorted({job.job_id.partition("_")[0] for job in jobs})
        command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={','.join(arrays)}", "--states=all"]
        try:
            answer = self._run(command, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return {job.job_id for job in jobs}
        if answer.returncode and "Invalid job id" not in answer.stderr:
            return {job.job_id for job in jobs}
        found = dict(line.split() for line in answer.stdout.splitlines() if len(line.split()) == 2)
        self.cancelled |= {id for id, state in found.items() if state == "CANCELLED"}
        return {id for id, state in found.items() if state not in ENDED}

    def result(self, job: Any) -> JobReturn | None:
        """A job that somebody cancelled was stopped on request."""
        returned = super().result(job)
        if returned is None and job.job_id in self.cancelled:
            returned = JobReturn()
            returned.status = JobStatus.COMPLETED
            returned.return_value = {"id": "", "state": "stopped", "reason": "cancelled"}
        return returned

    def cancel(self, jobs: Sequence[Any]) -> None:
        self._run(["scancel", *(job.job_id for job in jobs)], capture_output=True, timeout=60, check=False)


# States out of which Slurm starts no job again by itself; NODE_FAIL and PREEMPTED are requeued where that is allowed.
ENDED = frozenset({"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT",
                   "NODE_FAIL", "PREEMPTED"})  # fmt: skip
