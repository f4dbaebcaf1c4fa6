"""A whole training cell small enough to be run hundreds of times, and ways to stop one. For the drills beside it."""

from __future__ import annotations

import functools
import io
import itertools
import os
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sparselab.config.compose import compose
from sparselab.inputs.data.dataset import DATASETS
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import guarded, run_cell
from sparselab.storage import record
from sparselab.storage.checkpoints import Checkpoints
from sparselab.training.loop.loop import Loop
from sparselab.training.tasks.classification import Classification
from sparselab.weights.capabilities import ReadsScales
from sparselab.weights.method import METHODS
from sparselab.weights.sparsifier import Sparsifier

UPDATES, PER_EPOCH, ACCUMULATE, EVALS = 12, 4, 2, 3
CHANGE = 6  # an update after which every method with later masks has made one
TIMES = {"begin": 0, "every": 3, "at": 0.5, "end": 0.75, "stop": 0.75}  # masks at 3, 6 and 9, or at 6, or before all
SETTINGS = [
    "model=mlp", "model.hidden=[32,16]", "model.dropout=0.2", "dataset=digits", "targets.exclude=[]", "optim.lr=0.01",
    "trainer.batch_size=256", f"trainer.max_steps={UPDATES}", f"trainer.accumulate={ACCUMULATE}",
    "trainer.ema=0.9", "trainer.precision=bf16", f"trainer.evals={EVALS}",
    "trainer.checkpoint_every=1", "trainer.threads=1", "trainer.progress=none", "trainer.accelerator=cpu",
]  # fmt: skip


def methods() -> list[str]:
    return sorted(METHODS)


@functools.cache
def overrides(method: str = "srste") -> list[str]:
    """The cell of ``method`` at a sparsity that it is defined for, with masks made in the middle of the run."""
    mine = [f"method={method}", *SETTINGS]
    patterns = METHODS[method].patterns
    if issubclass(METHODS[method], ReadsScales):  # it needs units with a norm behind them, which a head has not
        mine = replaced(mine, ("model.batch_norm=true", 'targets.exclude=["@head"]', "sparsity=unit:0.5"))
    elif "dense" not in patterns:
        mine.append("sparsity=2:4" if "unstructured" not in patterns else "sparsity=0.5")
    schedule = compose(mine).config["schedule"]
    mine += [f"schedule.{key}={value}" for key, value in TIMES.items() if key in schedule]
    return mine


def replaced(cell: list[str], more: tuple[str, ...]) -> list[str]:
    """``cell`` with the settings of ``more``; another model has none of the options of the one that it replaces."""
    gone = tuple(f"{text.partition('=')[0]}." for text in more if "." not in text.partition("=")[0])
    kept = [text for text in cell if not text.startswith(gone)] if gone else cell
    return list({text.partition("=")[0]: text for text in [*kept, *more]}.values())


class Crash(BaseException):
    """The process is gone: nothing but a drill catches it."""


def run(folder: Path, method: str = "srste", *more: str) -> SimpleNamespace:
    """What ``python run.py`` does, in this process: exit code, both outputs, and where the cell lies.

    ``force``, ``runs_dir`` and whatever else is no part of the id may differ between two runs of a cell.
    """
    out, err = io.StringIO(), io.StringIO()
    place: list[Path] = []

    def action() -> int:
        plan = plan_of([*replaced(overrides(method), more), f"runs_dir={folder}"])
        place.append(Path(plan.folder))
        return run_cell(plan)

    with redirect_stdout(out), redirect_stderr(err):
        code = guarded(action)
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue(), cell=place[0] if place else None)


def outcome(cell: Path) -> dict[str, Any]:
    """Everything about a finished cell that has to be the same, whatever happened on the way."""
    found = record.read(cell)
    assert found["status"] == "finished"
    return {
        "result": record.result_hash(found),
        **{name: (cell / name).read_bytes() for name in ("model.safetensors", "masks.safetensors", "metrics.csv")},
        "leftovers": [path.name for path in cell.rglob("*.tmp")],
    }


def last_state(cell: Path) -> dict[str, Any]:
    """What the newest checkpoint says of the run: weights, masks, masters, optimiser, averages, rows."""
    state = Checkpoints(cell / "checkpoints", cell.name).load_latest().state
    return {key: state[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks")}


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, containers included."""
    if isinstance(one, torch.Tensor):
        equal = torch.equal(one.view(torch.uint8), other.view(torch.uint8)) if one.ndim else bool(one == other)
        return equal and one.dtype == other.dtype
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


# -- where a run can die: (class, what is called there, which call, before or after it) ----------------------------

POINTS = {
    "while the data is loaded": (DATASETS["digits"], "load", 1, "after"),
    "before the first update": (Loop, "on_fit_start", 1, "before"),
    "after the first update": (Loop, "on_train_batch_end", ACCUMULATE, "after"),
    "inside an accumulation window": (Loop, "on_train_batch_start", 5 * ACCUMULATE + 2, "after"),
    "before a mask change": (Sparsifier, "before_step", CHANGE, "before"),
    "inside the optimiser's step": (Sparsifier, "after_step", CHANGE, "before"),
    "at a mask change": (Sparsifier, "after_step", CHANGE, "after"),
    "after a mask change": (Loop, "on_train_batch_end", ACCUMULATE * CHANGE, "after"),
    "during evaluation": (Classification, "score", 2, "before"),
    "last step of an epoch": (Sparsifier, "before_step", PER_EPOCH, "after"),
    "first step of the next": (Loop, "on_train_batch_start", PER_EPOCH * ACCUMULATE + 1, "before"),
    "last of the run": (Loop, "on_train_batch_end", ACCUMULATE * UPDATES, "after"),
    "during the test": (Classification, "score", EVALS + 1, "before"),
}


def at(patch: pytest.MonkeyPatch, point: str, act: Callable[[], None]) -> None:
    """Have ``act`` called when a run comes to ``point``, counted from now."""
    owner, name, wanted, side = POINTS[point]
    calls, real = itertools.count(1), getattr(owner, name)

    @functools.wraps(real)
    def counted(*arguments: Any, **keywords: Any) -> Any:
        here = next(calls) == wanted
        if here and side == "before":
            act()
        answer = real(*arguments, **keywords)
        if here and side == "after":
            act()
        return answer

    patch.setattr(owner, name, counted)


def die() -> None:
    raise Crash


def forked(action: Callable[[], int]) -> int:
    """A child process that does ``action`` and exits with what it returns. Costs no imports; returns the process id."""
    child = os.fork()
    if not child:
        try:
            os._exit(action())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    return child


def ended(child: int) -> int:
    """Exit code of a child, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


def saved(folder: Path) -> int:
    """Updates in the newest checkpoint of the one cell below ``folder``."""
    return max((int(path.name[5:15]) for path in folder.glob("*/checkpoints/*.json")), default=0)
