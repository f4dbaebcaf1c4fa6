"""Compressed rows and blocks: the product is the dense one, and what does not fit is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparselab.core.errors import ConfigError
from sparselab.core.sparsity import Sparsity
from sparselab.tools.deploy.compressed import block_of
from sparselab.tools.deploy.form import FORMS, convert, misfits
from sparselab.weights.patterns.pattern import Pattern


def layer(outputs, inputs, sparsity, bias=True, seed=0):
    torch.manual_seed(seed)
    made = nn.Linear(inputs, outputs, bias)
    made.weight.data *= Pattern.of(Sparsity.parse(sparsity)).mask(made.weight.abs())
    return made


@settings(max_examples=40)
@given(
    outputs=st.integers(1, 20),
    inputs=st.integers(1, 20),
    shape=st.lists(st.integers(1, 4), max_size=3),
    share=st.floats(0.05, 0.95),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_rows_multiply_as_the_dense_weight_does(outputs, inputs, shape, share, bias, seed):
    dense = layer(outputs, inputs, f"{share:.2f}", bias, seed)
    network = nn.Sequential(nn.Identity(), nn.Sequential(layer(outputs, inputs, f"{share:.2f}", bias, seed)))
    convert(network, ["1.0"], FORMS["csr"]())
    x = torch.randn(*shape, inputs)
    torch.testing.assert_close(network(x), dense(x))


@torch.no_grad()
@pytest.mark.parametrize("size", [4, 8, 16, 32])
@pytest.mark.parametrize("bias", [True, False])
def test_blocks_multiply_as_the_dense_weight_does(size, bias):
    dense = layer(64, 96, f"block:{size}x{size}:0.75", bias)
    network = nn.Sequential(layer(64, 96, f"block:{size}x{size}:0.75", bias))
    assert block_of(dense.weight) == size, "the largest that is filled, so the one that it was pruned with"
    convert(network, ["0"], FORMS["bsr"]())
    assert network[0].weight.values().shape[1:] == (size, size)
    x = torch.randn(3, 5, 96)
    torch.testing.assert_close(network(x), dense(x))


def test_zeros_that_do_not_come_in_blocks_are_refused():
    for weight in (layer(32, 32, "0.5").weight, layer(32, 32, "2:4").weight, torch.ones(32, 32), torch.zeros(32, 32)):
        problem, fix = FORMS["bsr"]().misfit(weight.detach())
        assert "blocks" in problem and "block:16x16" in fix


@pytest.mark.parametrize(
    "weight, words",
    [
        (torch.ones(4, 4, 1, 1), "4 dimensions"),
        (torch.ones(4, 4, dtype=torch.bfloat16), "bfloat16 is not multiplied"),
        (torch.ones(4, 4, device="meta"), "lies on meta"),
    ],
)
def test_what_rows_cannot_store(weight, words):
    assert words in FORMS["csr"]().misfit(weight)[0]


def test_nothing_changes_where_one_layer_is_refused():
    network = nn.Sequential(layer(8, 8, "0.5"), nn.ReLU())
    with pytest.raises(ConfigError) as refused:
        convert(network, ["0", "1"], FORMS["csr"]())
    assert str(refused.value) == "1: is no linear layer — leave it out" and type(network[0]) is nn.Linear


def test_gate_matrices_stay_as_they_are():
    """A recurrent module holds several; none of them is a module that could be put in the place of another."""
    network = nn.Sequential(nn.LSTM(4, 4))
    (issue,) = misfits(network, ["0.weight_hh_l0"], FORMS["csr"]())
    assert str(issue) == "0.weight_hh_l0: is no linear layer — leave it out"
