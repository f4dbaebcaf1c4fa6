"""What an id says, and what it leaves out."""

from __future__ import annotations

import pytest

from sparselab.planning import engine_of, part_of
from sparselab.spec.compose import compose
from sparselab.spec.schema import OFF


def plan(config):
    engine = engine_of(config)
    return engine.plan(part_of(engine, config), [])


@pytest.mark.parametrize("method", ["dense", "random sparsity=0.5", "set sparsity=0.5"])
def test_an_option_that_is_off_leaves_the_id_as_it_was(method):
    config = compose(["model=mlp", *f"method={method}".split()]).config
    now = plan(config).id
    for dotted in OFF:
        *path, leaf = dotted.split(".")
        node = config
        for key in path:
            node = node.get(key) or {}
        node.pop(leaf, None)
    assert plan(config).id == now


def test_how_masks_are_drawn_is_part_of_the_id():
    exact, drawn = (compose(["model=mlp", "method=random", "sparsity=0.5", *more]).config
                    for more in ([], ["method.draw=bernoulli"]))  # fmt: skip
    assert plan(exact).id != plan(drawn).id


def test_iso_is_the_sparsity_that_it_stands_for():
    words = ["model=mlp", "method=random", "model.transform={name: sparse_wide, sparsity: 0.75}"]
    iso = plan(compose([*words, "sparsity=iso"]).config)
    said = plan(compose([*words, f"sparsity={iso.parts.sparsity}"]).config)
    assert iso.id == said.id
    assert iso.id != plan(compose([*words, "sparsity=0.3"]).config).id
    assert abs(iso.account["macs"] / iso.account["macs_plain"] - 1) <= 1e-3
