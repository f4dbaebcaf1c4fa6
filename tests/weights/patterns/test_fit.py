"""Misfits: each is one line that names the layer and its size."""

from __future__ import annotations

import pytest
import torch

from sparselab.core.errors import WIDTH
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.weights.patterns.fit import misfit
from sparselab.weights.patterns.pattern import Pattern

FIX = "exclude it (targets.exclude) or use another pattern"


def layer(kind: str, shape: tuple[int, ...], *roles: str) -> Layer:
    return Layer("blocks.0.fc", kind, shape, 0, frozenset(roles))


@pytest.mark.parametrize(
    "sparsity, axis, of, problem",
    [
        ("2:4", "in", layer("linear", (4, 6)), "blocks.0.fc has 6 inputs, not a multiple of 4"),
        ("2:4", "out", layer("linear", (6, 4)), "blocks.0.fc has 6 outputs, not a multiple of 4"),
        ("2:4", "in", layer("conv1d", (6, 4)), "blocks.0.fc has 6 inputs, not a multiple of 4"),
        ("2:4", "in", layer("conv", (8, 1, 3, 3)), "blocks.0.fc has 1 input, not a multiple of 4"),
        (
            "1:2",
            "in",
            layer("conv", (8, 1, 3, 3), "depthwise"),
            "blocks.0.fc has 1 input (a depthwise convolution), not a multiple of 2",
        ),
        ("2:4", "kernel", layer("conv", (8, 1, 3, 3)), "blocks.0.fc has 9 weights per output, not a multiple of 4"),
        ("2:4", "kernel", layer("linear", (4, 4)), "blocks.0.fc is no convolution and has no kernel axis"),
        (
            "block:4x1:0.8",
            "in",
            layer("linear", (6, 8)),
            "blocks.0.fc is 6 outputs x 8 inputs, not a whole number of 4x1 blocks",
        ),
        (
            "block:1x4:0.8",
            "in",
            layer("conv", (6, 3, 3, 3)),
            "blocks.0.fc is 6 outputs x 27 inputs, not a whole number of 1x4 blocks",
        ),
        ("channel:0.9", "in", layer("linear", (4, 8)), "blocks.0.fc has 4 channels and would keep none"),
        ("channel:0.9", "in", layer("conv1d", (8, 1)), "blocks.0.fc has 1 channel and would keep none"),
        ("in_channel:0.9", "in", layer("linear", (8, 4)), "blocks.0.fc has 4 input channels and would keep none"),
        ("in_channel:0.9", "in", layer("conv", (16, 3, 3, 3)), "blocks.0.fc has 3 input channels and would keep none"),
        (
            "in_channel:0.5",
            "in",
            Layer("blocks.0.fc", "conv", (8, 2, 3, 3), 0, groups=4),
            "blocks.0.fc is a convolution in 4 groups, each with input channels of its own",
        ),
        ("block:4x4:0.9", "in", layer("linear", (8, 8)), "blocks.0.fc has 4 blocks and would keep none"),
    ],
)
def test_misfits(sparsity, axis, of, problem):
    issue = misfit(of, Sparsity.parse(sparsity), axis)
    assert str(issue) == f"sparsity={sparsity}: {problem} — {FIX}"
    assert len(str(issue)) <= WIDTH


def test_one_dimension_is_refused():
    issue = misfit(Layer("norm", "linear", (6,), 0), Sparsity.parse(0.5), "in")
    assert str(issue) == "sparsity=0.5: norm is 1-D and sparsity needs at least 2-D — exclude it (targets.exclude)"


@pytest.mark.parametrize("sparsity", [0.5, "2:4", "block:2x2:0.5", "channel:0.5", "in_channel:0.5", "dense"])
@pytest.mark.parametrize("axis", ["in", "out", "kernel"])
@pytest.mark.parametrize(
    "kind, shape", [("linear", (6, 4)), ("conv1d", (4, 6)), ("conv", (4, 2, 2, 2)), ("conv", (3, 4, 3))]
)
def test_what_fits_can_be_masked_and_what_does_not_cannot(sparsity, axis, kind, shape):
    parsed = Sparsity.parse(sparsity)
    pattern = Pattern.of(parsed, kind, axis)
    if misfit(layer(kind, shape), parsed, axis) is None:
        assert pattern.holds(pattern.mask(torch.rand(shape)))
    else:
        with pytest.raises(ValueError):
            pattern.mask(torch.rand(shape))
