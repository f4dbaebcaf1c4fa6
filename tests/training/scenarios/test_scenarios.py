"""Scenarios: data divided by tasks, the matrix of accuracies, the buffer, what replay adds, and runs that are resumed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import tensor

from sparselab.core.errors import ConfigError
from sparselab.inputs.data.splits import ImageSplit
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage.checkpoints import Checkpoints
from sparselab.training.loop.loop import Loop
from sparselab.training.losses.extra_loss import LOSSES
from sparselab.training.scenarios import matrix as numbers
from sparselab.training.scenarios.scenario import SCENARIOS
from sparselab.training.scenarios.torch_side.course import Course
from sparselab.training.scenarios.torch_side.divide import of_classes
from sparselab.training.scenarios.torch_side.reservoir import Reservoir
from sparselab.weights.schedules import SCHEDULES
from sparselab.weights.task_schedule import TaskSchedule

torch.set_num_threads(1)

SHARED = (
    "method=dense", "model=mlp", "model.hidden=[16]", "dataset=digits", "dataset.val=0", "dataset.limit_train=300",
    "dataset.limit_test=100", "optim=sgd", "optim.lr=0.05", "optim.warmup=0.0", "trainer.max_epochs=null",
    "trainer.max_steps=6", "trainer.batch_size=20", "trainer.threads=1", "trainer.precision=32", "trainer.evals=0",
    "trainer.progress=none", "trainer.accelerator=cpu",
)  # fmt: skip


# -- which task has what -------------------------------------------------------------------------------------------------


def test_classes_are_labelled_in_the_order_of_their_group():
    split = ImageSplit(torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1), tensor([3, 0, 1, 3, 2, 0]))
    found = of_classes(split, (3, 0), first=4)
    assert found.labels.tolist() == [4, 5, 4, 5] and found.images.flatten().tolist() == [0, 1, 3, 5]


def test_loss_chooses_among_the_outputs_that_the_scenario_names():
    """Other outputs get no gradient: of a task-incremental head, and of new examples under ``among=task``."""
    for name, among, open_outputs in (
        ("task_incremental", None, [2, 3]),
        ("class_incremental", "task", [2, 3]),
        ("class_incremental", "seen", [0, 1, 2, 3]),
        ("class_incremental", "all", [0, 1, 2, 3, 4, 5]),
    ):
        kind = SCENARIOS[name]
        scenario = kind(kind.Options(tasks=3, **({"among": among} if among else {})))
        scenario.groups = ((0, 1), (2, 3), (4, 5))
        course = Course(scenario, (5, 10, 15), [], [], 0, None)
        logits = torch.randn(4, 6, requires_grad=True)
        torch.nn.functional.cross_entropy(course.shown(logits, 7), tensor([2, 3, 3, 2])).backward()
        assert sorted(set(logits.grad.nonzero()[:, 1].tolist())) == open_outputs, name


def test_a_schedule_begins_anew_with_each_task():
    kind = SCHEDULES["periodic"]
    one = kind(kind.Options(every=3, stop=1.0, fraction=0.5, decay="cosine", floor=0.005))
    whole = TaskSchedule(one, (10, 20))
    assert whole.updates(20) == [0, 3, 6, 9, 13, 16, 19]  # the first mask of the second task is no update
    assert (
        whole.fraction(13, 20) == one.fraction(3, 10) and whole.within(10) == (0, 10) and whole.within(20) == (10, 10)
    )


# -- numbers of a matrix -------------------------------------------------------------------------------------------------


def test_numbers_of_a_matrix():
    matrix = [[0.9, 0.2, 0.1], [0.7, 0.8, 0.3], [0.8, 0.5, 0.6]]
    assert numbers.accuracy(matrix) == pytest.approx((0.8 + 0.5 + 0.6) / 3)
    assert numbers.backward_transfer(matrix) == pytest.approx(((0.8 - 0.9) + (0.5 - 0.8)) / 2)
    assert numbers.forgetting(matrix) == pytest.approx(((0.9 - 0.8) + (0.8 - 0.5)) / 2)
    assert numbers.forward_transfer(matrix) == pytest.approx(((0.2 + 0.1) / 2 + 0.3) / 2)
    assert numbers.learnt_late(matrix) == 0.6
    assert numbers.backward_transfer([[0.5]]) == numbers.forgetting([[0.5]]) == 0.0


# -- the buffer ------------------------------------------------------------------------------------------------------------


def test_reservoir_keeps_each_example_with_the_same_probability():
    """Of 24 examples in batches of 5, 6 stay: over 2,000 seeds each about 500 times (chi-square)."""
    kept = np.zeros(24)
    for seed in range(2000):
        reservoir = Reservoir(6, seed)
        for batch in torch.arange(24).split(5):
            reservoir.add(batch)
        kept[reservoir.examples.numpy()] += 1
        assert len(reservoir.examples.unique()) == 6 and reservoir.seen == 24
    assert kept.sum() == 12_000
    # counts of one draw without replacement are negatively correlated: the statistic is 18/24 of a chi-square's
    assert stats.chi2.sf(stats.chisquare(kept).statistic * 24 / 18 * 23 / 24, 23) > 1e-3


def test_reservoir_goes_on_from_its_content():
    whole, parts = Reservoir(4, 1), Reservoir(4, 1)
    for batch in torch.arange(30).split(6):
        whole.add(batch, batch[:, None].float())
        parts.add(batch, batch[:, None].float())
        again = Reservoir(4, 1)
        again.load(parts.state(), torch.device("cpu"))
        parts = again
    assert torch.equal(whole.examples, parts.examples) and torch.equal(whole.outputs, parts.outputs)
    assert torch.equal(whole.outputs[:, 0].long(), whole.examples) and torch.equal(whole.draw(3), parts.draw(3))


# -- replay ----------------------------------------------------------------------------------------------------------------


class Fake:
    """A context whose network gives back the numbers of examples, one hot, and whose third example is of class 1."""

    global_step = 7
    device = torch.device("cpu")

    def __init__(self):
        self.course = self
        self.seed = 0

    def task(self, step):
        return 1

    def recalled(self, examples, key):
        return examples, examples % 2

    def again(self, inputs):
        return torch.nn.functional.one_hot(inputs % 3, 3).float()


@pytest.mark.parametrize(("name", "first", "second"), [("er", 0.0, 1.0), ("derpp", 0.1, 0.5)])
def test_replay_is_its_formula(name, first, second):
    """ER: cross-entropy of a draw; DER++: alpha MSE of outputs of one draw + beta cross-entropy of another."""
    kind, context = LOSSES[name], Fake()
    loss = kind(kind.Options(buffer=4, batch=4))
    loss.prepare(context)
    examples, outputs = torch.arange(4), torch.randn(4, 3)
    assert float(loss.loss(context, (examples, examples, examples), outputs)) == 0  # an empty buffer
    logits, labels = context.again(examples), examples % 2
    want = first * (logits - outputs).square().mean() + second * torch.nn.functional.cross_entropy(logits, labels)
    assert float(loss.loss(context, (examples, examples, examples), outputs)) == pytest.approx(float(want), rel=1e-6)
    assert loss.reservoir.seen == 8 and set(loss.state()) == {"seen", "examples", "outputs"}


# -- whole runs ------------------------------------------------------------------------------------------------------------


def record_of(folder, *words):
    assert run_cell(plan_of([*SHARED, *words, "trainer.checkpoint_every=4", f"runs_dir={folder}"])) == 0
    return json.loads(next(folder.glob("*/record.json")).read_text())


REPLAYS = [
    ("scenario=class_incremental", "loss=[derpp]", "loss.derpp.buffer=40", "loss.derpp.batch=10", "loss.derpp.first_task=true"),
    ("scenario=class_incremental", "loss=[er]", "loss.er.buffer=40", "loss.er.batch=10", "trainer.accumulate=2"),
    ("scenario=task_incremental", "scenario.tasks=[[0,1],[2,3],[0,3]]", "scenario.ahead=true"),
]  # fmt: skip


@pytest.mark.parametrize("words", REPLAYS, ids=["derpp", "er", "task"])
def test_resumed_in_the_middle_of_a_task_is_unbroken(tmp_path, monkeypatch, words):
    """A crash in the second task, with a buffer of examples and outputs: the same numbers and the same bits."""
    monkeypatch.setattr(Checkpoints, "clear", lambda store: None)
    want = record_of(tmp_path / "whole", *words)
    after = Loop.on_train_batch_end

    def dies(loop, trainer, *args):
        after(loop, trainer, *args)
        if trainer.global_step == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(BaseException):  # noqa: B017 (as a kill would)
        patch.setattr(Loop, "on_train_batch_end", dies)
        record_of(tmp_path / "broken", *words)
    got = record_of(tmp_path / "broken", *words)
    assert got["metrics"] == want["metrics"]
    for name in ("model.safetensors", "accuracies.csv"):
        assert (
            next((tmp_path / "broken").glob(f"*/{name}")).read_bytes()
            == next((tmp_path / "whole").glob(f"*/{name}")).read_bytes()
        )


def test_task_il_is_never_below_class_il(tmp_path):
    """The right output among all is the right one among its task's. And the matrix is that of the record."""
    got = record_of(tmp_path, *REPLAYS[0])["metrics"]
    lines = [line.split(",") for line in next(tmp_path.glob("*/accuracies.csv")).read_text().splitlines()[1:]]
    assert len(lines) == 15 and all(float(own) >= float(whole) for _, _, own, whole in lines)
    assert got["test.accuracy"] == got["test.accuracy_class"] <= got["test.accuracy_task"]
    assert got["test.task4"] == float(lines[-1][3]) and got["test.learnt0"] == float(lines[0][3])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["scenario=task_incremental", "scenario.tasks=[[0,1],[]]"], "scenario.tasks[1]: is a task without classes"),
        (["scenario=class_incremental", "scenario.tasks=[[0,1],[1,2]]"], "scenario.tasks[1]: task 0 has class 1, too"),
        (["scenario=class_incremental", "loss=[er]", "loss.er.buffer=301"], "loss.er.buffer=301: the tasks have 300"),
        (["loss=[er]"], "loss.er: recalls examples of earlier tasks"),
        (["scenario=task_incremental", "scenario.tasks=3"], "scenario.tasks=3: digits has 10 classes"),
        (["scenario=task_incremental", "dataset.val=20"], "dataset.val=20: a scenario scores every task"),
    ],
)
def test_refusals(words, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*SHARED, *words])
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


def test_an_id_knows_where_tasks_end():
    """Tasks of unequal size: as many updates in all, divided otherwise, are another run."""
    words = [
        *SHARED,
        "scenario=task_incremental",
        "scenario.tasks=[[0,1],[2,3,4,5]]",
    ]  # 60 and 120 images, 3 and 6 batches
    one = plan_of([*words, "trainer.max_epochs=2", "trainer.max_steps=null"])
    other = plan_of([*words, "trainer.max_steps=9"])
    assert (one.parts.ends, other.parts.ends) == ((6, 18), (9, 18)) and one.steps == other.steps and one.id != other.id
