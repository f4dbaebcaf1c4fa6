"""Compressing 2:4 weights: every refusal, and on a device the product itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparselab.core.errors import ConfigError
from sparselab.core.sparsity import Sparsity
from sparselab.tools.deploy.form import FORMS, convert
from sparselab.weights.patterns.pattern import Pattern

FORM = FORMS["semi_structured"]()


def sparse(outputs=64, inputs=128, dtype=torch.bfloat16, device="cpu"):
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0))
    return (weight * Pattern.of(Sparsity.parse("2:4")).mask(weight.abs())).to(dtype).to(device)


@pytest.mark.parametrize(
    "weight, words",
    [
        (sparse(60), "60 x 128 is not a multiple of 32 outputs x 64 inputs"),
        (sparse(64, 96), "64 x 96"),
        (torch.ones(32, 64, 1, 1), "32 x 64 x 1 x 1"),
        (sparse(dtype=torch.float32), "float32 is not multiplied sparsely"),
        (torch.ones(32, 64, dtype=torch.bfloat16), "more than 2 of 4"),
        (sparse(), "cpu has no sparse tensor cores"),
    ],
)
def test_what_cannot_be_compressed_is_refused(weight, words):
    problem, fix = FORM.misfit(weight)
    assert words in problem and fix


def test_a_network_is_refused_as_a_whole_with_a_line_per_layer():
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ConfigError) as refused:
        convert(network, ["0", "1", "2"], FORM)
    assert [str(issue).split(":")[0] for issue in refused.value.issues] == ["0", "1", "2"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_compressed_product_is_the_dense_one():
    network = nn.Sequential(nn.Linear(128, 64, device="cuda", dtype=torch.bfloat16))
    network[0].weight.data.copy_(sparse(device="cuda"))
    inputs = torch.randn(32, 128, device="cuda", dtype=torch.bfloat16)
    dense = network(inputs)
    convert(network, ["0"], FORM)
    assert torch.allclose(network(inputs), dense, atol=0.1)
