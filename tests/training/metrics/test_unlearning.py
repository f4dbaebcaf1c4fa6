"""Unlearning scores by hand, and gradient ascent that climbs."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from data_specs import image_data
from recipes import plain
from torch import nn
from torch.nn import functional as F

from sparselab.training.metrics.metric import METRICS, Subject
from sparselab.training.metrics.unlearning import attack

DATA = image_data((1, 9, 8), 2, parts=("retain", "forget"))


def score(forget, retain, test):
    """Each: (probabilities of class 0, labels)."""

    def batches(part):
        probability, labels = (torch.tensor(values) for values in part)
        yield torch.stack([probability, 1 - probability], 1).log(), labels

    parts = {"forget": partial(batches, forget), "retain": partial(batches, retain)}
    subject = Subject(nn.Linear(1, 1), lambda x: x, partial(batches, test), DATA, (0.0,), (1.0,), parts)
    return METRICS["unlearning"](METRICS["unlearning"].Options()).measure(subject)


def test_scores_by_hand():
    """Sure of what it retained, unsure of the test split; three of four forgotten examples look like the latter."""
    found = score(
        ([0.55, 0.6, 0.45, 0.99], [0, 0, 0, 0]), ([0.99] * 6 + [0.01] * 6, [0] * 6 + [1] * 6), ([0.55] * 12, [0] * 12)
    )
    assert found == {"ua": 0.25, "ra": 1.0, "ta": 1.0, "mia": 0.75}


def test_a_network_that_forgot_nothing():
    sure = ([0.99] * 8, [0] * 8)
    found = score(sure, sure, ([0.6] * 8, [0] * 8))
    assert (found["ua"], found["mia"]) == (0.0, 0.0)


def test_an_attacker_who_can_learn_nothing_says_member():
    same = np.full(10, 0.5)
    assert attack(same, same, same, 2000) == 0.0


def test_the_attack_is_a_share_and_takes_as_many_of_each_kind():
    rng = np.random.default_rng(0)
    for members, others in ((50, 7), (7, 50)):
        assert 0 <= attack(rng.random(members), rng.random(others), rng.random(9), 20) <= 1
    # beyond `most` examples nothing is read: the rest would turn the answer round
    members, others = np.r_[np.full(5, 0.9), np.full(50, 0.1)], np.r_[np.full(5, 0.1), np.full(50, 0.9)]
    assert attack(members, others, np.array([0.1, 0.9]), 5) == 0.5


def test_ascent_climbs_and_weight_decay_still_shrinks():
    torch.manual_seed(0)
    network, inputs, labels = nn.Linear(4, 3), torch.randn(1, 4), torch.tensor([1])
    recipe = plain(lr=0.01, momentum=0.0, maximise=True)
    optimizer = recipe.build(network)
    before = F.cross_entropy(network(inputs), labels)
    before.backward()
    optimizer.step()
    assert F.cross_entropy(network(inputs), labels) > before
    still = plain(momentum=0.0, weight_decay=0.5, maximise=True).build(network)
    weight = network.weight.detach().clone()
    network.zero_grad(set_to_none=False)
    still.step()
    assert torch.allclose(network.weight, 0.95 * weight)


@pytest.mark.parametrize("name", ["ua", "mia", "ra", "ta"])
def test_every_number_is_finite_on_the_smallest_parts(name):
    one = ([0.7], [0])
    assert 0 <= score(one, one, one)[name] <= 1
