"""Units of residual streams: removal equals masking, and what is counted is what the smaller network costs."""

from __future__ import annotations

import pytest
import torch
from data_specs import image_data

from sparselab.core.errors import RunFailed
from sparselab.core.sparsity import Sparsity
from sparselab.inputs.models.families.cifar_resnet import CifarResNet
from sparselab.inputs.models.families.resnet import ResNet
from sparselab.inputs.models.trace import trace
from sparselab.tools.deploy.shrink import shrink
from sparselab.weights.cost import cost_of
from sparselab.weights.patterns.pattern import Pattern
from sparselab.weights.slot import Slot
from sparselab.weights.whole_units import WholeUnits, with_readers

SHARED = Sparsity.parse("shared_unit:0.5")


@pytest.mark.parametrize(("depth", "parameters", "macs"), [
    (20, 269_722, 40.55), (56, 853_018, 125.5), (110, 1_727_962, 252.9),
])  # fmt: skip
def test_the_dossiers_parameters_and_macs(depth, parameters, macs):
    """Item: with shortcuts without parameters, to the digit; and what 63.03 and 60.34 % less of the deepest are."""
    spec = CifarResNet(CifarResNet.Options(depth=depth)).model_spec(image_data((3, 32, 32), 10))
    assert spec.params == parameters
    assert round(spec.macs / 1e6, 1 if depth > 20 else 2) == macs
    if depth == 110:
        assert round((1 - 0.6303) * spec.macs / 1e6, 1) == 93.5 and round((1 - 0.6034) * spec.params / 1e6, 3) == 0.685


def masked(depth):
    """A narrow network of which every layer but the classifier lost half its units, those of a stream the same ones."""
    torch.manual_seed(0)
    data, family = image_data((1, 8, 8), 10), ResNet(ResNet.Options(depth=depth))
    family.width = 8
    network, spec = family.make(data).eval(), family.model_spec(data)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.2, 0.2)
    lost: dict[str, torch.Tensor] = {}
    slots = []
    for layer in spec.layers:
        if layer.name == "fc":
            continue
        gone = lost.setdefault(layer.adds or layer.name, torch.randperm(layer.outputs)[: layer.outputs // 2])
        param = network.get_parameter(layer.tensor)
        mask = torch.ones_like(param, dtype=torch.bool)
        mask[gone] = False
        slots.append(Slot(layer, param, Pattern.of(SHARED, layer.kind), mask, kept=int(mask.sum())))
        param.data.mul_(mask)
    units = WholeUnits.of(slots, network)
    units.look()
    units.silence()
    return network, spec, slots, units, data


@pytest.mark.parametrize("depth", [18, 50])
def test_removal_equals_masking(depth):
    """Item: physical removal equals masking gamma and beta, logits within 1e-5; parameters and MACs are those counted."""
    network, spec, slots, _, data = masked(depth)
    x = torch.randn(6, 1, 8, 8)
    small = shrink(network, lambda net, inputs: net(inputs), x)
    torch.testing.assert_close(small.network(x), network(x), rtol=0, atol=1e-5)
    assert small.network.conv1.out_channels == 4 and small.network.fc.in_features == network.fc.in_features // 2
    kept = with_readers(spec.layers, {s.layer.name: SHARED for s in slots}, {s.layer.name: s.kept for s in slots})
    assert trace(small.network, data).macs == cost_of(spec, kept).macs


def test_layers_of_a_stream_that_disagree_are_refused():
    _, _, slots, units, _ = masked(18)
    slot = next(slot for slot in slots if slot.layer.name == "layer2.1.conv2")
    slot.mask = ~slot.mask
    with pytest.raises(
        RunFailed, match=r"layer2.1.conv2.weight: keeps other units than layer2.0.downsample.0.weight|layer2"
    ):
        units.look()


def test_streams_are_those_of_the_additions():
    spec = ResNet(ResNet.Options(depth=50)).model_spec(image_data((1, 8, 8), 10))
    streams = {}
    for layer in spec.layers:
        if layer.adds:
            streams.setdefault(layer.adds, []).append(layer.name)
    assert streams["stem"] == ["conv1"]
    assert streams["layer1"] == ["layer1.0.conv3", "layer1.0.downsample.0", "layer1.1.conv3", "layer1.2.conv3"]
    readers = {layer.adds: layer.readers for layer in spec.layers if layer.adds}
    assert readers["layer1"] == ("layer1.1.conv1", "layer1.2.conv1", "layer2.0.conv1", "layer2.0.downsample.0")
    assert readers["layer4"][-1] == "fc"
