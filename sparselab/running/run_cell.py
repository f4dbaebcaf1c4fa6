"""`python run.py`: compose, plan, run, and print what was made."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.core import plugins
from sparselab.core.errors import ConfigError, RunFailed, Stopped
from sparselab.running.streams import steady

if TYPE_CHECKING:
    from sparselab.running.engine import Plan

EXIT_FAILED, EXIT_REFUSED, EXIT_NONDETERMINISTIC, EXIT_STOPPED = 1, 2, 3, 75


def guarded(action: Callable[[], int], debug: bool = False) -> int:
    """Run ``action``; turn what a user can fix into lines and an exit code. Tracebacks only with ``debug``."""
    with steady():
        return _guarded(action, debug)


def _guarded(action: Callable[[], int], debug: bool) -> int:
    try:
        code = action()
        sys.stdout.flush()
        return code
    except ConfigError as refused:
        _show_traceback(debug)
        for issue in refused.issues:
            print(issue, file=sys.stderr)
        return EXIT_REFUSED
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_STOPPED
    except RunFailed as failed:
        _show_traceback(debug)
        print(f"failed: {' '.join(str(failed).split())}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:  # the reader of standard output has gone, as in `… | head`
        to_nowhere()
        return EXIT_FAILED
    except OSError as error:
        if error.filename is not None:  # no stream: an error of the program
            raise
        _show_traceback(debug)
        to_nowhere()
        print(f"failed: standard output: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted — the same command goes on from the last checkpoint", file=sys.stderr)
        return EXIT_STOPPED


def _show_traceback(debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()


def run_cell(plan: Plan) -> int:
    """Run one planned cell, unless its record is there already. Returns an exit code."""
    from sparselab.running.planning import engine_of
    from sparselab.storage import record as records

    config = plan.config
    main_process = int(os.environ.get("LOCAL_RANK") or 0) == 0
    if config["force"] and main_process and records.path_of(plan.folder).exists():
        _forget(Path(plan.folder))  # an interrupted run has no record: it goes on, also when it was forced
    elif main_process and (record := records.finished(plan.folder, plan.id)) is not None:
        print("finished before; force=true runs it again", file=sys.stderr)
        return finish(plan, record)
    if main_process:
        print(f"cell {plan.id} · {plan.size} · {plan.folder}", file=sys.stderr, flush=True)
    try:
        record = engine_of(config).run(plan)
    except RunFailed as failed:
        if main_process:
            _write_failure(plan, failed)
        raise
    return finish(plan, record) if main_process else 0


def agreed(plan: Plan) -> int:
    """The exit code that says whether every run of the cell gave the same."""
    from sparselab.storage import record as records

    others = records.conflicts(plan.folder)
    for path in others:
        problem = "another run of this cell gave another result"
        print(f"{path}: {problem} — both are kept; force=true starts afresh", file=sys.stderr)
    return EXIT_NONDETERMINISTIC if others else 0


def _forget(folder: Path) -> None:
    """Start afresh: nothing of an earlier run of the cell is used."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _write_failure(plan: Any, failed: RunFailed) -> None:
    """A record that says why there is no result; the disk may be what failed, and then there is none."""
    from sparselab.storage import record as records

    if records.finished(plan.folder, plan.id) is not None:
        return  # another process finished the cell meanwhile: its result stands
    body = {"id": plan.id, "status": "failed", "config": plan.recorded_config(), "overrides": plan.overrides}
    try:
        records.write(plan.folder, {**body, "metrics": {}, "reason": " ".join(str(failed).split())})
    except RunFailed:
        pass


def finish(plan: Plan, record: dict[str, Any]) -> int:
    """Print the summary and, last on standard output, the record's path. The cell is finished whoever reads it."""
    from sparselab.running.summary import show

    sys.stderr.flush()
    try:
        folder = ["--config-dir", plan.config_dir] if plan.config_dir else []
        show(record, [*folder, *plugins.words(), *plan.typed])
        print(Path(plan.folder) / "record.json", flush=True)
    except (OSError, SystemExit) as error:  # the reader has gone (rich then wants to exit), or the disk is full
        to_nowhere()
        problem = f"standard output: {getattr(error, 'strerror', None) or 'nobody reads it'}"
        print(f"{problem}; the cell is finished: {Path(plan.folder) / 'record.json'}", file=sys.stderr)
    return agreed(plan)


def to_nowhere() -> None:
    """Send standard output to the null device, else Python complains once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
