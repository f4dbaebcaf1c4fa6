"""Continual learning with dynamic sparse training (arXiv 2308.14831): what its dossier says can be checked exactly.

The items are numbered as there: 1 ERK, 2 ERK with a tensor forced dense, 3 the cosine rate, 4 death by magnitude, 5 counts of
growth, 6 tasks before do not move, 7 the used share, 8 the network without norms of its own.
"""

from __future__ import annotations

import json
from math import cos, pi

import pytest
import torch
from data_specs import image_data
from safetensors.torch import load_file
from torch import nn, tensor

from sparselab.core.errors import ConfigError
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.inputs.models.family import MODELS
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage.checkpoints import Checkpoints
from sparselab.training.loop.loop import Loop
from sparselab.weights import exchange
from sparselab.weights.distributions import DISTRIBUTIONS
from sparselab.weights.method import METHODS
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.schedules import SCHEDULES
from sparselab.weights.slot import Slot
from sparselab.weights.sparsifier import Sparsifier
from sparselab.weights.task_schedule import TaskSchedule

torch.set_num_threads(1)

ERK = DISTRIBUTIONS["erk"](DISTRIBUTIONS["erk"].Options(power=1.0))


# -- 1 and 2: ERK ----------------------------------------------------------------------------------------------------------


def test_1_erk_of_two_convolutions():
    layers = [Layer("a", "conv", (16, 3, 3, 3), 1), Layer("b", "conv", (32, 16, 3, 3), 1)]
    found = ERK.densities(layers, 0.1)
    assert [layer.numel for layer in layers] == [432, 4608]
    eps = 0.1 * 5040 / (25 + 54)
    assert eps == pytest.approx(6.380, abs=1e-3)
    assert found == pytest.approx({"a": eps * 25 / 432, "b": eps * 54 / 4608})
    assert (round(found["a"], 4), round(found["b"], 4)) == (0.3692, 0.0748)
    assert found["a"] * 432 + found["b"] * 4608 == pytest.approx(504)


def test_2_erk_with_a_dense_tensor():
    layers = [Layer("small", "linear", (4, 4), 1), Layer("large", "linear", (100, 100), 1)]
    assert ERK.densities(layers, 0.2) == pytest.approx({"small": 1.0, "large": 0.19872})


# -- 3: the rate -----------------------------------------------------------------------------------------------------------


def test_3_the_rate_falls_along_a_cosine_to_its_least():
    kind = SCHEDULES["periodic"]
    one = kind(kind.Options(every=25, stop=1.0, fraction=0.5, decay="cosine", floor=0.005))
    assert one.fraction(0, 124) == 0.5
    assert one.fraction(62, 124) == pytest.approx(0.2525)
    assert one.fraction(123, 124) == pytest.approx(0.005, abs=1e-4)
    for step in (25, 50, 100):  # torch's CosineAnnealingLR, which the released code steps
        assert one.fraction(step, 124) == pytest.approx(0.005 + (0.5 - 0.005) * (1 + cos(pi * step / 124)) / 2)


# -- 4 and 5: death and growth -----------------------------------------------------------------------------------------------

WEIGHT = tensor([0.1, -0.2, 0.3, -0.4, 0.0, 0.0])
MASK = tensor([True, True, True, True, False, False])


def test_4_death_by_magnitude():
    assert exchange.magnitude_death(WEIGHT, MASK, 2).tolist() == [False, False, True, True, False, False]


def test_4_ties_die_together():
    weight = tensor([0.2, 0.2, 0.3, 0.4, 0.0, 0.0])
    assert exchange.magnitude_death(weight, MASK, 1).tolist() == [False, False, True, True, False, False]


def test_other_deaths():
    """SET drops of either sign what is nearest to zero; Taylor what (w g)² says, as many as asked."""
    weight = tensor([0.1, 0.5, 0.9, -0.1, -0.5, -0.9])
    everywhere = torch.ones(6, dtype=torch.bool)
    assert exchange.signed_death(weight, everywhere, 2).tolist() == [False, True, True, False, True, True]
    grad = tensor([9.0, 0.1, 1.0, 9.0, 0.0, 0.5])
    assert exchange.taylor_death(weight, grad, everywhere, 2).tolist() == [True, False, True, True, False, True]


