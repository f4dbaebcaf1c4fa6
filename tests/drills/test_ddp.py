"""Drill R3: two processes train what one would, hold the same masks, and stop, fail and resume as one.

The tolerance: the sum of gradients over two processes is rounded differently from the sum over one batch. In fp32,
after 12 updates of AdamW, no weight of the tiny network may differ by more than 2e-5 (they are of the order of 0.1).
Two drills start the command itself, three processes; elsewhere the ranks are forks of the test's process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked_ranks import fork_ranks
from whole_cell import ended, forked, outcome, overrides, replaced, run, saved, wait_for

from sparselab.storage import record, tensors
from sparselab.training.ranks import supervisor as ranks
from sparselab.weights.method import METHODS

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


@pytest.fixture(autouse=True)
def ranks_are_forks(monkeypatch):
    fork_ranks(monkeypatch)


def command(folder, *more):
    """The command itself, as a user types it: (exit code, standard output, standard error)."""
    typed = [sys.executable, str(ROOT / "run.py"), *replaced(overrides("rigl"), more), f"runs_dir={folder}"]
    return subprocess.Popen(typed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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


SENTENCES = (
    *PLAIN, "model=gpt_tiny", "model.width=16", "model.depth=1", "model.heads=2", "dataset=glue", "dataset.subset=rte",
    "dataset.block=16", "dataset.limit_train=64", "dataset.limit_test=17", "trainer.batch_size=8",
)  # fmt: skip
RESTORED = (
    *NORMALISED[:-3], "model=dncnn", "model.width=8", "model.depth=4", "dataset=bsd400", "dataset.patch=12",
    "dataset.patches=2", "dataset.limit_train=32", "dataset.limit_test=3", "trainer.batch_size=8", "optim=sgd", "optim.lr=0.01",
)  # fmt: skip


CODES = (
    "trainer.precision='32'", "trainer.ema=null", "trainer.accumulate=1", "trainer.batch_size=32",
    "model=sae", "model.features=24", "model.window=3", "loss=[aux_zipf]", "loss.aux_zipf.share=1",
    "dataset=activations", "dataset.train=256", "dataset.val=32", "dataset.test=48",
    "dataset.model={name: gpt, width: 16, depth: 1, heads: 2}", "dataset.text={name: stdlib, max_bytes: 20000, block: 32}",
)  # fmt: skip


@pytest.mark.parametrize(
    "rule", ["feature_choice", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mutual_choice", "topk"))]
)
def test_r3_what_looks_across_a_batch_looks_at_all_processes(tmp_path, rule):
    """Which pairs fire, thresholds, densities, and the spread that errors are divided by."""
    more = (*CODES, f"model.allocation={{name: {rule}, k: 3}}")
    one, two = run(tmp_path / "one", "dense", *more), run(tmp_path / "two", "dense", *more, *TWO)
    assert one.code == two.code == 0, two.err
    assert distance(one.cell, two.cell) <= TOLERANCE
    there = record.read(two.cell)["metrics"]
    for name, value in record.read(one.cell)["metrics"].items():
        assert there[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("SPARSELAB_DATA"), reason="there are no local copies")
@pytest.mark.parametrize("more", [SENTENCES, RESTORED], ids=["sentences", "restored images"])
def test_r3_scores_of_torchmetrics_are_those_of_one_process(tmp_path, more):
    one, two = run(tmp_path / "one", "gmp", *more), run(tmp_path / "two", "gmp", *more, *TWO)
    assert one.code == two.code == 0, two.err
    assert distance(one.cell, two.cell) <= TOLERANCE
    there = record.read(two.cell)["metrics"]
    for name, value in record.read(one.cell)["metrics"].items():
        assert there[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


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
    with pytest.MonkeyPatch.context() as patch:
        fork_ranks(patch)
        finished = run(tmp_path_factory.mktemp("unbroken"), "rigl", *LONG)
    assert finished.code == 0, finished.err
    return outcome(finished.cell)


def test_r3_killed_and_stopped_it_ends_the_same(tmp_path, unbroken):
    cells, said = tmp_path / "cells", tmp_path / "said"

    def supervised():
        end = run(cells, "rigl", *LONG)
        said.write_text(end.err)
        return end.code

    supervisor = forked(supervised)
    wait_for(lambda: saved(cells) >= 20)
    os.kill(children(supervisor)[1], signal.SIGKILL)
    began = time.monotonic()
    assert ended(supervisor) == 1 and time.monotonic() - began < ranks.GRACE + 5
    assert said.read_text().splitlines()[-1] == "failed: rank 1 was killed by SIGKILL"
    reached = saved(cells)

    process = command(cells, *LONG)
    wait_for(lambda: saved(cells) > reached)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 75 and out == ""
    assert err.splitlines()[-1].startswith("SIGTERM: stopped after update ")
    assert "Traceback" not in err

    finished = run(cells, "rigl", *LONG)
    assert finished.code == 0 and outcome(finished.cell) == unbroken


@pytest.mark.slow
def test_r3_without_its_supervisor_no_rank_stays(tmp_path, unbroken):
    process = command(tmp_path, *LONG)
    wait_for(lambda: saved(tmp_path) >= 10)
    orphans = children(process.pid)
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
