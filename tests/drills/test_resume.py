"""Drills R1 and R2: a run that dies anywhere and is run again ends as if nothing had happened, to the last bit.

Every registered method, with dropout, augmentation, averaging, bf16 and two micro-batches an update. "Anywhere" is a
crash that nothing catches, at named points of the run; a few real kills stand beside it. One thread, one machine.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from whole_cell import (
    POINTS,
    Crash,
    at,
    die,
    ended,
    forked,
    last_state,
    methods,
    outcome,
    overrides,
    run,
    same,
    saved,
    wait_for,
)  # fmt: skip

from sparselab.inputs.data.sets.arrays import Digits
from sparselab.storage.checkpoints import Checkpoints
from sparselab.training.loop.carry import Carry
from sparselab.training.loop.loop import Loop

QUICK = ("inside an accumulation window", "at a mask change", "last of the run")


@pytest.fixture(autouse=True)
def kept_and_unsynced(monkeypatch):
    """Checkpoints stay after the record, to be compared; waiting for a real disk proves nothing here."""
    monkeypatch.setattr(Checkpoints, "clear", lambda store: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """``unbroken(method, ...)``: outcome and last state of the run that nothing disturbs, once a module."""
    known = {}

    def get(method, *more):
        if (method, more) not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Checkpoints, "clear", lambda store: None)
                finished = run(tmp_path_factory.mktemp("unbroken"), method, *more)
            assert finished.code == 0, finished.err
            known[method, more] = outcome(finished.cell), last_state(finished.cell)
        return known[method, more]

    return get


def dies(folder, point, method, *more):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        at(patch, point, die)
        run(folder, method, *more)


def differences(folder, method, reference, *more):
    """Run the cell of ``folder`` to its end; what of it is not as in the run that nothing disturbed."""
    finished = run(folder, method, *more)
    assert finished.code == 0, finished.err
    result, state = outcome(finished.cell), last_state(finished.cell)
    return [key for key in result if result[key] != reference[0][key]] + [
        key for key in state if not same(state[key], reference[1][key])
    ]


@pytest.mark.parametrize(
    "point", [point if point in QUICK else pytest.param(point, marks=pytest.mark.slow) for point in POINTS]
)
@pytest.mark.parametrize("method", methods())
def test_r1_resumed_is_unbroken(tmp_path, unbroken, method, point):
    dies(tmp_path, point, method)
    assert differences(tmp_path, method, unbroken(method)) == []


VARIANTS = {
    "weights of early points": ("trainer.keep_at=[0, 5, 2epochs]",),
    "loss scaling": ("trainer.precision=16",),
    "batch statistics": ("model=resnet20", "model.width=4", "targets.exclude=[@stem]", "optim=sgd"),
    "channels last": (
        "model=resnet20", "model.width=4", "targets.exclude=[@stem]", "optim=sgd", "trainer.channels_last=true",
    ),
    "channels last, with the moments of AdamW": (
        "model=resnet20", "model.width=4", "targets.exclude=[@stem]", "trainer.channels_last=true",
    ),
    "text": (
        "model=gpt_tiny", "model.width=16", "model.depth=1", "model.heads=2", "targets.exclude=[@embedding]",
        "dataset=stdlib", "dataset.max_bytes=60000", "dataset.block=16", "trainer.batch_size=8",
    ),
    "a state carried from window to window": (
        "model=lstm", "model.width=16", "model.depth=2", "model.carry=true", "dataset=stdlib", "dataset.max_bytes=4000",
        "dataset.windows=streams", "dataset.block=64", "trainer.batch_size=8", "trainer.precision=auto",
    ),
    "sentences": (
        "model=gpt_tiny", "model.width=16", "model.depth=1", "model.heads=2", "dataset=glue", "dataset.subset=rte",
        "dataset.block=16", "dataset.limit_train=64", "dataset.limit_test=16", "trainer.batch_size=8",
    ),
    "restored images": (
        "model=dncnn", "model.width=8", "model.depth=4", "dataset=bsd400", "dataset.patch=12", "dataset.patches=2",
        "dataset.limit_train=32", "dataset.limit_test=1", "trainer.batch_size=8",
    ),
    "codes of activations": (
        "model=sae", "model.features=24", "model.window=2", "model.allocation={name: feature_choice, k: 3, rerank: 2}",
        "loss=[aux_zipf]", "loss.aux_zipf.share=1", "dataset=activations", "dataset.train=256", "dataset.val=32",
        "dataset.test=48", "dataset.model={name: gpt, width: 16, depth: 1, heads: 2}",
        "dataset.text={name: stdlib, max_bytes: 20000, block: 32}", "trainer.batch_size=64",
    ),
    "no clipping, one micro-batch": ("trainer.clip=null", "trainer.accumulate=1", "trainer.ema=null"),
}  # fmt: skip


LOCAL = ("sentences", "restored images")


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=pytest.mark.instructions) if "state" in name else name for name in VARIANTS]
)
def test_r1_whatever_is_trained(tmp_path, unbroken, variant):
    more = VARIANTS[variant]
    if variant in LOCAL and not os.environ.get("SPARSELAB_DATA"):
        pytest.skip("there are no local copies")
    for point in ("before a mask change", "after the first update"):
        dies(tmp_path, point, "rigl", *more)
    assert differences(tmp_path, "rigl", unbroken("rigl", *more), *more) == []


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("random", "method.draw=bernoulli"),
        pytest.param("snip", "method.positions=bernoulli", marks=pytest.mark.slow),
    ],
)
def test_r1_a_mask_that_was_drawn_stays(tmp_path, unbroken, method, option):
    for point in ("inside an accumulation window", "after the first update"):
        dies(tmp_path, point, method, option)
    assert differences(tmp_path, method, unbroken(method, option), option) == []


@pytest.mark.parametrize("method", ["srste", "rigl"])
def test_r2_three_resumes_in_a_row(tmp_path, unbroken, method):
    for point in ("inside an accumulation window", "after the first update", "last step of an epoch"):
        dies(tmp_path, point, method)
    assert saved(tmp_path) >= 9
    assert differences(tmp_path, method, unbroken(method)) == []


def test_r1_checkpoints_that_are_late(tmp_path, unbroken):
    """The work since the last checkpoint is done again, with the same result."""
    more = ("trainer.checkpoint_every=5",)
    dies(tmp_path, "last of the run", "rigl", *more)
    assert saved(tmp_path) == 10
    assert run(tmp_path, "rigl", *more).code == 0
    assert outcome(next(tmp_path.iterdir())) == unbroken("rigl")[0]


def test_r1_a_finished_cell_needs_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.undo()
    first = run(tmp_path)
    assert first.code == 0 and sorted(path.name for path in first.cell.iterdir()) == [
        "masks.safetensors", "metrics.csv", "model.safetensors", "record.json",
    ]  # fmt: skip
    monkeypatch.setattr(Loop, "on_fit_start", lambda *arguments: die())
    again = run(tmp_path)
    assert (
        again.code == 0
        and "finished before" in again.err
        and again.out.splitlines()[-1] == str(first.cell / "record.json")
    )


def test_r1_other_threads_versions_and_instructions_are_said_and_nothing_is_promised(tmp_path, unbroken):
    dies(tmp_path, "at a mask change", "srste")
    path = Checkpoints(next(tmp_path.iterdir()) / "checkpoints", next(tmp_path.iterdir()).name)
    found = path.load_latest()
    assert found.facts["threads"] == 1 and found.facts["torch"] == torch.__version__
    here = found.facts["instructions"]
    path.save(found.state, found.step + 1, {**found.facts, "threads": 7, "torch": "2.0.0", "instructions": "other"})
    what = f"torch 2.0.0 then, {torch.__version__} now; threads 7 then, 1 now; instructions other then, {here} now"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        at(patch, "inside an accumulation window", die)  # resumed twice: what was said at the first resume still holds
        run(tmp_path, "srste")
    finished = run(tmp_path, "srste")
    environment = json.loads((finished.cell / "record.json").read_text())["environment"]
    assert (environment["promise"], environment["resumed"]) == ("D", what)
    assert environment["instructions"] == here and "resumed elsewhere" not in finished.err


@pytest.mark.instructions
def test_r1_what_is_resumed_elsewhere_says_so(tmp_path):
    dies(tmp_path, "at a mask change", "srste")
    store = Checkpoints(next(tmp_path.iterdir()) / "checkpoints", next(tmp_path.iterdir()).name)
    found = store.load_latest()
    store.save(found.state, found.step + 1, {**found.facts, "instructions": "other"})
    finished = run(tmp_path, "srste")
    line = [line for line in finished.err.splitlines() if "last bits" in line]
    here = found.facts["instructions"]
    assert line == [
        f"resumed elsewhere (instructions other then, {here} now): "
        "the result may differ in its last bits, and its record promises none"
    ]
    same = run(tmp_path / "undisturbed", "srste")
    promises = [json.loads((one.cell / "record.json").read_text())["environment"] for one in (finished, same)]
    assert [environment["promise"] for environment in promises] == ["D", "A"] and "resumed" not in promises[1]


def test_r1_no_run_goes_on_with_other_data(tmp_path, monkeypatch, unbroken):
    """A set of the hub may change under its name, and so under the id of its cells."""
    dies(tmp_path, "at a mask change", "srste")
    load = Digits.load

    def changed(self):
        splits = load(self)
        return replace(splits, test=replace(splits.test, labels=splits.test.labels.flip(0)))

    with monkeypatch.context() as patch:
        patch.setattr(Digits, "load", changed)
        refused = run(tmp_path)
    assert refused.code == 2 and "not the data of the first 5 updates" in refused.err
    assert differences(tmp_path, "srste", unbroken("srste")) == []
    content = Digits(Digits.Options(val=180), None).load().content
    assert json.loads((refused.cell / "record.json").read_text())["data"]["content"] == content


# --- controls -------------------------------------------------------------------------------------------------------


def test_r1_control_without_addressed_seeds_it_fails(tmp_path, monkeypatch, unbroken):
    monkeypatch.setattr(Loop, "on_train_batch_start", lambda *arguments: None)
    assert run(tmp_path / "whole").code == 0
    reference = outcome(next((tmp_path / "whole").iterdir())), last_state(next((tmp_path / "whole").iterdir()))
    dies(tmp_path / "broken", "at a mask change", "srste")
    assert differences(tmp_path / "broken", "srste", reference) != []


@pytest.mark.instructions
def test_r1_control_a_state_that_is_not_restored_is_missed(tmp_path, monkeypatch, unbroken):
    more = VARIANTS["a state carried from window to window"]
    dies(tmp_path, "after the first update", "rigl", *more)
    monkeypatch.setattr(Carry, "restore", lambda carry, states: None)
    assert differences(tmp_path, "rigl", unbroken("rigl", *more), *more) != []


def test_r1_control_checkpoints_and_masks_do_change(tmp_path, monkeypatch):
    seen = []
    save = Checkpoints.save

    def spy(store, state, step, facts=None):
        seen.append((step, save(store, state, step, facts)))
        states.append(store.load_latest().state)

    for method in methods():
        states: list = []
        monkeypatch.setattr(Checkpoints, "save", spy)
        assert run(tmp_path, method).code == 0
        # A search for masks lets the weights rest and moves what it learns beside them.
        weights = [(state["state_dict"], state["callbacks"]["Loop"]["sparsifier"]) for state in states]
        assert not any(same(one, other) for one, other in itertools.pairwise(weights)), method
        moments = [state["optimizer_states"] for state in states]
        assert not any(same(one, other) for one, other in itertools.pairwise(moments)), method
        if "schedule.every=3" in overrides(method):
            masks = [state["callbacks"]["Loop"]["sparsifier"]["masks"] for state in states]
            assert not same(masks[1], masks[2]) and not same(masks[4], masks[5]), method
    assert len(seen) == 12 * len(methods())


# --- processes that are really killed -------------------------------------------------------------------------------

LONG = ("trainer.max_steps=120", "trainer.checkpoint_every=2")


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_r1_killed_at_any_moment(tmp_path, unbroken, kills):
    draw = random.Random(kills)
    killed = 0
    for _ in range(kills):
        before = saved(tmp_path)
        child = forked(lambda: run(tmp_path, "rigl", *LONG).code)
        wait_for(lambda before=before: saved(tmp_path) > before or list(tmp_path.glob("*/record.json")))
        time.sleep(draw.random() / 20)
        os.kill(child, signal.SIGKILL)
        killed += ended(child) == -signal.SIGKILL
    assert killed > 0
    assert differences(tmp_path, "rigl", unbroken("rigl", *LONG), *LONG) == []


def test_r1_the_command_itself_is_killed(tmp_path, unbroken):
    command = [
        sys.executable,
        str(Path(__file__).parents[2] / "run.py"),
        *overrides("rigl"),
        *LONG,
        f"runs_dir={tmp_path}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: saved(tmp_path) >= 10)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not list(tmp_path.glob("*/record.json"))
    assert differences(tmp_path, "rigl", unbroken("rigl", *LONG), *LONG) == []
