"""Runs listed and compared: numbers by hand and by scipy, states of folders, and bad requests in a line."""

from __future__ import annotations

import csv
import io
import math
import os
import time

import pytest
from scipy.stats import ttest_rel

from sparselab.cli.main import main
from sparselab.experiments.comparison.compare import against_the_first, differing, groups, mean_sd
from sparselab.experiments.comparison.found import read, runs_in
from sparselab.experiments.sweeps import lease
from sparselab.experiments.tables.statistics import holm
from sparselab.storage import record

LETTERS = {"asp": "a", "srste": "b", "ste": "c"}
LEVELS = {"ste": [0.90, 0.92, 0.91, 0.95], "srste": [0.93, 0.94, 0.95, 0.96], "asp": [0.80, 0.95, 0.91, 0.92]}

DEAD, ODD, HELD, LEFT = ("dead00000000", "0dd000000000", "4e1d00000000", "1ef700000000")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """runs/: three methods, four seeds; ids begin with the method's letter and the seed."""
    monkeypatch.chdir(tmp_path)
    for method, values in LEVELS.items():
        for seed, value in enumerate(values):
            put(tmp_path / "runs", f"{LETTERS[method]}{seed}", method, seed, value)
    return tmp_path / "runs"


def put(runs, name, method="ste", seed=0, value=0.5, status="finished", **config):
    id = name.ljust(12, "0")
    body = {
        "id": id, "status": status, "overrides": [f"method={method}", f"seed={seed}", "trainer.evals=3", "model=mlp"],
        "config": {"seed": seed, "method": {"name": method, "decay": 0.5 if method == "srste" else 0.1},
                   "model": {"name": "mlp", "hidden": [8, 8], "weights": None}, "sparsity": "2:4",
                   "trainer": {"threads": seed, "max_steps": 9}, **config},
        "metrics": {"test.accuracy": value, "test.accuracy_se": 0.1, "test.loss": 1 - value, "train.loss": 1.0},
        "seconds": 60.0 * seed, "environment": {}, "account": {}, "sparsity": {}, "data": {"fingerprint": "f00d", "name": "d"},
    }  # fmt: skip
    if status == "failed":
        body |= {"reason": "NaN loss at step 7", "metrics": {}}
    record.write(runs / id, body)


def set_aside(folder):
    """As it looks to somebody who comes 1,000 seconds later."""
    for path in (folder, *folder.iterdir()):
        os.utime(path, (time.time() - 1000,) * 2)


