"""Learning rates of retraining (arXiv 2306.16788) by hand, what allr measures, and requests that mean nothing.

"item N" is the N-th entry of what the paper's dossier says a test can check exactly.
"""

from __future__ import annotations

import json
from math import cos, pi, sqrt
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sparselab.core.errors import ConfigError, Stopped
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.loop.loop import standing
from sparselab.training.optim.optim import OPTIMS
from sparselab.training.optim.retraining import RETRAINING, Past, rate, relative_drop

torch.set_num_threads(1)
LINEAR = Past(tuple(1 - step / 200 for step in range(200)))
CELL = [
    "model=mlp", "model.hidden=[16]", "dataset.limit_train=400", "dataset.limit_test=200", "dataset.val=100",
    "trainer.max_epochs=null", "trainer.max_steps=20", "trainer.batch_size=20", "trainer.precision=32", "trainer.threads=1",
    "trainer.progress=none", "optim=sgd", "optim.lr=0.05", "optim.warmup=0.1", "trainer.evals=0", "method=magnitude",
    "schedule.at=0", "distribution=global", "sparsity=0.8", "trainer.accelerator=cpu",
]  # fmt: skip


def rates(name, total=100, warmup=0.1, past=LINEAR, cut=None, largest=0.1):
    return [largest * rate(name, step, total, warmup, past, cut) for step in range(total + 1)]


def test_item_llr():
    """T=100, largest 0.1: 0 at 0, 0.1 at 10, 0.05 at 55, 0 at 100; half a cosine at update 5 is 0.05."""
    found = rates("llr")
    assert [found[step] for step in (0, 5, 10, 55, 100)] == pytest.approx([0, 0.05, 0.1, 0.05, 0])
    assert found[3] == pytest.approx(0.1 * (1 - cos(0.3 * pi)) / 2)


def test_item_allr():
    """D=0.2, p=0.5: 0.1 * 0.2 / sqrt(0.5) = 0.028284, above the floor 0.1 * 5 / 20; with D=0.1 the floor 0.025."""
    past = Past((1.0,) * 400)
    assert max(rates("allr", past=past, cut=0.2 / sqrt(0.5))) == pytest.approx(0.028284, abs=1e-6)
    assert max(rates("allr", past=past, cut=0.1 / sqrt(0.5))) == pytest.approx(0.025)
    assert max(rates("allr", past=past, cut=7.0)) == pytest.approx(0.1), "never above the largest"
    assert rates("allr", past=past, cut=7.0) == pytest.approx(rates("llr", past=past))


def test_ft_stays_at_the_smallest_rate_after_the_warm_up():
    past = Past((0.001, 0.5, 1.0, 0.4, 0.2), warm=2)
    assert rates("ft", 10, 0.0, past) == pytest.approx([0.02] * 11)


def test_lrw_repeats_the_last_rates():
    assert rates("lrw", 50, 0.0)[:50] == pytest.approx([0.1 * (1 - step / 200) for step in range(150, 200)])


def test_slr_compresses_all_rates_and_its_old_warm_up_is_the_largest():
    past = Past((0.1, 0.2, *(1 - step / 198 for step in range(198))), warm=2)
    found = rates("slr", 100, 0.1, past)
    assert found[10] == pytest.approx(0.1), "the warm-up of the training before is not repeated"
    assert found[11] == pytest.approx(0.1 * past.rates[int(200 / 90)])
    assert found[99] == pytest.approx(0.1 * past.rates[int(89 * 200 / 90)])


def test_clr_falls_by_half_a_cosine_to_the_smallest():
    found = rates("clr")
    assert found[10] == pytest.approx(0.1) and found[100] == pytest.approx(0.1 / 200)
    assert found[55] == pytest.approx((0.1 + 0.1 / 200) / 2)


@pytest.mark.parametrize("name", RETRAINING)
@pytest.mark.parametrize("total", [1, 2, 7, 150])
def test_rates_are_finite_and_at_most_the_largest(name, total):
    assert all(0 <= value <= 1 + 1e-9 for value in rates(name, total, 0.1, cut=0.3, largest=1.0))


def test_a_recipe_works_out_the_rates_before_it():
    """Three epochs of ten updates, falling linearly: the smallest rate is that of the last update, 1/30 of the peak."""
    optim = OPTIMS["sgd"](OPTIMS["sgd"].Options(lr=0.1, schedule="ft", pretraining={"length": "3epochs"}))
    optim.look_back(10)
    assert optim.past is not None and len(optim.past.rates) == 30
    assert optim.factor(4, 12) == pytest.approx(1 / 30)
    twice = OPTIMS["sgd"](OPTIMS["sgd"].Options(lr=0.1, schedule="llr", cycles=2))
    assert [twice.factor(step, 8) for step in (0, 1, 4, 7)] == pytest.approx([1, 0.75, 1, 0.25])


