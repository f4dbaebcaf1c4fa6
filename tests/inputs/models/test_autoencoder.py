"""The auto-encoder: its equation, what training keeps beside it, thresholds, and columns of length 1."""

from __future__ import annotations

import pytest
import torch

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Activations
from sparselab.inputs.models.autoencoders import MEAN_OF
from sparselab.inputs.models.family import MODELS

torch.set_num_threads(1)

WIDTH = Activations(6)
DATA = DataSpec("vectors", WIDTH, WIDTH, 64, 8, 8, "", "local")
CHOICES = ["mutual_choice", "feature_choice"]


def family(name="topk", features=10, k=3, **options):
    cls = MODELS["autoencoder"]
    rule = {"name": name} | ({} if name == "relu" else {"k": k})
    return cls(cls.Options(features=features, allocation=rule, **options))


def network(*args, **options):
    torch.manual_seed(0)
    return family(*args, **options).build(DATA)


def test_the_equation_with_the_codes_of_each_rule():
    x = torch.randn(7, 6)
    for name in ("topk", "relu", *CHOICES):
        net = network(name).train()
        with torch.no_grad():
            net.decoder.bias.copy_(torch.randn(6))
            net.encoder.bias.copy_(0.1 * torch.randn(10))
            before = (x - net.decoder.bias) @ net.encoder.weight.T + net.encoder.bias
            seen = []
            net.select.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output))
            restored = net(x)
            (codes,) = seen
        assert torch.allclose(codes[codes > 0], before[codes > 0], rtol=1e-5) and bool((codes >= 0).all())
        assert torch.allclose(codes @ net.decoder.weight.T + net.decoder.bias, restored, atol=1e-6)
        if name == "topk":
            assert torch.equal((codes > 0).sum(1), (before > 0).sum(1).clamp(max=3))


def test_it_starts_tied_with_columns_of_length_one():
    net = network()
    assert torch.equal(net.encoder.weight, net.decoder.weight.T)
    assert torch.allclose(net.decoder.weight.norm(dim=0), torch.ones(10))
    assert not net.encoder.bias.any() and not net.decoder.bias.any()


@pytest.mark.parametrize("name", ["topk", *CHOICES])
def test_what_is_dropped_has_no_gradient(name):
    net = network(name).train()
    before = torch.randn(5, 10, requires_grad=True)
    codes = net.select(before)
    codes.sum().backward()
    assert torch.equal(before.grad != 0, codes > 0)
    assert 0 < int((codes > 0).sum()) < 50


@pytest.mark.parametrize("name", CHOICES)
def test_thresholds_just_below_the_smallest_kept_values_keep_the_batch_s_pairs(name):
    net = network(name).train()
    before = torch.randn(12, 10)
    codes = net.select(before)
    kept = codes > 0
    assert torch.equal(net.select.threshold, _smallest(codes, net.select.threshold.ndim))
    net.eval()
    assert torch.equal(net.select(before) > 0, kept)


def _smallest(codes, ndim):
    values = torch.where(codes > 0, codes, torch.inf)
    least = values.amin(0) if ndim else values.min()
    return torch.where(least.isfinite(), least, torch.zeros_like(least))


@pytest.mark.parametrize("name", CHOICES)
def test_thresholds_are_means_over_batches(name):
    net = network(name).train()
    least = []
    for _ in range(5):
        codes = net.select(torch.rand(12, 10) + 0.1)  # every feature fires in every batch
        least.append(_smallest(codes, net.select.threshold.ndim))
    assert torch.allclose(net.select.threshold, torch.stack(least).mean(0), rtol=1e-5)
    assert MEAN_OF == 100 and int(net.select.averaged.max()) == 5


def test_a_feature_that_fires_in_no_batch_keeps_its_threshold():
    net = network("feature_choice").train()
    before = torch.rand(12, 10) + 0.1
    net.select(before)
    one = net.select.threshold.clone()
    before[:, 4] = -1
    net.select(before)
    assert net.select.threshold[4] == one[4] and net.select.averaged.tolist() == [2, 2, 2, 2, 1, 2, 2, 2, 2, 2]


def test_inference_by_batch_looks_at_the_batch():
    net = network("mutual_choice", inference="batch").eval()
    before = torch.rand(6, 10)
    assert int((net.select(before) > 0).sum()) == 18
    assert int((network("mutual_choice").eval().select(before) > 0).sum()) == 60  # no batch has set a threshold yet


def test_alone_means_by_thresholds_and_ends():
    net = network("mutual_choice", inference="batch").eval()
    before = torch.rand(6, 10)
    with net.select.alone():
        assert int((net.select(before) > 0).sum()) == 60
    assert int((net.select(before) > 0).sum()) == 18
    topk = network().eval()
    with topk.select.alone():
        assert int((topk.select(before) > 0).sum()) == 18


def test_dead_features_and_densities():
    net = network("relu", window=3).train()
    before = torch.ones(4, 10)
    before[:, 7] = -1
    before[2:, 1] = -1
    for _ in range(2):
        net.select(before)
    assert not net.select.dead.any()
    net.select(before)
    assert net.select.dead.nonzero().flatten().tolist() == [7]
    assert net.select.density.tolist() == pytest.approx([1, 0.5, 1, 1, 1, 1, 1, 0, 1, 1])
    before[:, 7] = 1
    net.select(before)
    assert not net.select.dead.any() and net.select.idle.tolist() == [0] * 10


def test_evaluation_changes_nothing_that_is_kept():
    for name in ("topk", "relu", *CHOICES):
        net = network(name).train()
        net(torch.randn(8, 6))
        held = {key: tensor.clone() for key, tensor in net.named_buffers()}
        net.eval()(torch.randn(8, 6))
        assert all(torch.equal(tensor, held[key]) for key, tensor in net.named_buffers())


def test_a_step_leaves_columns_of_length_one_and_turns_only():
    fam, net = family(), network().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    x = torch.randn(16, 6)
    for _ in range(3):
        optimizer.zero_grad()
        (net(x) - x).square().mean().backward()
        fam.constrain_gradients(net)
        along = (net.decoder.weight.grad * net.decoder.weight).sum(0)
        assert torch.allclose(along, torch.zeros(10), atol=1e-7)
        optimizer.step()
        fam.constrain(net)
        assert torch.allclose(net.decoder.weight.norm(dim=0), torch.ones(10))
    net.decoder.weight.grad = None
    fam.constrain_gradients(net)  # an update that moves other things
    with torch.no_grad():
        net.decoder.weight[:, 0] = 0
    fam.constrain(net)
    assert not net.decoder.weight[:, 0].any() and torch.isfinite(net.decoder.weight).all()


def test_the_closed_form_is_the_network():
    spec, net = family().model_spec(DATA), network()
    assert spec.params == sum(p.numel() for p in net.parameters())
    assert [(layer.name, layer.shape) for layer in spec.layers] == [("encoder", (10, 6)), ("decoder", (6, 10))]
    assert spec.macs == 120 and "head" in spec["decoder"].roles