def asked(capsys, *words):
    assert main([*words, "format=csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def refused(capsys, *words):
    assert main(list(words)) == 2
    return capsys.readouterr().err.strip()


def test_runs_are_listed_filtered_and_sorted(runs, capsys):
    lines = asked(capsys, "runs")
    assert len(lines) == 12 and lines[0]["what tells it from the others"] == "method=asp seed=0"
    assert (lines[5]["id"], lines[5]["test.accuracy"], lines[5]["seconds"]) == ("b10000000000", "0.94", "60.0")
    best = asked(capsys, "runs", "method=ste,srste", "seed=1,3", "sort=-test.accuracy", "metric=test.loss,train.loss")
    assert [line["id"][:2] for line in best] == ["b3", "c3", "b1", "c1"]
    assert best[0]["train.loss"] == "1" and best[0]["test.loss"] == "0.04"
    assert asked(capsys, "runs", "method.decay=0.5", "sort=-seconds")[0]["id"][:2] == "b3"
    assert len(asked(capsys, "runs", "model.hidden=[8,8]", "sparsity=2:4")) == 12
    assert [line["id"][:2] for line in asked(capsys, "runs", "c2", "runs/a00000000000")] == ["c2", "a0"]
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert "12 runs: 12 finished" in out and "all: model=mlp" in out


def test_what_is_under_way_failed_or_broken_says_so(runs, capsys, gone):
    put(runs, DEAD, status="failed")
    (runs / ODD).mkdir()
    (runs / ODD / "record.json").write_text("{")
    for name in (HELD, LEFT, "empty", ".sweeps"):
        (runs / name).mkdir()
    (runs / HELD / "log.txt").write_text(
        "cell held · 380 updates\n  update 20/380 · loss 2.27 · val accuracy 0.1 · 2 min left\n"
    )
    (runs / LEFT / "log.txt").write_text("cell left · 380 updates\n")
    taken = lease.take(runs / HELD, lease.myself("a sweep"))
    state = {run.id: run for run in runs_in(runs)}
    assert [state[name].state for name in (DEAD, ODD, HELD, LEFT)] == ["failed", "broken", "running", "running"]
    assert "empty" not in state and read(runs / ".sweeps") is None and read(runs / "none") is None
    assert state[HELD].note.startswith("update 20 of 380, 2 min left, 0 s ago · ") and "process" in state[HELD].note
    assert state[LEFT].note == "before its first update" and state[DEAD].note == "NaN loss at step 7"
    (line,) = asked(capsys, "runs", "status=failed")
    assert line["what tells it from the others"].endswith(" — NaN loss at step 7")
    taken.release()
    for name in (HELD, LEFT):
        set_aside(runs / name)
        assert read(runs / name).state == "stopped"


def test_a_run_that_no_sweep_started_is_known_by_its_signs_of_life(runs):
    """`run.py` takes no lease and writes no log; the table of its metrics grows."""
    own = runs / LEFT
    own.mkdir()
    (own / "metrics.csv").write_text("step,lr\n3,0.1\n59,0.1\n")
    assert (read(own).state, read(own).note) == ("running", "update 60, 0 s ago")
    set_aside(own)
    assert (read(own).state, read(own).note) == ("stopped", "update 60, 17 min ago")
    (own / "metrics.csv").write_text("step,lr\n")
    assert read(own).note == "before its first update"


def test_the_numbers_of_a_comparison(runs, capsys):
    found = groups(runs_in(runs))
    assert [group.settings["method"] for group in found] == ["asp", "srste", "ste"]
    assert differing(found) == ["method", "method.decay"], "neither the seed nor threads"
    assert differing(found[::2]) == ["method"], "an option that goes with the method"
    gaps = against_the_first(found, "test.accuracy")
    pairs = [(LEVELS[name], LEVELS["asp"]) for name in ("srste", "ste")]
    wanted = holm([float(ttest_rel(*pair).pvalue) for pair in pairs])
    assert gaps[0] is None
    for gap, p, (own, first) in zip(gaps[1:], wanted, pairs, strict=True):
        each = [a - b for a, b in zip(own, first, strict=True)]
        assert gap.mean == pytest.approx(sum(each) / 4) and gap.error == pytest.approx(mean_sd(each)[1] / 2)
        assert gap.p == pytest.approx(p) and gap.seeds == 4
    lines = asked(capsys, "compare", "method=ste,srste")
    assert [line["method"] for line in lines] == ["srste", "ste"]
    assert lines[0]["test.accuracy (mean ± sd, n)"] == "0.945 ± 0.013 (4)"
    assert (
        lines[1]["difference to the first (± se, n)"] == "-0.025 ± 0.0065 (4)"
        and lines[1]["p"] == f"{ttest_rel(LEVELS['ste'], LEVELS['srste']).pvalue:.3f}"
    )
    assert main(["compare"]) == 0
    assert "all: sparsity=2:4 model=mlp" in capsys.readouterr().out


def test_seeds_that_only_one_has_do_not_count(runs, capsys):
    lines = asked(capsys, "compare", "c0", "c1", "b1", "b2", "a3")
    assert [line["difference to the first (± se, n)"] for line in lines] == ["–", "+0.02 (1)", "no seed in common"]
    assert [line["p"] for line in lines] == ["–", "–", "–"]


def test_a_parent_s_seed_is_no_difference(runs):
    start = {"name": "mlp", "hidden": [8, 8]}
    for seed in (0, 1):
        put(runs, f"f{seed}", "gmp", seed, 0.5, model={**start, "weights": f"cell:c{seed}0000000000@2"})
    own = [group for group in groups(runs_in(runs)) if group.settings["method"] == "gmp"]
    assert [sorted(group.runs) for group in own] == [[0, 1]]
    assert own[0].settings["model.weights"] == "cell:method=ste model=mlp at 2"


def test_one_seed_twice_is_refused(runs, capsys):
    put(runs, "d0", "ste", 2, 0.1)
    assert (
        refused(capsys, "compare")
        == "d00000000000: differs from c20000000000 in nothing that its config says — name one of the two"
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["runs", "methd=ste"], 'methd=ste: is said of no run here — did you mean "method"?'),
        (["runs", "method=srst"], 'method=srst: no run here says so — did you mean "srste"?'),
        (["runs", "zzz"], "zzz: no run begins so in runs — sparselab runs lists them"),
        (["runs", "b"], "b: is the beginning of 4 ids in runs"),
        (["runs", "status=done"], "status=done: no such status — one of: broken, failed, finished"),
        (["runs", "sort=test.acuracy"], 'sort=test.acuracy: no run has it — did you mean "test.accuracy"?'),
        (["runs", "sort=seconds", "sort=seconds"], "sort=seconds: is there twice"),
        (["runs", "status=failed"], "runs_dir=runs: holds no such run"),
        (["runs", "--sort"], "--sort: no such flag"),
        (["runs", "runs_dir=none"], "runs_dir=none: there is no such folder"),
        (["compare", "metric=test.acc"], 'metric=test.acc: not every run has it — did you mean "test.accuracy"?'),
        (["compare", "format=html"], "format=html: no such format"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(words, line, runs, capsys):
    assert refused(capsys, *words).startswith(line)


def test_one_value_has_no_spread():
    assert math.isnan(mean_sd([1.0])[1])
