"""What an id says, and what it leaves out."""

from __future__ import annotations

import pytest

from sparselab.config.compose import compose
from sparselab.config.schema import Cell, Common
from sparselab.core.options import Options, is_off, off
from sparselab.core.registry import REGISTRIES, Registry
from sparselab.running.identity import identified
from sparselab.running.planning import engine_of, part_of


def plan(config):
    engine = engine_of(config)
    return engine.plan(part_of(engine, config), [])


@pytest.mark.parametrize("method", ["dense", "random sparsity=0.5", "set sparsity=0.5"])
def test_an_option_that_is_off_leaves_the_id_as_it_was(method):
    config = compose(["model=mlp", *f"method={method}".split()]).config
    now = plan(config).id
    gone = []
    for group, registry in REGISTRIES.items():
        node = config.get(group)
        if isinstance(node, dict) and "name" in node:
            for option, field in registry[node["name"]].Options.model_fields.items():
                if option in node and is_off(field, node[option]):
                    gone.append(f"{group}.{option}")
                    del node[option]
    del config["metric"], config["targets"]["patterns"]
    assert {"dataset.pool", "dataset.train_on", "model.transform"} <= set(gone)
    assert ("method.draw" in gone) == ("random" in method)
    assert plan(config).id == now


def test_the_top_level_and_every_plug_in_leave_out_what_is_off(monkeypatch):
    """Options of the top level, of a group of options, of a plug-in, of one of several, and of one within another."""
    own: dict = {}
    for module in ("core.registry", "running.identity"):
        monkeypatch.setattr(f"sparselab.{module}.REGISTRIES", own)

    class Part:
        class Options(Options):
            more: int = off(1)

    class Toy:
        class Options(Options):
            size: int = 3
            new: float = off(0.5, gt=0, description="above 0")
            part: dict | None = None

    class Group(Options):
        new: bool = off(False)

    class Top(Common):
        toy: dict
        part: dict
        group: Group
        new: dict = off({})

    Registry("toy", "sparselab.running.loggers").register("a")(Toy)
    Registry("part", "sparselab.running.loggers").register("b")(Part)

    def shown(new, inner, several, group, top):
        toy = {"name": "a", "size": 3, "new": new, "part": {"name": "b", "more": inner}}
        config = {"toy": toy, "part": {"b": {"more": several}}, "group": {"new": group}, "new": top, "trainer": {}}
        return identified(config, Top)

    assert shown(0.5, 1, 1, False, {}) == {
        "toy": {"name": "a", "size": 3, "part": {"name": "b"}}, "part": {"b": {}}, "group": {}, "trainer": {},
    }  # fmt: skip
    assert shown(0.7, 2, 2, True, {"x": 1}) == {
        "toy": {"name": "a", "size": 3, "new": 0.7, "part": {"name": "b", "more": 2}}, "part": {"b": {"more": 2}},
        "group": {"new": True}, "new": {"x": 1}, "trainer": {},
    }  # fmt: skip


def test_every_group_of_a_cell_has_a_registry_of_its_name():
    """Else options that are off would stay in the ids of its cells."""
    groups = {key for key, field in Cell.model_fields.items() if str(field.annotation).startswith("dict[")}
    assert groups and {key for key in groups if key not in REGISTRIES} == set()


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
    assert abs(iso.cost["macs"] / iso.cost["macs_plain"] - 1) <= 1e-3
