"""Drill N3: 50 updates of each optimiser, and pruned weights are exactly zero after every one of them.

The control masks gradients only, which is how pruned weights usually come back.
"""

from __future__ import annotations

import functools

import pytest
import torch
from hand_slots import hand_probe, hand_slots

from sparselab.weights.capabilities import ReadsScales, finds_counts
from sparselab.weights.method import METHODS, Method
from sparselab.weights.schedules import SCHEDULES

OPTIMISERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1, weight_decay=0.1),
    "momentum": functools.partial(torch.optim.SGD, lr=0.03, momentum=0.9, weight_decay=0.1),
    "nesterov": functools.partial(torch.optim.SGD, lr=0.03, momentum=0.9, nesterov=True),
    "adam": functools.partial(torch.optim.Adam, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adamw": functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "adamw_fused": functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1, fused=True),
    "rmsprop": functools.partial(torch.optim.RMSprop, lr=0.01, momentum=0.9, centered=True),
    "adagrad": functools.partial(torch.optim.Adagrad, lr=0.1, initial_accumulator_value=0.1),
}
KINDS = {
    "unstructured": 0.75,
    "nm": "1:4",
    "block": "block:2x2:0.75",
    "channel": "channel:0.75",
    "in_channel": "in_channel:0.75",
    "unit": "unit:0.75",
    "shared_unit": "shared_unit:0.75",
}
TIMES = {"at": 0.3, "every": 3, "begin": 0.0, "end": 0.7, "stop": 0.9, "k_max": 2}


def cells():
    """Every method, pattern and optimiser; only a method's first pattern meets all optimisers outside the slow run."""
    for method in METHODS:
        cls = METHODS[method]
        if issubclass(cls, ReadsScales):  # these weights have no norms behind them
            continue
        kinds = [kind for kind in cls.patterns if kind != "dense"]
        for kind in kinds:
            fitting = (s for s in SCHEDULES if cls.admits(SCHEDULES[s]))
            schedule = next(s for s in fitting if kind in SCHEDULES[s].patterns)
            for optimiser in OPTIMISERS:
                marks = () if kind == kinds[0] or optimiser == "adamw" else pytest.mark.slow
                yield pytest.param(method, kind, schedule, optimiser, marks=marks)


def train(method, kind, schedule, optimiser, updates=50):
    """50 updates of a two-layer network; the number of pruned weights that were not zero after any of them.

    Where the schedule lets them fade out, they have to be zero from its end on.
    """
    generator = torch.Generator().manual_seed(0)
    fields = SCHEDULES[schedule].Options.model_fields
    times = {key: value for key, value in TIMES.items() if key in fields}
    layers = [torch.randn(16, 8, generator=generator), torch.randn(8, 16, generator=generator)]
    sparsifier = hand_slots(method, layers, KINDS[kind], schedule, total=updates, **times)
    x, y = torch.randn(32, 8, generator=generator), torch.randn(32, 8, generator=generator)
    one, two = (slot.param for slot in sparsifier.slots)
    optimizer = OPTIMISERS[optimiser]([one, two])
    for group in sparsifier.groups():
        optimizer.add_param_group({"params": group["params"]})
    sparsifier.inputs = lambda slot: torch.eye(slot.layer.inputs)  # for methods that ask what a layer reads
    sparsifier.start(hand_probe(sparsifier, [(x, y)]))
    alive, moved = 0, one.detach().clone()
    for step in range(1, updates + 1):
        optimizer.zero_grad()
        sparsifier.before_forward(step)
        (((x @ one.T).relu() @ two.T - y) ** 2).mean().backward()
        sparsifier.before_step(step, optimizer)
        optimizer.step()
        sparsifier.after_step(step, optimizer)
        if not sparsifier.schedule.soft_coefficient(step, updates):
            alive += sum(int(torch.count_nonzero(slot.param.data[~slot.mask])) for slot in sparsifier.slots)
    assert not sparsifier.schedule.soft_coefficient(updates, updates)
    sparsifier.finish()
    assert not torch.equal(moved, one.detach()), "nothing was trained"
    for slot in sparsifier.slots:
        assert slot.pattern.holds(slot.mask)
        assert finds_counts(sparsifier.method) or int(slot.mask.sum()) == slot.mask.numel() // 4
    return alive


@pytest.mark.parametrize(("method", "kind", "schedule", "optimiser"), cells())
def test_pruned_weights_stay_zero(method, kind, schedule, optimiser):
    assert train(method, kind, schedule, optimiser) == 0


class GradientMask(Method):
    """The usual shortcut: zero the weights once, then mask gradients."""

    clears_state = False

    def effective(self, slot, out):
        """Trusts that nothing moves a pruned weight."""

    def remask(self, slot, kept, context):
        mask = super().remask(slot, kept, context)
        slot.param.data.mul_(mask)
        return mask


@pytest.mark.parametrize("optimiser", ["momentum", "nesterov", "adam", "adamw", "rmsprop"])
def test_masking_gradients_alone_brings_them_back(optimiser, monkeypatch):
    monkeypatch.setitem(METHODS._members, "gradient_mask", GradientMask)
    assert train("gradient_mask", "unstructured", "one_shot", optimiser) > 0
