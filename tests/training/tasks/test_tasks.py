"""Losses and metrics by hand: classification, language modelling."""

from __future__ import annotations

import math

import pytest
import torch
from recipes import plain
from torch import nn

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Classes, Images, NextTokens, Sentences, Tokens
from sparselab.core.errors import RunFailed
from sparselab.core.options import Options
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.splits import TextSplits
from sparselab.inputs.models.family import MODELS, Family
from sparselab.training.loop.evaluate import evaluate
from sparselab.training.loop.module import TaskModule
from sparselab.training.losses.extra_loss import ExtraLoss
from sparselab.training.tasks.task import TASKS

TYPES = {
    "image_classification": lambda n: (Images(1, 1, n), Classes(n)),
    "text_classification": lambda n: (Sentences(n, n), Classes(n)),
    "image_to_image": lambda n: (Images(1, n, n), Images(1, n, n)),
    "language_modeling": lambda n: (Tokens(n, n), NextTokens(n, n)),
}


class Plain(Family):
    """Calls the network as it is."""

    heads = ((Images, Classes), (Tokens, NextTokens))


class Full:
    """A precision plugin that does nothing."""

    def forward_context(self):
        return torch.autocast("cpu", enabled=False)


def make(name, network, classes=4, losses=(), **optim):
    inputs, targets = TYPES[name](classes)
    data = DataSpec("set", inputs, targets, 8, 8, 8, "", "local")
    recipe = plain(**optim)
    return TaskModule(TASKS[name](Options()), network, Plain(Plain.Options()), data, recipe, losses, 10)


