"""Tracing: any network, left as it was."""

from __future__ import annotations

import torch
from data_specs import image_data
from torch import nn

from sparselab.inputs.models.trace import trace

IMAGE = image_data((2, 6, 6), 3)


class Odd(nn.Module):
    """A depthwise convolution, a layer used twice, a product outside any layer, a layer never used."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.spatial = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.shared = nn.Linear(36, 36)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm2d(4)
        self.unused = nn.Linear(5, 5)
        self.classifier = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.norm(self.spatial(self.stem(x)))).flatten(2)
        x = self.shared(self.shared(x))
        return self.classifier((x @ x.transpose(1, 2)).flatten(1))


def test_odd_network() -> None:
    model_spec = trace(Odd(), IMAGE, "odd")
    assert [(layer.name, layer.kind, layer.shape, layer.macs, set(layer.roles)) for layer in model_spec.layers] == [
        ("stem", "conv", (4, 2, 3, 3), 72 * 36, {"stem"}),
        ("spatial", "conv", (4, 1, 3, 3), 36 * 36, {"depthwise"}),
        ("shared", "linear", (36, 36), 2 * 36 * 36 * 4, set()),
        ("classifier", "linear", (3, 16), 48, {"head"}),
    ]
    assert [layer.groups for layer in model_spec.layers] == [1, 4, 1, 1]
    assert model_spec.fixed_macs == {"odd": 4 * 36 * 4}
    assert model_spec.params == (72 + 4) + (36 + 4) + (36 * 36 + 36) + 8 + 30 + 51


def test_leaves_the_network_as_it_was() -> None:
    torch.manual_seed(0)
    model = Odd()
    model.drop.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    rng = torch.get_rng_state()
    trace(model, IMAGE)
    assert torch.equal(rng, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_restores_the_network_when_the_pass_fails() -> None:
    model = Odd()
    wrong = image_data((3, 6, 6), 3)
    try:
        trace(model, wrong)
    except RuntimeError:
        pass
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_meta_device() -> None:
    with torch.device("meta"):
        model = Odd()
    assert trace(model, IMAGE) == trace(Odd(), IMAGE)


def test_a_recurrent_module_has_a_layer_for_each_matrix() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 4, num_layers=2, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x[:, 0])[0][:, -1])

    model_spec = trace(Two(), image_data((1, 5, 3), 2), "two")
    assert [(layer.tensor, layer.module, layer.shape, layer.macs) for layer in model_spec.layers] == [
        ("rnn.weight_ih_l0", "rnn", (16, 3), 5 * 48),
        ("rnn.weight_hh_l0", "rnn", (16, 4), 5 * 64),
        ("rnn.weight_ih_l1", "rnn", (16, 4), 5 * 64),
        ("rnn.weight_hh_l1", "rnn", (16, 4), 5 * 64),
        ("head.weight", "head", (2, 4), 8),
    ]
    assert model_spec.fixed_macs == {}
