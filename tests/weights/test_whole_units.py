"""Units that go whole: a masked network is the smaller one, before, while and after it is trained."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparselab.core.errors import ConfigError
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.inputs.models.networks import MLP
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage import record, tensors
from sparselab.tools.deploy.shrink import shrink
from sparselab.weights.whole_units import with_readers

WIDE = [
    "model=mlp", "model.hidden=[512,256]", "model.batch_norm=true", "dataset=digits", "distribution=uniform",
    "trainer.max_epochs=null", "trainer.accelerator=cpu", "trainer.progress=none", "trainer.threads=1",
]  # fmt: skip


def planned(tmp_path, *overrides):
    return plan_of([*WIDE, f"runs_dir={tmp_path}", *overrides])


def test_the_dossiers_counts():
    """Item 1: 784*51 + 51*26 + 26*10 = 41,570 of 535,040 at 90 % of the nodes, 7.77 %; q for the ends, q^2 between."""
    layers = [
        Layer("a", "linear", (512, 784), 0, readers=("b",)), Layer("b", "linear", (256, 512), 0, readers=("c",)),
        Layer("c", "linear", (10, 256), 0),
    ]  # fmt: skip
    unit = Sparsity.parse("unit:0.9")
    kept = with_readers(layers, {"a": unit, "b": unit}, {"a": 51 * 784, "b": 26 * 512})
    assert kept == {"a": 784 * 51, "b": 51 * 26, "c": 26 * 10}
    assert sum(kept.values()) == 41_570 and sum(layer.numel for layer in layers) == 535_040
    assert round(100 * 41_570 / 535_040, 2) == 7.77
    # a convolution reads a unit through a whole kernel, a linear layer behind a flattening as a run of inputs
    layers = [
        Layer("a", "conv", (8, 3, 3, 3), 0, readers=("b",)), Layer("b", "conv", (4, 8, 3, 3), 0, readers=("c",)),
        Layer("c", "linear", (5, 16), 0),
    ]  # fmt: skip
    kept = with_readers(layers, {"a": unit, "b": unit}, {"a": 2 * 27, "b": 1 * 72})
    assert kept == {"a": 54, "b": 2 * 9, "c": 4 * 5}
    assert with_readers(layers, {"a": Sparsity.parse("channel:0.9")}, {"a": 54}) == {"a": 54}


def test_what_check_foresees_is_what_a_run_counts(tmp_path):
    plan = planned(tmp_path, "method=random", "sparsity=unit:0.9", "trainer.max_steps=2")
    assert run_cell(plan) == 0
    found = record.read(plan.folder, plan.id)
    assert found["account"]["macs"] == plan.cost["macs"] == 64 * 51 + 51 * 26 + 26 * 10
    assert {key: found["account"][key] for key in plan.cost} == plan.cost
    assert found["sparsity"]["pattern_holds"]
    assert found["sparsity"]["kept"] == 51 * 64 + 26 * 512, "a mask says which units stay"


def test_no_sparsity_is_the_parent_and_all_of_it_is_refused(tmp_path):
    """Item 5."""
    states = []
    for words in (["method=random", "sparsity=unit:0"], ["method=dense", "sparsity=null"]):
        plan = planned(tmp_path, *words, "model.hidden=[16,8]", "trainer.max_steps=3")
        assert run_cell(plan) == 0
        states.append(tensors.load(f"{plan.folder}/model.safetensors"))
    assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    with pytest.raises(ConfigError, match="must be in"):
        planned(tmp_path, "method=random", "sparsity=unit:1")


@pytest.mark.parametrize("ema", ["null", "0.7"])
def test_a_trained_network_is_the_smaller_one_to_1e_6(tmp_path, ema):
    """Item 2: outputs of the masked and of the shrunk network, after updates with momentum and weight decay."""
    words = ["method=random", "sparsity=unit:0.9", "optim=sgd", "optim.lr=0.05", "trainer.max_steps=20"]
    plan = planned(tmp_path, *words, "optim.weight_decay=0.01", f"trainer.ema={ema}")
    assert run_cell(plan) == 0
    network = plan.parts.family.network(plan.parts.data)
    plan.parts.family.load(network, f"{plan.folder}/model.safetensors")
    small = shrink(network.eval(), lambda net, x: net(x), torch.randn(8, 1, 8, 8))
    assert [tuple(layer.weight.shape) for layer in small.network.layers] == [(51, 64), (26, 51)]
    assert sum(p.numel() for p in small.network.parameters()) == 64 * 51 + 51 * 26 + 260 + (51 + 26 + 10) + 2 * 77
    x = torch.randn(100, 1, 8, 8)
    torch.testing.assert_close(small.network(x), network(x), rtol=0, atol=1e-6)


def test_training_the_smaller_network_is_training_the_masked_one(tmp_path):
    """Item 2: the smaller network, trained by itself from the masked start, ends where the masked run ends, in float64."""
    from sparselab.weights.method import METHODS
    from sparselab.weights.patterns.pattern import Pattern
    from sparselab.weights.schedules import SCHEDULES
    from sparselab.weights.slot import Slot
    from sparselab.weights.sparsifier import Sparsifier
    from sparselab.weights.whole_units import WholeUnits

    torch.manual_seed(0)
    network = MLP(20, [16, 8], True, 0.0, 4).double()
    unit = Sparsity.parse("unit:0.5")
    specs = [
        Layer("layers.0", "linear", (16, 20), 320, norm="norms.0", readers=("layers.1",)),
        Layer("layers.1", "linear", (8, 16), 128, norm="norms.1", readers=("head",)),
    ]
    slots = []
    for spec in specs:
        param = network.get_parameter(spec.tensor)
        slots.append(Slot(spec, param, Pattern.of(unit), torch.ones_like(param, dtype=torch.bool)))
    schedule = SCHEDULES["constant"](SCHEDULES["constant"].Options(), unit)
    counts = {"layers.0": 160, "layers.1": 64}
    method = METHODS["random"](METHODS["random"].Options())
    made = Sparsifier(method, slots, schedule, lambda *_: counts, 30, 0, units=WholeUnits.of(slots, network))
    made.start()
    small = shrink(network, lambda net, x: net(x), torch.randn(8, 20).double()).network.train()
    assert [len(layer.weight) for layer in small.layers] == [8, 4]
    network.train()
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
    optimisers = [torch.optim.SGD(net.parameters(), **settings) for net in (network, small)]
    for step in range(1, 31):
        x, y = torch.randn(32, 20).double(), torch.randint(4, (32,))
        for net, optimiser in zip((network, small), optimisers, strict=True):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            if net is network:
                made.before_step(step)
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)  # a dropped unit's gradients have no part in the norm
            optimiser.step()
            if net is network:
                made.after_step(step, optimiser)
    x = torch.randn(200, 20).double()
    torch.testing.assert_close(small.eval()(x), network.eval()(x), rtol=0, atol=1e-9)
    again = shrink(network, lambda net, x: net(x), x[:8]).network
    for one, other in zip(again.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_units_of_residual_blocks(tmp_path):
    """Inner convolutions can lose units; what is added to a shortcut cannot, and says so."""
    words = [
        "model=resnet20",
        "model.depth=8",
        "model.width=4",
        "dataset=digits",
        "method=random",
        "distribution=uniform",
    ]
    rest = ["trainer.max_epochs=null", "trainer.max_steps=2", "trainer.progress=none", "trainer.accelerator=cpu"]
    with pytest.raises(ConfigError, match=r"units of layer1.0.conv2 cannot be taken out: no other layer alone reads"):
        plan_of([*words, *rest, "sparsity=unit:0.5", f"runs_dir={tmp_path}"])
    plan = plan_of([*words, *rest, "sparsity=unit:0.5", "targets.include=[*.conv1]", f"runs_dir={tmp_path}"])
    assert run_cell(plan) == 0
    network = plan.parts.family.network(plan.parts.data)
    plan.parts.family.load(network, f"{plan.folder}/model.safetensors")
    small = shrink(network.eval(), lambda net, x: net(x), torch.randn(4, 1, 8, 8))
    assert small.lost["layer2.0.conv1"] == (4, 0) and small.lost["layer2.0.conv2"] == (0, 4)
    x = torch.randn(20, 1, 8, 8)
    torch.testing.assert_close(small.network(x), network(x), rtol=0, atol=1e-6)
    counted = record.read(plan.folder, plan.id)["account"]["macs"]
    from sparselab.inputs.models.trace import trace

    assert trace(small.network, plan.parts.data).macs == counted == plan.cost["macs"]


def test_a_unit_that_went_leaves_nothing_behind():
    network = MLP(6, [4, 3], True, 0.0, 2)
    before = copy.deepcopy(network)
    from sparselab.weights.whole_units import silence

    layer = Layer("layers.0", "linear", (4, 6), 0, norm="norms.0", readers=("layers.1",))
    kept = torch.tensor([True, False, True, False])
    silence(network, layer, kept)
    assert torch.equal(network.layers[0].bias, before.layers[0].bias * kept)
    assert torch.equal(network.norms[0].weight, before.norms[0].weight * kept)
    assert torch.equal(network.layers[1].weight, before.layers[1].weight * kept)
    assert torch.equal(network.layers[0].weight, before.layers[0].weight), "its weights are the mask's affair"
