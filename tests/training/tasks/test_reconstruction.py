"""Scores of auto-encoders, by hand."""

from __future__ import annotations

import pytest
import torch
from recipes import plain

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Activations
from sparselab.inputs.models.family import MODELS
from sparselab.training.loop.evaluate import evaluate
from sparselab.training.loop.module import TaskModule
from sparselab.training.tasks.reconstruction import Reconstruction

torch.set_num_threads(1)

DATA = DataSpec("vectors", Activations(2), Activations(2), 8, 8, 8, "", "local")


class Full:
    """A precision plugin that does nothing."""

    def forward_context(self):
        return torch.autocast("cpu", enabled=False)


def module():
    """Features that point along both axes and once against the first; the last is never used."""
    cls = MODELS["autoencoder"]
    family = cls(cls.Options(features=4, allocation={"name": "relu"}))
    net = family.build(DATA)
    with torch.no_grad():
        net.encoder.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, 0]]))
        net.decoder.weight.copy_(torch.tensor([[0.5, 0, -1, 1], [0, 1, 0, 0]]))
        net.encoder.bias[3] = -1
    recipe = plain()
    return TaskModule(Reconstruction(Reconstruction.Options()), net, family, DATA, recipe, (), 10)


X = torch.tensor([[2.0, 0.0], [2.0, 1.0], [-1.0, 1.0]])  # restored as (1, 0), (1, 1), (-1, 1)


def test_scores_by_hand():
    whole = evaluate(module(), [(X, X)], "test", Full())
    parts = evaluate(module(), [(X[:1], X[:1]), (X[1:], X[1:])], "test", Full())
    mean = X.mean(0)
    assert whole["fvu"] == pytest.approx(2 / float((X - mean).square().sum())) and whole["loss"] == whole["fvu"]
    assert whole["nmse"] == pytest.approx((1 / 4 + 1 / 5 + 0) / 3)
    assert whole["l0"] == pytest.approx(5 / 3) and whole["l0_sd"] == pytest.approx(2**0.5 / 3)
    assert whole["dead"] == 1 / 4 and whole["n"] == 3
    assert parts == pytest.approx(whole)


def test_a_feature_that_fires_in_any_batch_is_alive():
    found = evaluate(module(), [(X[:1], X[:1]), (X[2:], X[2:])], "test", Full())
    assert found["dead"] == 1 / 4
    assert evaluate(module(), [(X[1:2], X[1:2]), (X[:1], X[:1])], "test", Full())["dead"] == 2 / 4


def test_the_training_loss_is_over_that_of_the_batch_s_mean():
    made = module()
    want = float((made.network(X) - X).square().mean() / (X - X.mean(0)).square().mean())
    assert float(made.training_step((X, X), 0)) == pytest.approx(want)


def test_the_summary_says_what_can_be_quoted():
    scores = evaluate(module(), [(X, X)], "test", Full())
    ((label, text),) = Reconstruction.lines({f"test.{key}": value for key, value in scores.items()})
    assert label == "test unexplained" and "25.0 % dead" in text and "1.67 ± 0.47" in text
