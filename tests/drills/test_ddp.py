"""Drill R3: two processes train what one would, hold the same masks, and stop, fail and resume as one.

The tolerance: the sum of gradients over two processes is rounded differently from the sum over one batch. In fp32,
after 12 updates of AdamW, no weight of the tiny network may differ by more than 2e-5 (they are of the order of 0.1).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from whole_cell import outcome, overrides, replaced, run, saved, wait_for

from sparselab.storage import record, tensors
from sparselab.training.ranks import supervisor as ranks
from sparselab.weights.method import METHODS

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
TOLERANCE = 2e-5
PLAIN = ("model.dropout=0", "trainer.precision='32'", "trainer.checkpoint_every=null")  # dropout is drawn per process
# Not with AdamW or RigL: the gradient of a bias before a batch normalisation is nothing but rounding, and one steps by
# its sign, the other grows by it where an input is constant.
NORMALISED = (*PLAIN, "model.batch_norm=true", "optim=sgd", "optim.lr=0.1")
RECURRENT = (
    *PLAIN, "model=lstm", "model.width=16", "model.depth=2", "model.carry=true", "dataset=stdlib",
    "dataset.max_bytes=4000", "dataset.windows=streams", "dataset.block=64", "trainer.batch_size=8",
)  # fmt: skip
TWO = ("trainer.devices=2",)
LONG = (*TWO, "trainer.max_steps=160", "trainer.checkpoint_every=4")


def command(folder, *more):
    """The command itself, as a user types it: (exit code, standard output, standard error)."""
    typed = [sys.executable, str(ROOT / "run.py"), *replaced(overrides("rigl"), more), f"runs_dir={folder}"]
    return subprocess.Popen(typed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def distance(one, other):
    mine, theirs = (tensors.load(cell / "model.safetensors") for cell in (one, other))
    return max(float((mine[name].double() - theirs[name].double()).abs().max()) for name in mine)


def test_r3_two_processes_equal_one(tmp_path):
    process = command(tmp_path / "two", *PLAIN, *TWO)
    out, err = process.communicate()
    assert process.returncode == 0, err
    one = run(tmp_path / "one", "rigl", *PLAIN)
    assert one.code == 0
    cell = next((tmp_path / "two").iterdir())
    assert cell.name == one.cell.name  # the number of processes is no part of what a cell is
    assert (cell / "masks.safetensors").read_bytes() == (one.cell / "masks.safetensors").read_bytes()
    assert distance(one.cell, cell) <= TOLERANCE
    here, there = record.read(one.cell), record.read(cell)
    assert here["account"] == there["account"] and here["sparsity"] == there["sparsity"]
    for name, value in here["metrics"].items():
        assert there["metrics"][name] == pytest.approx(value, abs=1e-5), name
    assert (here["environment"]["promise"], there["environment"]["promise"]) == ("A", "B")
    rows = [(path / "metrics.csv").read_text().splitlines() for path in (one.cell, cell)]
    assert [row.split(",")[0] for row in rows[0]] == [row.split(",")[0] for row in rows[1]]

    # One of them speaks: the summary once, the record's path last, and nothing but the cell's line on the other stream.
    assert out.splitlines()[-1] == str(cell / "record.json") and out.count("test accuracy") == 1
    assert err.splitlines() == [f"cell {cell.name} · 12 updates · {cell}"]
    assert sorted(path.name for path in cell.iterdir()) == sorted(path.name for path in one.cell.iterdir())


def test_r3_batch_normalisation_sees_the_whole_batch(tmp_path):
    one, two = run(tmp_path / "one", "gmp", *NORMALISED), run(tmp_path / "two", "gmp", *NORMALISED, *TWO)
    assert one.code == two.code == 0, two.err
    assert (two.cell / "masks.safetensors").read_bytes() == (one.cell / "masks.safetensors").read_bytes()
    assert distance(one.cell, two.cell) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(METHODS))
def test_r3_every_method_trains_alike_in_two_processes(tmp_path, method):
    one, two = run(tmp_path / "one", method, *PLAIN), run(tmp_path / "two", method, *PLAIN, *TWO)
    assert one.code == two.code == 0, two.err
    if METHODS[method].patterns != ("dense",):
        assert (two.cell / "masks.safetensors").read_bytes() == (one.cell / "masks.safetensors").read_bytes()
    assert distance(one.cell, two.cell) <= TOLERANCE


def test_r3_two_processes_learn_from_a_teacher_as_one_does(tmp_path):
    """Each looks at the teacher with its own share of the batch; the mean over examples is the whole batch's."""
    taught = run(tmp_path, "dense", *PLAIN, "seed=1")
    assert taught.code == 0, taught.err
    extra = ("loss=[distill]", f"loss.distill.teacher={taught.cell}", "loss.distill.weight=0.9")
    one, two = run(tmp_path / "one", "srste", *PLAIN, *extra), run(tmp_path / "two", "srste", *PLAIN, *extra, *TWO)
    assert one.code == two.code == 0, two.err
    assert (two.cell / "masks.safetensors").read_bytes() == (one.cell / "masks.safetensors").read_bytes()
    assert distance(one.cell, two.cell) <= TOLERANCE
    alone = run(tmp_path / "alone", "srste", *PLAIN)
    assert distance(one.cell, alone.cell) > 100 * TOLERANCE  # the teacher is heard


