"""Drill F4: a run that is asked to stop saves what can be trusted, exits with 75, and goes on to the same bits.

TERM, INT, USR1 and USR2, at named points (also between the optimiser's step and the masks) and at random moments.
"""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial

import pytest
from whole_cell import POINTS, UPDATES, Crash, at, die, ended, forked, outcome, run, saved, wait_for

from sparselab.running.signals import SIGNALS
from sparselab.storage.checkpoints import Checkpoints
from sparselab.storage.tensors import unpack_masks
from sparselab.training import assemble
from sparselab.training.loop.loop import Loop

SILENT = ("trainer.checkpoint_every=null",)  # nothing is saved unless a signal asks for it
STEPS = {  # updates in the checkpoint that a signal at a point leaves; 0: none
    "while the data is loaded": 0,
    "before the first update": 1,
    "after the first update": 2,
    "inside an accumulation window": 6,
    "before a mask change": 6,
    "inside the optimiser's step": 6,
    "at a mask change": 6,
    "after a mask change": 7,
    "during evaluation": 8,
    "last step of an epoch": 4,
    "first step of the next": 5,
    "last of the run": UPDATES,
    "during the test": UPDATES,
}


pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    known = {}

    def get(method, *more):
        if (method, more) not in known:
            known[method, more] = outcome(run(tmp_path_factory.mktemp("unbroken"), method, *more).cell)
        return known[method, more]

    return get


def violations(cell):
    """Weights of the newest checkpoint that are not what master and mask give, and pruned ones that are not zero."""
    found = Checkpoints(cell / "checkpoints", cell.name).load_latest()
    sparse = found.state["callbacks"]["Loop"]["sparsifier"]
    wrong = 0
    for name, mask in unpack_masks(sparse["masks"]).items():
        weight = found.state["state_dict"][f"network.{name}"]
        wrong += int((weight[~mask] != 0).sum())
        if name in sparse["masters"]:
            wrong += int((weight != sparse["masters"][name] * mask).sum())
    return wrong


def stopped_by(number, folder, point, method, *more):
    """Send signal ``number`` to a run at ``point``; what it ended with."""
    with pytest.MonkeyPatch.context() as patch:
        at(patch, point, lambda: os.kill(os.getpid(), number))
        return run(folder, method, *more)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("method", ["srste", pytest.param("rigl", marks=pytest.mark.slow)])
def test_f4_a_signal_at_any_point(tmp_path, unbroken, method, point):
    number = SIGNALS[list(POINTS).index(point) % len(SIGNALS)]
    before = [signal.getsignal(each) for each in SIGNALS]
    end = stopped_by(number, tmp_path, point, method, *SILENT)
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert end.code == 75 and end.out == "" and saved(tmp_path) == STEPS[point]
    line = end.err.splitlines()[-1]
    assert line.startswith(f"{number.name}: stopped ") and line.endswith(" — the same command goes on from there")
    assert not list(tmp_path.glob("*/record.json"))
    if STEPS[point]:
        assert violations(end.cell) == 0
    again = run(tmp_path, method, *SILENT)
    assert again.code == 0 and outcome(again.cell) == unbroken(method, *SILENT)


def test_f4_stopped_during_the_test_nothing_is_trained_again(tmp_path, monkeypatch):
    assert stopped_by(signal.SIGTERM, tmp_path, "during the test", "gmp", *SILENT).code == 75
    monkeypatch.setattr(Loop, "on_train_batch_start", lambda *arguments: die())
    assert run(tmp_path, "gmp", *SILENT).code == 0


def test_f4_stopped_again_and_again(tmp_path, unbroken):
    for point in ("before the first update", "first step of the next", "before the first update", "during evaluation"):
        assert stopped_by(signal.SIGUSR1, tmp_path, point, "rigl", *SILENT).code == 75
        assert violations(next(tmp_path.iterdir())) == 0
    assert run(tmp_path, "rigl", *SILENT).code == 0
    assert outcome(next(tmp_path.iterdir())) == unbroken("rigl", *SILENT)


LONG = ("trainer.max_steps=200", "trainer.checkpoint_every=100", "trainer.checkpoint_minutes=null")


@pytest.mark.parametrize("count", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_f4_at_random_moments(tmp_path, unbroken, count):
    draw, stops, saves = random.Random(count), 0, 0
    folder = tmp_path / "0"
    for number in range(count):
        before = saved(folder)
        child = forked(lambda folder=folder: run(folder, "srste", *LONG).code)
        wait_for(lambda folder=folder: list(folder.glob("*")))
        time.sleep(draw.random() / 2)
        os.kill(child, draw.choice(SIGNALS))
        code = ended(child)
        if code == 0 or code < 0:  # it came too late, or before anybody listened
            folder = tmp_path / str(number + 1) if code == 0 else folder
            continue
        assert code == 75
        stops += 1
        if saved(folder) > before:
            saves += 1
            assert violations(next(folder.iterdir())) == 0
    assert stops and saves
    assert run(folder, "srste", *LONG).code == 0
    assert outcome(next(folder.iterdir())) == unbroken("srste", *LONG)


def test_f4_a_second_signal_leaves_at_once(tmp_path, unbroken):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    def action():
        with pytest.MonkeyPatch.context() as patch:
            at(patch, "during evaluation", twice)
            return run(tmp_path, "srste", "trainer.checkpoint_every=3").code

    assert ended(forked(action)) == 75
    assert saved(tmp_path) == 6  # the one before: nothing was saved on the way out
    again = run(tmp_path, "srste", "trainer.checkpoint_every=3")
    assert again.code == 0 and outcome(again.cell) == unbroken("srste", *SILENT)


def test_f4_control_saving_in_the_handler_breaks_the_invariant(tmp_path, monkeypatch):
    real = Loop._after_raw_step

    def saving(loop, *arguments):
        if loop.trainer.global_step == 5:
            loop.trainer.save_checkpoint("now")
            raise Crash
        real(loop, *arguments)

    monkeypatch.setattr(Loop, "_after_raw_step", saving)
    with pytest.raises(Crash):
        run(tmp_path, "srste", *SILENT)
    assert violations(next(tmp_path.iterdir())) > 100
    monkeypatch.undo()
    refused = run(tmp_path, "srste", *SILENT)
    assert refused.code == 1 and "is not what its mask gives" in refused.err  # and the loader says so


def test_f4_by_the_clock(tmp_path, monkeypatch):
    """Every ``checkpoint_minutes`` of training: here two updates, of two micro-batches of 0.03 seconds each."""
    steps, started, save = [], [], Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda *arguments: (steps.append(arguments[2]), save(*arguments))[1])
    monkeypatch.setattr(Loop, "on_train_batch_start", lambda *arguments: started.append(1))
    monkeypatch.setattr(assemble, "Saver", partial(assemble.Saver, clock=lambda: 0.03001 * len(started)))
    assert run(tmp_path, "srste", *SILENT, "trainer.checkpoint_minutes=0.002").code == 0
    assert steps == list(range(2, UPDATES + 1, 2))
