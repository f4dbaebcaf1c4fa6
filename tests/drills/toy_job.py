"""A job of submitit whose cell is a toy: python toy_job.py SUBMITIT_FOLDER. Everything else is what really runs.

The cell counts to STEPS, saves each step, and stops on request as a real one does. It does not end while there is a file
of its job's name in the folder TOY_HOLD, so that a drill has all the time that it needs. It notes in ``ran`` each time it
is begun, with the step it goes on from and the tracker run that it would write to.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from submitit.core.submission import process_job

from sparselab.core.errors import Stopped
from sparselab.experiments.sweeps import job, lease
from sparselab.running import run_cell as cli_run
from sparselab.running.engine import Plan
from sparselab.running.signals import StopFlag
from sparselab.storage import atomic
from sparselab.storage import record as records

STEPS, SECONDS = 10, 0.02


def result(id: str) -> dict:
    return {"id": id, "status": "finished", "config": {}, "metrics": {"test.accuracy": int(id, 16) / 16**12}}


def run_cell(plan: Plan) -> int:
    folder, flag = Path(plan.folder), StopFlag()
    saved, hold = folder / "step.json", Path(os.environ["TOY_HOLD"]) / lease.myself().job
    with flag.listening():
        step = json.loads(saved.read_text()) if saved.exists() else 0
        with (folder / "ran").open("a") as file:
            file.write(f"{step} {plan.id}\n")
        while step < STEPS or hold.exists():
            time.sleep(SECONDS)
            step += 1
            atomic.write_json(saved, step)
            if flag:
                raise Stopped(f"{flag.name}: stopped after update {step}")
        if flag:  # it came while the hold was lifted
            raise Stopped(f"{flag.name}: stopped after update {step}")
        records.settle(folder, result(plan.id))
    return 0


if __name__ == "__main__":
    job.threads_kept = nullcontext
    cli_run.run_cell = run_cell
    process_job(sys.argv[1])