def test_growth_scores():
    """Unfired connections come first whatever chance says; momentum is Adam's first moment over the root of its second."""
    alive = tensor([True, False, False, False])
    score = exchange.unfired_first(tensor([0.9, 0.8, 0.1, 0.2]), tensor([True, True, False, False]))
    assert exchange.grown(score, alive, 1).tolist() == [False, False, False, True]
    assert exchange.grown(score, alive, 3).tolist() == [False, True, True, True]
    assert exchange.adam_momentum(tensor([-2.0]), tensor([4.0])).item() == pytest.approx(1.0)


def sparsifier(seed=0, ends=(12, 24), **options):
    """Two layers that learn a random target for two tasks of twelve updates, exchanged every three."""
    kind, schedules = METHODS["cl_dst"], SCHEDULES["periodic"]
    method = kind(kind.Options(**options))
    torch.manual_seed(seed)
    slots = []
    for name, shape in (("a", (40, 30)), ("b", (10, 40))):
        layer = Layer(name, "linear", shape, 1)
        param = nn.Parameter(torch.randn(shape))
        slots.append(
            Slot(layer, param, Pattern.of(Sparsity.parse("0.8"), "linear", "in"), torch.ones(shape, dtype=torch.bool))
        )
    one = schedules(schedules.Options(every=3, stop=1.0, fraction=0.5, decay="cosine", floor=0.005))
    kept = {slot.layer.name: slot.mask.numel() // 5 for slot in slots}
    made = Sparsifier(method, slots, TaskSchedule(one, ends), lambda level, scores: kept, ends[-1], seed)
    made.begins = (0, *ends[:-1])
    return made


def updates(made, optimizer, first, last, look=lambda: None):
    a, b = (slot.param for slot in made.slots)
    for step in range(first + 1, last + 1):
        inputs, wanted = torch.randn(8, 30), torch.randn(8, 10)
        optimizer.zero_grad()
        ((inputs @ a.T).relu() @ b.T - wanted).square().mean().backward()
        made.before_step(step, optimizer)
        look()
        optimizer.step()
        made.after_step(step, optimizer)


def adam(made):
    return torch.optim.AdamW([slot.param for slot in made.slots], lr=1e-2, weight_decay=0.0)


@pytest.mark.parametrize("growth", ["random", "unfired", "gradient", "momentum"])
@pytest.mark.parametrize("death", ["magnitude", "set", "taylor"])
def test_5_counts_stay_to_the_connection(growth, death):
    made = sparsifier(growth=growth, death=death)
    made.start()
    counts = [int(slot.mask.sum()) for slot in made.slots]
    assert counts == [240, 80]
    before = [slot.mask.clone() for slot in made.slots]
    updates(made, adam(made), 0, 12)
    assert [int(slot.mask.sum()) for slot in made.slots] == counts
    assert all(not torch.equal(slot.mask, mask) for slot, mask in zip(made.slots, before, strict=True))


def test_5_by_chance_counts_stay_on_average():
    totals = []
    for seed in range(30):
        made = sparsifier(seed, growth="random", draw="bernoulli")
        made.start()
        updates(made, adam(made), 0, 12)
        totals.append(sum(int(slot.mask.sum()) for slot in made.slots))
    assert len(set(totals)) > 5 and abs(sum(totals) / 30 - 320) < 4 * (1600 * 0.2 * 0.8 * 2 / 30) ** 0.5


# -- 6: isolation ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("growth", ["random", "gradient", "momentum"])
def test_6_what_a_task_has_learnt_never_changes(growth):
    """Store x mask of task 1, before and after task 2, bit for bit; at used weights the gradient that Adam sees is zero."""
    made = sparsifier(growth=growth)
    made.start()
    optimizer = adam(made)
    updates(made, optimizer, 0, 12)
    made.end_task(0)
    with made.as_task(0):
        first = [slot.param.detach().clone() for slot in made.slots]
    optimizer.state.clear()
    made.begin_task(1, 12, optimizer)

    def look():
        for slot in made.slots:
            assert bool((slot.grad[slot.state["used"]] == 0).all())

    updates(made, optimizer, 12, 24, look)
    made.end_task(1)
    with made.as_task(0):
        assert all(torch.equal(slot.param, then) for slot, then in zip(made.slots, first, strict=True))
    with made.as_task(1):
        assert any(not torch.equal(slot.param, then) for slot, then in zip(made.slots, first, strict=True))
        assert all(bool((slot.param[~slot.state["masks"][1]] == 0).all()) for slot in made.slots)


def test_6_without_isolation_it_does():
    made = sparsifier(growth="random", isolate=False)
    made.start()
    optimizer = adam(made)
    updates(made, optimizer, 0, 12)
    made.end_task(0)
    first = made.slots[0].dense * made.slots[0].state["masks"][0]
    made.begin_task(1, 12, optimizer)
    updates(made, optimizer, 12, 24)
    made.end_task(1)
    assert not torch.equal(first, made.slots[0].dense * made.slots[0].state["masks"][0])


@pytest.mark.parametrize("regrown", ["zero", "stored"])
def test_frozen_weights_that_grow_again(regrown):
    """The released code lets them sit at zero while the task trains, and gives them their old value once it is scored."""
    made = sparsifier(growth="random", regrown=regrown)
    made.start()
    optimizer = adam(made)
    updates(made, optimizer, 0, 12)
    made.end_task(0)
    old = [slot.dense.clone() for slot in made.slots]
    optimizer.state.clear()
    made.begin_task(1, 12, optimizer)
    updates(made, optimizer, 12, 24)
    again = [slot.state["asleep"] for slot in made.slots] if regrown == "zero" else []
    for slot, asleep in zip(made.slots, again, strict=False):
        assert bool(asleep.any()) and bool((slot.mask | ~asleep).all()) and bool((slot.param[asleep] == 0).all())
    made.end_task(1)
    with made.as_task(1):
        for slot, before in zip(made.slots, old, strict=True):
            both = slot.state["masks"][1] & slot.state["masks"][0]
            assert bool(both.any()) and torch.equal(slot.param[both], before[both])
    for slot, asleep in zip(made.slots, again, strict=False):
        assert bool((slot.param[asleep] != 0).any())


@pytest.mark.parametrize(("fresh", "zero"), [("zero", True), ("drawn", False)])
def test_where_unused_weights_begin(fresh, zero):
    made = sparsifier(growth="random", fresh=fresh)
    start = [slot.dense.clone() for slot in made.slots]
    made.start()
    updates(made, adam(made), 0, 12)
    made.end_task(0)
    for slot, then in zip(made.slots, start, strict=True):
        unused = ~slot.state["used"]
        want = torch.zeros_like(then) if zero else then
        assert torch.equal(slot.state["stored"][unused], want[unused])


# -- 7 and 8 -----------------------------------------------------------------------------------------------------------------


def test_7_the_used_share_without_exchanges():
    """After t tasks of independent masks of density d: 1 - (1 - d)^t, within three standard deviations."""
    method = METHODS["cl_dst"]
    made = sparsifier(draw="bernoulli", growth="random", ends=(1, 2, 3, 4))
    made.start()
    for task in range(4):
        made.end_task(task)
        if task < 3:
            made.begin_task(task + 1, task + 1, adam(made))
    found = method.measures(made.method, made.slots)
    for task in range(4):
        share = 1 - 0.8 ** (task + 1)
        assert abs(found[f"used{task}"] - share) < 3 * (share * (1 - share) / 1600) ** 0.5


@pytest.mark.parametrize(
    ("name", "options"), [("convnet", {"widths": [4, 6], "pools": [2]}), ("mlp", {"batch_norm": True}), ("resnet", {})]
)
def test_8_a_bare_network_is_its_weights(name, options):
    """No other parameter and no buffer; what an image gives depends on the images beside it, also when it evaluates."""
    family, data = MODELS[name](MODELS[name].Options(bare=True, **options)), image_data((1, 8, 8), 10)
    spec = family.model_spec(data)
    torch.manual_seed(0)
    network = family.build(data).eval()
    assert {n for n, _ in network.named_parameters()} == {layer.tensor for layer in spec.layers}
    assert spec.params == sum(p.numel() for p in network.parameters()) == sum(layer.numel for layer in spec.layers)
    assert not list(network.buffers())
    images = torch.randn(8, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
        assert not torch.allclose(network(images)[:4], network(images[:4]))


# -- whole runs ---------------------------------------------------------------------------------------------------------------

SHARED = (
    "method=cl_dst", "sparsity=0.8", "targets.exclude=[]", "model=mlp", "model.bare=true", "model.batch_norm=true",
    "dataset=digits", "dataset.val=0", "dataset.limit_train=300", "dataset.limit_test=100", "scenario=task_incremental",
    "scenario.tasks=3", "scenario.tasks=[[0,1],[2,3],[0,2]]", "optim=adamw", "optim.lr=0.01", "optim.weight_decay=0.0",
    "optim.warmup=0.0", "trainer.max_epochs=null", "trainer.max_steps=8", "trainer.batch_size=20", "trainer.clip=null",
    "trainer.threads=1", "trainer.precision=32", "trainer.evals=0", "trainer.progress=none", "trainer.accelerator=cpu",
    "schedule.every=3", "schedule.stop=1.0", "schedule.fraction=0.5", "schedule.floor=0.005",
)  # fmt: skip
SMALL = ("model.hidden=[16]", "trainer.checkpoint_every=5")


def record_of(folder, *words):
    assert run_cell(plan_of([*SHARED, *SMALL, *words, f"runs_dir={folder}"])) == 0
    return json.loads(next(folder.glob("*/record.json")).read_text())


def test_resumed_in_the_middle_of_a_task_is_unbroken(tmp_path, monkeypatch):
    """Crash in the second task, between exchanges: the same store, masks and matrix; backward transfer is zero exactly."""
    monkeypatch.setattr(Checkpoints, "clear", lambda store: None)
    words = ("method.growth=unfired", "trainer.accumulate=2")
    want = record_of(tmp_path / "whole", *words)
    after = Loop.on_train_batch_end

    def dies(loop, trainer, *args):
        after(loop, trainer, *args)
        if trainer.global_step == 13:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(BaseException):  # noqa: B017 (as a kill would)
        patch.setattr(Loop, "on_train_batch_end", dies)
        record_of(tmp_path / "broken", *words)
    got = record_of(tmp_path / "broken", *words)
    assert got["metrics"] == want["metrics"] and got["metrics"]["test.bwt"] == 0
    one, other = (load_file(next((tmp_path / run).glob("*/tasks.safetensors"))) for run in ("whole", "broken"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert one["head.weight:masks"].shape[0] == 3
    last = load_file(next((tmp_path / "whole").glob("*/model.safetensors")))
    for name, weight in last.items():
        assert torch.equal(weight, one[name] * one[f"{name}:masks"][2])


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("optim.weight_decay=0.1", "optim.weight_decay=0.1: method=cl_dst isolates tasks, and decay would move"),
        (
            "optim.prox={name: group_lasso}",
            "optim.prox: method=cl_dst isolates tasks, and a step on whole groups would move",
        ),
        ("scenario.fresh_optimizer=false", "scenario.fresh_optimizer=false: method=cl_dst isolates tasks"),
        ("model.bare=false", "model=mlp: method=cl_dst isolates tasks, and "),
        ('targets.exclude=["@head"]', "model=mlp: method=cl_dst isolates tasks, and 96 biases"),
        ("schedule.every=8", "schedule.every=8: no exchange"),
    ],
)
def test_refusals(word, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*SHARED, *SMALL, word])
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


def test_families_that_can_be_bare_say_so():
    assert {name for name in MODELS if "bare" in MODELS[name].Options.model_fields} == {"convnet", "mlp", "resnet"}