def test_what_pruning_takes_away():
    """Weights 3, 4 and a bias 0: without the 3 the norm is 4 of 5; D = sqrt(25 - 16) / 5, and half the weights are gone."""
    layer = nn.Linear(2, 1)
    layer.weight.data, layer.bias.data = torch.tensor([[3.0, 4.0]]), torch.zeros(1)
    slots = SimpleNamespace(slots=[SimpleNamespace(param=layer.weight)])
    before = standing(layer, slots)
    layer.weight.data[0, 0] = 0.0
    after = standing(layer, slots)
    assert (before, after) == ((25.0, 2), (16.0, 1))
    assert relative_drop(25.0, 16.0, 0.5) == pytest.approx(0.6 / sqrt(0.5))
    assert relative_drop(25.0, 25.0, 0.0) == relative_drop(0.0, 0.0, 0.5) == 0.0


def test_allr_measures_its_own_pruning_and_goes_on_with_it_after_a_stop(tmp_path, monkeypatch):
    """The largest rate of the run is the discounted one; a run that is stopped half-way ends as one that is not."""
    asked = [*CELL, "optim.schedule=allr", "optim.pretraining={length: 40}"]
    seen, real = [], OPTIMS["sgd"].factor

    def spied(self, *arguments):
        seen.append(real(self, *arguments))
        return seen[-1]

    monkeypatch.setattr(OPTIMS["sgd"], "factor", spied)
    whole = plan_of([*asked, f"runs_dir={tmp_path}/whole"])
    assert run_cell(whole) == 0
    record = json.loads(Path(whole.folder, "record.json").read_text())
    drop = record["metrics"]["train.relative_drop"]
    assert 0 < drop < 1 and max(seen) == pytest.approx(max(drop, 0.5))

    from sparselab.training.loop import stopping

    stopped = plan_of([*asked, "trainer.checkpoint_every=5", f"runs_dir={tmp_path}/stopped"])
    count, after = [0], stopping.Saver.after_update

    def breaking(self, loop, step):
        after(self, loop, step)
        if step == 10 and not count[0]:
            count[0] = 1
            raise Stopped("here")

    monkeypatch.setattr(stopping.Saver, "after_update", breaking)
    with pytest.raises(Stopped):
        run_cell(stopped)
    assert run_cell(plan_of([*asked, "trainer.checkpoint_every=5", f"runs_dir={tmp_path}/stopped"])) == 0
    again = json.loads(Path(stopped.folder, "record.json").read_text())["metrics"]
    assert again == record["metrics"]


PAST = "optim.pretraining={length: 40}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["optim.schedule=slr"], "optim.schedule=slr: follows the rates of the training before, and nothing tells them — write "
         "optim.pretraining={length: 8epochs, schedule: linear}"),
        ([PAST], "optim.pretraining: is nothing to optim.schedule=cosine — leave it out, or write one of ft, lrw"),
        (["optim.schedule=lrw", "optim.pretraining={length: 10}"],
         "optim.schedule=lrw: repeats the last 20 updates of a training that had 10 — train for less"),
        (["optim.schedule=allr", PAST, "schedule.at=0.5"],
         "optim.schedule=allr: asks what pruning removes, which here is not before"),
        (["optim.schedule=allr", PAST, "method=dense", "sparsity=null", "schedule=constant"],
         "which here is not before the first update alone — write method=magnitude schedule.at=0"),
        (["optim.schedule=llr", "optim.min_factor=0.1"], "optim.min_factor=0.1: optim.schedule=llr has an end of its own"),
        (["optim.schedule=ft", "optim.pretraining={length: 0epochs}"], "length=0epochs: is no length of a training"),
        (["optim.schedule=ft", "optim.pretraining={length: -1}"], "length=-1: is no length of a training"),
        (["optim.schedule=ft", "optim.pretraining={schedule: linear}"], "optim.pretraining.length: is required"),
    ],
)  # fmt: skip
def test_bad_retraining(words, line):
    overridden = {word.partition("=")[0] for word in words}
    rest = [word for word in CELL if word.partition("=")[0] not in overridden]
    if "schedule" in overridden:
        rest = [word for word in rest if not word.startswith("schedule.")]
    with pytest.raises(ConfigError) as refused:
        plan_of([*rest, *words])
    assert line in "\n".join(map(str, refused.value.issues))
