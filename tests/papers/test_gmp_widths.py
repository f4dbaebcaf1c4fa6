"""The narrow networks of paper=gmp hold as many weights as the pruned large ones of their row."""

from __future__ import annotations

import json

import pytest

from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.load import load

TABLE = next(table for table in load("gmp") if not table.name)
PIXELS = {"cpu": 784, "smoke": 64}
LARGE = {"cpu": 300, "smoke": 64}


def weights(pixels: int, width: int) -> int:
    """Weights of a perceptron with two hidden layers and ten classes, without biases."""
    return pixels * width + width * width + 10 * width


def narrow(tier: str):
    for cell in expand(TABLE, tier):
        options = dict(item.split("=", 1) for item in cell.overrides)
        if cell.column == "small-dense" and cell.seed == 0:
            yield float(TABLE.rows[cell.row][0].partition("=")[2]), json.loads(options["model.hidden"])


@pytest.mark.parametrize("tier", PIXELS)
def test_the_width_is_the_nearest(tier):
    found = list(narrow(tier))
    assert len(found) == {"cpu": 5, "smoke": 1}[tier]
    for sparsity, (width, again) in found:
        kept = (1 - sparsity) * weights(PIXELS[tier], LARGE[tier])
        nearest = min(range(1, LARGE[tier]), key=lambda h: abs(weights(PIXELS[tier], h) - kept))
        assert width == again == nearest, f"{sparsity}: {nearest} of {LARGE[tier]}"


def test_of_one_hidden_layer_the_width_falls_with_the_density():
    """d-h-c has h (d + c) weights, so 1 - s of them are the weights of a network of (1 - s) h."""
    for sparsity, width in ((0.8, 102), (0.9, 51), (0.95, 26)):
        kept = (1 - sparsity) * 512 * (784 + 10)
        assert width == round(512 * (1 - sparsity))
        assert width == min(range(1, 512), key=lambda h: abs(h * (784 + 10) - kept))