@pytest.mark.slow
def test_r3_hidden_states_are_compared_in_every_process(tmp_path):
    """SquareHead divides by the teacher's size over what a process sees of a batch; beside a large eps that is a constant."""
    vit = (*PLAIN, "model=vit_s", "model.width=32", "model.depth=2", "model.heads=2", "model.dropout=0")
    sgd = (*vit, "optim=sgd", "optim.lr=0.05")  # the gradient of a key's bias is nothing but rounding: NORMALISED
    taught = run(tmp_path, "dense", *sgd, "seed=1")
    assert taught.code == 0, taught.err
    size = ("loss=[squarehead]", "loss.squarehead.eps=1e6", "loss.squarehead.weight=1e5")
    extra = (*size, f"loss.squarehead.teacher={taught.cell}")
    one, two = run(tmp_path / "one", "srste", *sgd, *extra), run(tmp_path / "two", "srste", *sgd, *extra, *TWO)
    assert one.code == two.code == 0, two.err
    assert distance(one.cell, two.cell) <= TOLERANCE
    alone = run(tmp_path / "alone", "srste", *sgd)
    assert distance(one.cell, alone.cell) > 100 * TOLERANCE


@pytest.mark.slow
def test_r3_control_statistics_of_each_process_are_not_one_s(tmp_path, monkeypatch):
    one = run(tmp_path / "one", "gmp", *NORMALISED)
    monkeypatch.setattr(
        ranks, "COMMAND", (sys.executable, str(Path(__file__).with_name("faulty_rank.py")), "own_statistics")
    )
    two = run(tmp_path / "two", "gmp", *NORMALISED, *TWO)
    assert one.code == two.code == 0 and distance(one.cell, two.cell) > 100 * TOLERANCE


def test_r3_processes_carry_the_states_of_their_own_streams(tmp_path):
    one = run(tmp_path / "one", "gmp", *RECURRENT)
    two = run(tmp_path / "two", "gmp", *RECURRENT, *TWO)
    assert one.code == two.code == 0, two.err
    assert (two.cell / "masks.safetensors").read_bytes() == (one.cell / "masks.safetensors").read_bytes()
    assert distance(one.cell, two.cell) <= TOLERANCE
    here, there = record.read(one.cell)["metrics"], record.read(two.cell)["metrics"]
    assert there == pytest.approx(here, abs=1e-4)


@pytest.mark.slow
def test_r3_one_process_takes_over_the_states_of_two(tmp_path):
    long = ("trainer.max_steps=160", "trainer.checkpoint_every=2")
    settings = replaced(overrides("gmp"), (*RECURRENT, *long, *TWO))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *settings, f"runs_dir={tmp_path / 'stopped'}"], stderr=subprocess.DEVNULL
    )
    wait_for(lambda: saved(tmp_path / "stopped") >= 10)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 75
    taken_over = run(tmp_path / "stopped", "gmp", *RECURRENT, *long)
    whole = run(tmp_path / "whole", "gmp", *RECURRENT, *long)
    assert "devices 2 then, 1 now" in taken_over.err and whole.code == 0
    assert distance(whole.cell, taken_over.cell) <= 10 * TOLERANCE


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    finished = run(tmp_path_factory.mktemp("unbroken"), "rigl", *LONG)
    assert finished.code == 0, finished.err
    return outcome(finished.cell)


def test_r3_killed_and_stopped_it_ends_the_same(tmp_path, unbroken):
    process = command(tmp_path, *LONG)
    wait_for(lambda: saved(tmp_path) >= 20)
    os.kill(children(process)[1], signal.SIGKILL)
    began = time.monotonic()
    _, err = process.communicate()
    assert process.returncode == 1 and time.monotonic() - began < ranks.GRACE + 5
    assert err.splitlines()[-1] == "failed: rank 1 was killed by SIGKILL"
    reached = saved(tmp_path)

    process = command(tmp_path, *LONG)
    wait_for(lambda: saved(tmp_path) > reached)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 75 and out == ""
    assert err.splitlines()[-1].startswith("SIGTERM: stopped after update ")
    assert "Traceback" not in err

    finished = run(tmp_path, "rigl", *LONG)
    assert finished.code == 0 and outcome(finished.cell) == unbroken


@pytest.mark.slow
def test_r3_without_its_supervisor_no_rank_stays(tmp_path, unbroken):
    process = command(tmp_path, *LONG)
    wait_for(lambda: saved(tmp_path) >= 10)
    orphans = children(process)
    assert len(orphans) == 2
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(alive, orphans)), 20)
    finished = run(tmp_path, "rigl", *LONG)
    assert finished.code == 0 and outcome(finished.cell) == unbroken


@pytest.mark.parametrize(
    ("issue", "line"),
    [
        ("other_masks", "failed: step 0: masks of rank 1 differ from rank 0's — the run is stopped, please report it"),
        ("no_number", "failed: update 1: the training loss is nan; the last good checkpoint is kept"),
        pytest.param("exits", "failed: rank 1 ended with exit code 3", marks=pytest.mark.slow),
        pytest.param("crashes", "failed: a rank crashed: ZeroDivisionError: planted", marks=pytest.mark.slow),
    ],
)
def test_r3_what_is_wrong_with_one_rank_ends_all(tmp_path, monkeypatch, issue, line):
    script = str(Path(__file__).with_name("faulty_rank.py"))
    monkeypatch.setattr(ranks, "COMMAND", (sys.executable, script, issue))
    end = run(tmp_path, "rigl", *PLAIN, *TWO)
    assert end.code == 1 and end.out == "" and end.err.splitlines()[-1] == line
    assert record.read(end.cell)["status"] == "failed"


def test_r3_fsdp_is_refused(tmp_path):
    end = run(tmp_path, "srste", *TWO, "trainer.strategy=fsdp")
    assert end.code == 2 and end.err.count("\n") == 1
    assert end.err.startswith("trainer.strategy=fsdp: ") and "a mask needs whole tensors" in end.err
