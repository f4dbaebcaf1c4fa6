"""The spike rate as a loss and as a metric: by hand, and in the records of cells."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from data_specs import image_data

from sparselab.core.options import validate
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.models.feature_recorder import States
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.training.losses.extra_loss import LOSSES
from sparselab.training.metrics.metric import METRICS, Subject

torch.set_num_threads(1)
CELL = [
    "model=snn", "model.hidden=[8]", "neuron=ultradlif", "method=dense", "optim=adamw", "optim.warmup=0",
    "trainer.max_epochs=null", "trainer.max_steps=8", "trainer.batch_size=32", "trainer.progress=none",
    'trainer.precision="32"', "trainer.accelerator=cpu", "trainer.threads=1", "trainer.evals=0", "metric=[spikes]",
]  # fmt: skip


def test_the_penalty_is_the_mean_over_layers_of_their_mean_spikes_and_reaches_currents():
    currents = torch.tensor([0.0, 2.0, -1.0], requires_grad=True)
    first = torch.sigmoid(currents).view(1, 1, 3)
    second = torch.full((1, 1, 5), 0.25)
    loss = LOSSES["spike_rate"](LOSSES["spike_rate"].Options(weight=0.1))
    value = loss.loss(SimpleNamespace(states=States([first, second])), (), torch.zeros(1))
    assert float(value) == pytest.approx((float(first.mean()) + 0.25) / 2)
    value.backward()
    soft = torch.sigmoid(currents.detach())
    assert torch.allclose(currents.grad, soft * (1 - soft) / 6)


def test_the_metric_by_hand():
    """One layer of two units over two steps, plain sigmoids of fixed currents; the head reads the first unit."""
    member = MODELS["snn"](validate(MODELS["snn"].Options, {
        "hidden": [2], "timesteps": 2, "encoding": "direct", "neuron": {"name": "sigmalif", "tau": 0.5},
    }, "model"))  # fmt: skip
    network = member.build(image_data((1, 2, 2), 2)).eval()
    with torch.no_grad():
        network.layers[0].weight.zero_()
        network.layers[0].bias.copy_(torch.tensor([1.0, -1.0]))
        network.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        network.head.bias.copy_(torch.tensor([0.0, 0.5]))
    labels = torch.tensor([0, 0, 1])
    data = SimpleNamespace(classes=2)
    subject = Subject(network, network, lambda: iter([(torch.zeros(3, 1, 2, 2), labels)]), data)
    found = METRICS["spikes"](METRICS["spikes"].Options()).measure(subject)
    rates = []
    for current in (1.0, -1.0):
        potential = 0.0
        for _ in range(2):
            potential = 0.5 * potential + current
            spike = 1 / (1 + torch.tensor(-potential).exp().item())
            rates.append(spike)
            potential *= 1 - spike
    rate = sum(rates) / 4
    assert found["spike_rate"] == pytest.approx(rate) and found["activation_sparsity"] == pytest.approx(1 - rate)
    assert found["synops"] == pytest.approx(2 * rate) and found["energy_ratio"] == pytest.approx(2 * rate * 0.9 / 4.6)
    assert found["hard_rate"] == 0.5  # the first unit at both steps, the second at none
    assert found["hard_accuracy"] == pytest.approx(2 / 3)  # 1 against .5: class 0
    assert found["eps_1"] == pytest.approx(1.0)


def test_a_cell_has_its_rates_in_its_record_and_a_penalty_lowers_them(tmp_path):
    rates = {}
    for name, words in (("free", []), ("held", ["loss=[spike_rate]", "loss.spike_rate.weight=50", "optim.lr=0.05"])):
        plan = plan_of([*CELL, f"runs_dir={tmp_path}", *words])
        assert run_cell(plan) == 0
        record = json.loads((Path(plan.folder) / "record.json").read_text())
        found = record["metrics"]
        assert record["config"]["model"]["neuron"]["name"] == "ultradlif"
        assert found["test.activation_sparsity"] == pytest.approx(1 - found["test.spike_rate"])
        assert 0 <= found["test.hard_accuracy"] <= 1 and 0.1 <= found["test.eps_1"] <= 20
        rates[name] = found["test.spike_rate"]
    assert rates["held"] < rates["free"] - 0.05
