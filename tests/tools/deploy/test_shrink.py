"""Dropped channels are taken out of a network, whatever made them superfluous, and nothing else is."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from sparselab.cli import main as application
from sparselab.cli.main import main
from sparselab.core.errors import ConfigError
from sparselab.inputs.models.networks import MLP, CifarResNet
from sparselab.running.planning import plan_of
from sparselab.running.run_cell import run_cell
from sparselab.storage import record, tensors
from sparselab.tools.deploy.shrink import fit_to, shrink


def forward(network, x):
    return network(x)


def lively(network, seed=0):
    """Norms with statistics and parameters of a trained network, in float64."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return network.double().eval()


def same(small, network, x):
    torch.testing.assert_close(small(x), network(x), rtol=0, atol=1e-12)


@torch.no_grad()
def test_filters_that_are_gone_leave_a_constant_that_those_behind_are_told():
    network = lively(MLP(20, [16, 8], True, 0.0, 10))
    network.layers[0].weight[4:] = 0
    network.layers[1].weight[3:] = 0
    made = shrink(network, forward, torch.randn(8, 20).double())
    assert [tuple(layer.weight.shape) for layer in made.network.layers] == [(4, 20), (3, 4)]
    assert made.lost == {
        "layers.0": (12, 0), "layers.1": (5, 12), "head": (0, 5), "norms.0": (0, 12), "norms.1": (0, 5),
    }  # fmt: skip
    x = torch.randn(50, 20).double()
    same(made.network, network, x)
    assert len(network.layers[0].weight) == 16, "the network itself is left alone"
    again = fit_to(MLP(20, [16, 8], True, 0.0, 10).double(), made.network.state_dict()).eval()
    same(again, network, x)