class Logits(nn.Module):
    """Returns rows of a table: input i gives row i."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(torch.as_tensor(table))

    def forward(self, inputs):
        return self.table[inputs]


def test_every_task_has_a_family_and_a_dataset_and_the_other_way_round():
    pairs = {pair for name in MODELS for pair in MODELS[name].heads}
    assert pairs == {TASKS[name].needs for name in TASKS}
    asked_for = {"masked_diffusion"}  # reads the text that language modelling reads
    assert {DATASETS[name].task for name in DATASETS} == set(TASKS) - asked_for


# -- classification ---------------------------------------------------------------------------------------------------


def test_accuracy_its_standard_error_and_loss():
    """Three of four right, logits (2, 0): the loss of a hit is log(1 + e^-2), of a miss 2 more."""
    task = make("image_classification", Logits([[2.0, 0.0], [0.0, 2.0]]), 2)
    batches = [(torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1])), (torch.tensor([1]), torch.tensor([1]))]
    metrics = evaluate(task, batches, "test", Full())
    hit = math.log1p(math.exp(-2))
    assert metrics == pytest.approx(
        {"accuracy": 0.75, "accuracy_se": math.sqrt(0.75 * 0.25 / 4), "loss": (4 * hit + 2) / 4, "n": 4}
    )


def test_a_split_is_scored_alike_whatever_its_batches():
    table, inputs = torch.randn(50, 4), torch.arange(50)
    labels = torch.randint(4, (50,))
    task = make("image_classification", Logits(table))
    whole = evaluate(task, [(inputs, labels)], "val", Full())
    pieces = evaluate(task, list(zip(inputs.split(7), labels.split(7), strict=True)), "val", Full())
    assert pieces == pytest.approx(whole, rel=1e-6)


def test_scoring_is_in_evaluation_mode_and_leaves_no_trace():
    class Mode(Logits):
        def forward(self, inputs):
            assert not self.training and not torch.is_grad_enabled()
            return super().forward(inputs)

    task = make("image_classification", Mode([[1.0, 0.0]]), 2)
    task.network.train()
    evaluate(task, [(torch.tensor([0]), torch.tensor([0]))], "val", Full())
    assert task.network.training


def test_a_metric_that_is_not_finite_is_named():
    task = make("image_classification", Logits([[math.nan, 0.0]]), 2)
    with pytest.raises(RunFailed, match=r"val\.loss is nan"):
        evaluate(task, [(torch.tensor([0]), torch.tensor([0]))], "val", Full())


def test_label_smoothing_is_for_training_only():
    task = make("image_classification", Logits([[2.0, 0.0]]), 2, label_smoothing=0.2)
    miss = math.log1p(math.exp(-2)) + 2
    hit = miss - 2
    loss = task.training_step((torch.tensor([0]), torch.tensor([0])), 0)
    assert float(loss) == pytest.approx(0.9 * hit + 0.1 * miss)
    assert evaluate(task, [(torch.tensor([0]), torch.tensor([0]))], "val", Full())["loss"] == pytest.approx(hit)


def test_targets_may_be_mixtures():
    task = make("image_classification", Logits([[2.0, 0.0]]), 2)
    loss = task.criterion(torch.tensor([[2.0, 0.0]]), (torch.zeros(1), torch.tensor([[0.25, 0.75]])))
    assert float(loss) == pytest.approx(math.log1p(math.exp(-2)) + 1.5)


# -- language modelling -----------------------------------------------------------------------------------------------


class UniformBytes(nn.Module):
    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, tokens):
        return torch.zeros(*tokens.shape, 256) + self.nothing


@pytest.mark.parametrize("length", [41, 40, 9, 2])
def test_a_uniform_model_of_bytes_has_perplexity_256_and_8_bits(length):
    """Every token but the first is predicted once, however windows and batches fall."""
    splits = TextSplits(
        *[torch.randint(256, (length,), dtype=torch.uint8)] * 3,
        256,
        8,
        dict.fromkeys(("train", "val", "test"), length),
    )
    task = make("language_modeling", UniformBytes(), 256)
    task.bytes_per_token = splits.bytes_per_token
    for batch_size in (1, 2, 64):
        metrics = evaluate(task, splits.loader("test", batch_size, 0), "test", Full())
        assert metrics == pytest.approx(
            {"loss": math.log(256), "perplexity": 256.0, "bits_per_byte": 8.0, "n": length - 1}, rel=1e-6
        )


def test_bits_are_per_byte_of_text_not_per_token():
    """100 tokens for 250 bytes: log2(256) bits a token are 3.2 a byte."""
    splits = TextSplits(
        *[torch.randint(256, (100,), dtype=torch.int32)] * 3, 256, 8, dict.fromkeys(("train", "val", "test"), 250)
    )
    task = make("language_modeling", UniformBytes(), 256)
    task.bytes_per_token = splits.bytes_per_token
    assert evaluate(task, splits.loader("val", 4, 0), "val", Full())["bits_per_byte"] == pytest.approx(3.2)


def test_tokens_count_alike_whatever_window_they_are_in():
    """A padded last window weighs by its tokens, not as a window."""
    table = torch.randn(256, 256)
    tokens = torch.randint(256, (30,), dtype=torch.uint8)
    splits = TextSplits(tokens, tokens, tokens, 256, 8, dict.fromkeys(("train", "val", "test"), 30))
    task = make("language_modeling", Logits(table), 256)
    task.bytes_per_token = splits.bytes_per_token
    want = float(nn.functional.cross_entropy(table[tokens[:-1].long()], tokens[1:].long()))
    for batch_size in (1, 3):
        assert evaluate(task, splits.loader("test", batch_size, 0), "test", Full())["loss"] == pytest.approx(
            want, rel=1e-5
        )


def test_what_is_ignored_does_not_train():
    task = make("language_modeling", Logits(torch.randn(4, 4)))
    tokens, targets = torch.tensor([[0, 1, 2]]), torch.tensor([[1, 2, -100]])
    loss = task.training_step((tokens, targets), 0)
    assert float(loss) == pytest.approx(float(task.training_step((tokens[:, :2], targets[:, :2]), 0)))


# -- all --------------------------------------------------------------------------------------------------------------


class Constant(ExtraLoss):
    """A number, to see where it goes."""

    def loss(self, task, batch, logits):
        return logits.sum() * 0 + 5.0


class Halving(Constant):
    def share_of_task_loss(self):
        return 0.5


@pytest.mark.parametrize(
    ("losses", "want"),
    [((), "L"), ((Constant,), "L + 1"), ((Halving,), "L / 2 + 1"), ((Constant, Halving), "L / 2 + 2")],
)
def test_losses_add_up(losses, want):
    task = make(
        "image_classification",
        Logits([[2.0, 0.0]]),
        2,
        losses=[extra(ExtraLoss.Options(weight=0.2)) for extra in losses],
    )
    hit = math.log1p(math.exp(-2))
    values = {"L": hit, "L + 1": hit + 1, "L / 2 + 1": hit / 2 + 1, "L / 2 + 2": hit / 2 + 2}
    loss = task.training_step((torch.tensor([0]), torch.tensor([0])), 0)
    assert float(loss) == pytest.approx(values[want]) == pytest.approx(float(task.last_loss))


@pytest.mark.parametrize(
    ("inputs", "table", "line"),
    [
        (torch.tensor([[math.nan, 1.0]]), [[1.0, 0.0], [0.0, 1.0]], "the inputs of the batch are not finite"),
        (torch.tensor([[1.0, 1.0]]), [[math.inf, 0.0], [0.0, 1.0]], "weight is not finite"),
        (torch.tensor([[3e38, 3e38]]), [[9.0, 0.0], [9.0, 1.0]], "the network's output is not finite"),
    ],
)
def test_a_loss_that_is_not_finite_is_traced_to_where_it_began(inputs, table, line):
    network = nn.Linear(2, 2, bias=False)
    network.weight.data = torch.tensor(table)
    task = make("image_classification", network, 2)
    with pytest.raises(FloatingPointError, match=line):
        task.training_step((inputs, torch.tensor([0])), 0)
