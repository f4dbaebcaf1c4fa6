"""What an id says, and what it leaves out."""

from __future__ import annotations

from sparselab.planning import engine_of, part_of
from sparselab.spec.compose import compose
from sparselab.spec.schema import OFF


def plan(config):
    engine = engine_of(config)
    return engine.plan(part_of(engine, config), [])


def test_an_option_that_is_off_leaves_the_id_as_it_was():
    config = compose(["model=mlp", "method=dense"]).config
    now = plan(config).id
    for dotted in OFF:
        *path, leaf = dotted.split(".")
        node = config
        for key in path:
            node = node[key]
        node.pop(leaf, None)
    assert plan(config).id == now


def test_iso_is_the_sparsity_that_it_stands_for():
    words = ["model=mlp", "method=random", "model.transform={name: sparse_wide, sparsity: 0.75}"]
    iso = plan(compose([*words, "sparsity=iso"]).config)
    said = plan(compose([*words, f"sparsity={iso.parts.sparsity}"]).config)
    assert iso.id == said.id
    assert iso.id != plan(compose([*words, "sparsity=0.3"]).config).id
    assert abs(iso.account["macs"] / iso.account["macs_plain"] - 1) <= 1e-3
