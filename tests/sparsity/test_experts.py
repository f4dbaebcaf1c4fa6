"""Patterns on a stack of matrices: each is treated as if it were alone, however the stack is stored."""

from __future__ import annotations

import pytest
import torch

from sparselab.sparsity.distribution import DISTRIBUTIONS
from sparselab.sparsity.fit import misfit
from sparselab.sparsity.pattern import Pattern
from sparselab.spec.outline import Layer
from sparselab.spec.sparsity import Sparsity


@pytest.mark.parametrize("asked", ["0.5", "2:4", "block:2x2:0.5", "channel:0.5", "in_channel:0.5"])
@pytest.mark.parametrize("axis", ["in", "out"])
def test_masks_are_those_of_the_matrices_alone(asked, axis):
    torch.manual_seed(0)
    stack, sparsity = torch.randn(3, 8, 12), Sparsity.parse(asked)
    stack[1] *= 100  # would take everything were the three compared
    alone = torch.stack([Pattern.of(sparsity, "linear", axis).mask(matrix.abs()) for matrix in stack])
    plain = Pattern.of(sparsity, "experts", axis, 3)
    turned = Pattern.of(sparsity, "experts1d", axis, 3)
    assert torch.equal(plain.mask(stack.abs()), alone)
    assert torch.equal(turned.mask(stack.mT.contiguous().abs()).mT, alone)
    assert plain.holds(alone) and turned.holds(alone.mT.contiguous())
    assert plain.kept((3, 8, 12)) == int(alone.sum())


def test_what_does_not_divide_goes_to_the_first():
    mask = Pattern.of(Sparsity.parse("0.5"), "experts", parts=3).mask(torch.rand(3, 2, 2), density=8 / 12)
    assert mask.flatten(1).sum(1).tolist() == [3, 3, 2]


def test_ranked_together_they_are_one():
    stack = torch.arange(24.0).view(2, 3, 4)
    assert Pattern.of(Sparsity.parse("0.5"), "experts").mask(stack).flatten(1).sum(1).tolist() == [0, 12]


def test_a_block_lies_in_one_expert():
    layer = Layer("e", "experts", (4, 3, 8), 96, groups=4, own_path=True)
    assert "3 outputs" in misfit(layer, Sparsity.parse("block:2x2:0.5")).problem
    assert misfit(layer, Sparsity.parse("block:3x2:0.5")) is None
    assert "no kernel axis" in misfit(layer, Sparsity.parse("2:4"), "kernel").problem
    assert (layer.inputs, layer.outputs) == (8, 3)


@pytest.mark.parametrize("name", ["er", "erk"])
def test_an_expert_is_as_dense_as_a_layer_of_its_shape(name):
    distribution = DISTRIBUTIONS[name](DISTRIBUTIONS[name].Options())
    shared = Layer("a", "linear", (8, 16), 128), Layer("b", "linear", (64, 64), 4096)
    stack = Layer("e", "experts", (4, 8, 16), 512, groups=4)
    found = distribution.densities([*shared, stack], 0.3)
    assert found["e"] == pytest.approx(found["a"]) and found["b"] < found["a"]
