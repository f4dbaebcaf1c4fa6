"""The JSON Schema for editors: up to date, true of every table of the project, and stricter than "any mapping"."""

from __future__ import annotations

import copy

import jsonschema
import pytest

from sparselab.config.members import CONFIGS
from sparselab.experiments.tables import json_schema
from sparselab.experiments.tables.overrides import listed
from sparselab.experiments.tables.yamlfile import read_yaml

FILES = sorted((CONFIGS / "paper").rglob("*.yaml"))


@pytest.fixture(scope="module")
def validator():
    schema = json_schema.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_file_is_up_to_date():
    kept = (CONFIGS / "paper" / json_schema.NAME).read_text(encoding="utf-8")
    assert kept == json_schema.text(), "run: python scripts/paper_schema.py"


def test_every_table_of_the_project_is_valid(validator):
    wrong = {path.name: [e.message for e in validator.iter_errors(read_yaml(path, path.name))] for path in FILES}
    assert {name: errors for name, errors in wrong.items() if errors} == {}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table.update(rowz={}),
        lambda table: table.pop("metric"),
        lambda table: table["metric"].update(better="bigger"),
        lambda table: table["claims"][0].update(kind="certain"),
        lambda table: table["claims"][0].update(marginn=1),
        lambda table: table["tiers"].update(huge=table["tiers"]["cpu"]),
        lambda table: table["source"].update(arxiv="2102"),
    ],
)
def test_mistakes_are_seen(validator, spoil):
    table = copy.deepcopy(read_yaml(CONFIGS / "paper" / "srste.yaml", "srste.yaml"))
    spoil(table)
    assert list(validator.iter_errors(table))


def test_a_mapping_of_overrides_is_the_list_that_one_would_type():
    written = {"method": "srste", "optim.lr": 0.1, "model.hidden": [8, 8], "sparsity": None, "trainer.track_masks": True,
               "targets.patterns": {"@q": "1:8"}, "optim.weight_decay": "5e-4"}  # fmt: skip
    assert listed(written) == ["method=srste", "optim.lr=0.1", "model.hidden=[8,8]", "sparsity=null",
                               "trainer.track_masks=true", "targets.patterns={@q: 1:8}", "optim.weight_decay=5e-4"]  # fmt: skip
    assert listed(["a=1"]) == ["a=1"]
    assert listed({"targets.include": ["a, b", "@q", "*.fc"]}) == ["targets.include=['a, b',@q,'*.fc']"]


def test_claims_have_names_or_numbers(validator):
    table = copy.deepcopy(read_yaml(CONFIGS / "paper" / "srste.yaml", "srste.yaml"))
    named = {**table, "claims": {"wins": table["claims"][0]}}
    assert not list(validator.iter_errors(named))
    assert list(validator.iter_errors({**table, "claims": {"it wins": table["claims"][0]}}))
    assert list(validator.iter_errors({**table, "claims": {"wins": {**table["claims"][0], "marginn": 1}}}))
