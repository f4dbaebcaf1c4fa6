"""The l1 penalty by hand (arXiv 2304.04934; OPTML-Group/Unlearn-Sparse unlearn/FT_prune.py)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sparselab.core.errors import ConfigError
from sparselab.running.planning import plan_of
from sparselab.training.losses.l1 import L1


def extra(**options):
    return L1(L1.Options(**options))


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"epochs": 4}, [1, 0.75, 0.5, 0.25]),
        ({"epochs": 4, "without": 2}, [1, 0.5, 0, 0]),
        ({"epochs": 4, "without": 4}, [1, 1, 1, 1]),
        ({"epochs": 4, "shape": "constant"}, [1, 1, 1, 1]),
        ({"epochs": 4, "shape": "grow"}, [0.25, 0.5, 0.75, 1]),
    ],
)
def test_gamma_by_part_of_the_run(options, shares):
    assert [extra(**options).share(part) for part in range(4)] == shares


def test_value_and_gradient_by_hand_at_an_update():
    """At update 5 of 8, the third of four parts: half of ||theta||_1 = 2 + 3 + 0 + 1, and signs with 0 at 0."""
    network = nn.Linear(3, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[2.0, -3.0, 0.0]]))
        network.bias.fill_(1.0)
    task = SimpleNamespace(network=network, steps=8, global_step=5)
    loss = extra(epochs=4).loss(task, (), torch.empty(0))
    loss.backward()
    assert float(loss) == 3.0
    assert network.weight.grad.tolist() == [[0.5, -0.5, 0.0]] and network.bias.grad.tolist() == [0.5]


def test_more_parts_without_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="without=5 is more than epochs=4"):
        plan_of(["method=dense", "model=mlp", "loss=[l1]", "loss.l1.epochs=4", "loss.l1.without=5"])