@torch.no_grad()
def test_a_constant_before_a_padded_border_speaks_through_one_channel():
    network = lively(CifarResNet(1, 8, 3, 10))
    for name in ("layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"):
        weight = network.get_submodule(name).weight
        weight[len(weight) // 2 :] = 0
    made = shrink(network, forward, torch.randn(4, 3, 16, 16).double())
    assert {name: outs for name, (outs, _) in made.lost.items() if outs} == {
        "layer1.0.conv1": 3, "layer2.0.conv1": 7, "layer3.0.conv1": 15,
    }  # fmt: skip
    same(made.network, network, torch.randn(9, 3, 16, 16).double())


@torch.no_grad()
def test_channels_of_a_shortcut_go_together_or_not_at_all():
    network = lively(CifarResNet(1, 8, 3, 10))
    network.conv1.weight[5] = 0  # read again through the shortcut, where layer1.0.conv2 adds to it
    with pytest.raises(ConfigError, match="no channel of this network is superfluous"):
        shrink(network, forward, torch.randn(4, 3, 16, 16).double())
    for name in ("layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"):
        network.get_submodule(name).weight[:] = 0
    network.conv1.weight[:] = 0
    made = shrink(network, forward, torch.randn(4, 3, 16, 16).double())
    same(made.network, network, torch.randn(9, 3, 16, 16).double())


@torch.no_grad()
def test_inputs_that_nobody_reads_take_their_makers_along():
    network = lively(CifarResNet(1, 8, 3, 10))
    for name in ("layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"):
        weight = network.get_submodule(name).weight
        weight[:, weight.shape[1] // 2 :] = 0
    made = shrink(network, forward, torch.randn(4, 3, 16, 16).double())
    assert made.lost["layer2.0.conv1"] == (8, 0) and made.lost["layer2.0.bn1"] == (0, 8)
    same(made.network, network, torch.randn(9, 3, 16, 16).double())


class Odd(nn.Module):
    """A convolution that is flattened, a depthwise one, a layer that is used twice, and a norm across channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3)
        self.deep = nn.Conv2d(6, 6, 3, groups=6)
        self.flat = nn.Linear(6 * 4, 8)
        self.across = nn.LayerNorm(8)
        self.twice = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.deep(self.conv(x).relu()).flatten(1)
        x = self.across(self.flat(x)).relu()
        return self.head(self.twice(self.twice(x).relu()).relu())


@torch.no_grad()
def test_modules_of_other_kinds():
    network = lively(Odd())
    network.conv.weight[[1, 4]] = 0
    network.flat.weight[3] = 0  # a norm across channels would have others without it
    network.twice.weight[2] = 0  # used twice: left alone
    made = shrink(network, forward, torch.randn(8, 2, 6, 6).double())
    assert made.lost == {"conv": (2, 0), "deep": (0, 2), "flat": (0, 8)}
    assert made.network.deep.groups == 4
    same(made.network, network, torch.randn(9, 2, 6, 6).double())


def test_what_has_no_zeros_keeps_everything():
    with pytest.raises(ConfigError, match=r"shrink=true: no channel of this network is superfluous — shrink what was"):
        shrink(MLP(6, [4], False, 0.0, 2), forward, torch.randn(3, 6))


def test_a_file_of_another_network_is_refused():
    with pytest.raises(ConfigError, match="does not come of this network"):
        fit_to(MLP(6, [4], False, 0.0, 2), MLP(6, [5], False, 0.0, 2).state_dict())


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    words = ["model=mlp", "model.hidden=[32]", "trainer.max_steps=2", "trainer.max_epochs=null", "trainer.evals=0"]
    place = f"runs_dir={tmp_path_factory.mktemp('runs')}"
    plan = plan_of(
        [*words, "method=random", "distribution=uniform", "sparsity=unit:0.75", "trainer.accelerator=cpu", place]
    )
    assert run_cell(plan) == 0
    return plan.folder


def test_an_export_is_read_by_plain_torch_and_by_the_family(folder, tmp_path, capsys):
    to = tmp_path / "small"
    assert main(["export", str(folder), f"to={to}", "shrink=true", "batch=4", "rounds=3", "device=cpu"]) == 0
    out = capsys.readouterr().out
    assert "2,410 → 610" in out and out.splitlines()[-1] == str(to)
    about = json.loads((to / "export.json").read_text())
    assert about["macs"] == {"run": 64 * 32 + 320, "export": 64 * 8 + 80} and about["outputs_differ_by"] < 1e-6
    assert about["macs"]["export"] == record.read(folder)["account"]["macs"]
    assert about["lost"] == {"layers.0": {"outputs": 24, "inputs": 0}, "head": {"outputs": 0, "inputs": 24}}
    network = plan_of(["model=mlp", "model.hidden=[32]", "method=dense"]).parts
    own = network.family.network(network.data)
    network.family.load(own, f"{folder}/model.safetensors")
    x = torch.randn(5, 1, 8, 8)
    program = torch.export.load(str(to / "model.pt2")).module()
    torch.testing.assert_close(program(x), own.eval()(x), rtol=0, atol=1e-6)
    narrow = plan_of(["model=mlp", "model.hidden=[8]", "method=dense", f"model.weights={to}/model.safetensors"]).parts
    torch.testing.assert_close(narrow.family.build(narrow.data).eval()(x), own(x), rtol=0, atol=1e-6)
    assert sum(tensor.numel() for tensor in tensors.load(to / "model.safetensors").values()) == 610


def test_a_network_as_it_is_and_the_speed_of_the_smaller_one(folder, tmp_path, capsys):
    assert main(["export", str(folder), f"to={tmp_path / 'whole'}", "batch=4", "rounds=3", "device=cpu"]) == 0
    assert json.loads((tmp_path / "whole" / "export.json").read_text())["lost"] == {}
    assert main(["speed", str(folder), "batch=4", "rounds=3", "device=cpu"]) == 0
    assert any(line.startswith("shrunk ") for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "export: one run folder is needed"),
        (["FOLDER"], "to: is required — write to=…"),
        (["FOLDER", "to=FULL"], "there are files in it — name a new folder"),
        (["FOLDER", "to=new", "shrink=yes"], "shrink=yes: no such shrink"),
        (["FOLDER", "to=new", "batch=0"], "batch=0: is no such number — write a whole number from 1"),
        (["nowhere", "to=new"], "no record here"),
    ],
)
def test_what_is_refused(words, message, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    given = [word.replace("FOLDER", str(folder)).replace("FULL", str(tmp_path / "full")) for word in words]
    assert application.main(["export", *given]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0], lines
    assert not (tmp_path / "new").exists(), "nothing is written"
