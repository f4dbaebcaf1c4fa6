"""A table of five seeds: its claims by kind, rule 1 beside rule 2, the seeds that are missing, and the ledger's totals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparselab.core.errors import ConfigError
from sparselab.core.options import validate
from sparselab.experiments.tables import render
from sparselab.experiments.tables.claims import CLAIMS
from sparselab.experiments.tables.entries import Entry
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.ledger import rows_of, to_markdown
from sparselab.experiments.tables.load import load
from sparselab.experiments.tables.results import dump
from sparselab.experiments.tables.schema import Deterministic, ExtraColumn, Reference, Table
from sparselab.experiments.tables.seeds import with_seeds
from sparselab.experiments.tables.summary import Summary, summarise

TWO_FOUR = {"row": "2:4"}
NOISE = {"ste": (0.5, -0.3, 0.1, -0.4, 0.2), "srste": (0.1, -0.2, 0.3, 0.0, -0.1), "dense": (0.0,) * 5}


def claim(kind: str, **options: Any) -> Any:
    return validate(CLAIMS[kind], {"kind": kind, "text": f"a {kind}", **options}, "claim")


@pytest.fixture
def five(table: Table, recorded: Any) -> Summary:
    """srste two points above ste in every seed, less what both scatter; one exact claim and one that is reported."""
    beats = {"a": {**TWO_FOUR, "column": "srste"}, "b": {**TWO_FOUR, "column": "ste"}, "relation": ">"}
    claims = [
        claim("order", headline=True, rule1={"cpu": "inconclusive"}, **beats),
        claim("order", margin=1.9, rule1={"cpu": "inconclusive"}, **beats),
        claim(
            "ratio", basis="exact", metric="account.macs", a=beats["a"], b={"row": "dense", "column": "dense"}, high=0.5
        ),
        claim("order", basis="reported", metric="far", a=beats["a"], b=beats["b"], relation="<"),
    ]
    far = ExtraColumn(
        label="far", keys=["test.accuracy", "test.loss"], to=Reference(row="dense", column="dense"), scale=100
    )
    table = with_seeds(table, "cpu", "0,1,2,3,4").model_copy(
        update={
            "claims": claims,
            "extra_columns": [far],
            "deterministic": [Deterministic(metrics=["account.macs"], reason="counted")],
        }
    )
    level = {"dense": 0.98, "srste": 0.97, "ste": 0.95}
    entries = [
        Entry(cell, recorded(cell, round(level[cell.column] + NOISE[cell.column][cell.seed] / 100, 6)))
        for cell in expand(table, "cpu")
    ]
    return summarise(table, "cpu", entries)


def test_claims_by_kind_with_rule_1_beside_and_the_seeds_that_are_missing(five: Summary):
    assert [str(v) for v in five.verdicts] == ["holds", "inconclusive (5 seeds)", "holds", "holds"]
    text = render.to_markdown(five)
    assert "|  | the paper says | kind | verdict | rule 1 | evidence |" in text
    assert "| C1 | a order | headline | **holds** | inconclusive | 2:4 srste − 2:4 ste = +2.00" in text
    assert (
        "| C3 | a ratio | exact | **holds** |  | 0.5·dense dense − 2:4 srste = +0.00, needs ≥ 0.00; no seed can" in text
    )
    assert "; 90 % power would take " in next(line for line in text.splitlines() if line.startswith("| C2 |"))
    assert (
        "- Verdicts by rule 2: contrasts are tested seed by seed, with 5 seeds at least. The rule was chosen after"
        in text
    )
    plain = five.table.model_copy(update={"claims": [claim("within", a={**TWO_FOUR, "column": "srste"}, margin=2.0)]})
    entries = [entry for line in five.lines for entry in line.entries]
    other = render.to_markdown(summarise(plain, "cpu", entries))
    assert "|  | the paper says | verdict | evidence |" in other and "was chosen after" not in other


def test_a_claim_may_read_a_further_column_seed_by_seed(five: Summary):
    """Distance to dense of seed 0: accuracies 97.1 and 98 and their complements give 0.9; of ste 95.5, so 2.5."""
    assert five.verdicts[3].evidence.startswith("2:4 ste − 2:4 srste = +2.00 ± ")
    assert five.verdicts[3].claim.metric == "far"


def test_the_ledger_counts_empirical_claims_and_names_the_others(five: Summary):
    assert rows_of([five])[0][5:] == ["1", "0", "1", "0", "1 of 1", "1 of 1"]
    text = to_markdown([five])
    assert (
        "| cpu | empirical | 1 | 0 | 1 | 0 |" in text and "| cpu | empirical, headlines only | 1 | 0 | 0 | 0 |" in text
    )
    assert "| cpu | exact | 1 | 0 | 0 | 0 |" in text and "| cpu | reported | 1 | 0 | 0 | 0 |" in text
    changed = text.split("## Verdicts that rule 1 gave otherwise")[1].split("##")[0]
    assert "| demo | cpu | C1 | a order | inconclusive | holds |" in changed and "C2" not in changed
    assert "| demo | cpu | C2 | a order |  | 5 | " in text.split("## Inconclusive claims")[1]


def test_what_all_seeds_share_is_said(five: Summary):
    tier = five.table.tiers["cpu"].model_copy(update={"shared": "one start"})
    table = five.table.model_copy(update={"tiers": {"cpu": tier}})
    assert "All seeds share one start: what is concluded here is concluded about it." in render.notes(
        summarise(table, "cpu", [])
    )


def test_check_names_the_seeds_that_inconclusive_claims_would_take(fill: Any, tmp_path: Path, monkeypatch: Any):
    from sparselab.cli.arguments import parse
    from sparselab.cli.check import undecided

    monkeypatch.chdir(tmp_path)
    asked = ["paper=sparse_ift/resnet", "tier=smoke", "seeds=0,1,2,3,4"]
    assert undecided(parse(asked), [], tmp_path / "results") == []
    table = with_seeds(load("sparse_ift/resnet")[0], "smoke", "0,1,2,3,4")
    kept = tmp_path / "results" / "sparse_ift" / "smoke" / "resnet"
    kept.mkdir(parents=True)
    (kept / "records.jsonl").write_text(dump(fill(table, "smoke")))
    five = undecided(parse(asked), [], tmp_path / "results")
    assert five and all(" inconclusive (5 seeds): 90 % power would take " in line for line in five)
    one = undecided(parse(["paper=sparse_ift/resnet", "tier=smoke", "seeds=3"]), [], tmp_path / "results")
    assert (
        "sparse_ift/resnet C1 inconclusive (too few seeds): nothing is known of its spread yet — Sparse Wide" in one[0]
    )


def test_seeds_on_the_command_line(table: Table):
    assert with_seeds(table, "cpu", "+5").tiers["cpu"].seeds == [0, 1, 2, 3, 4, 5, 6, 7]
    assert with_seeds(table, "cpu", "7,3").tiers["cpu"].seeds == [7, 3] and table.tiers["cpu"].seeds == [0, 1, 2]
    assert {cell.seed for cell in expand(with_seeds(table, "cpu", "+1"), "cpu")} == {0, 1, 2, 3}
    for text in ("+0", "5+", "-1", "1,,2", "", "+5,6", "3,x"):
        with pytest.raises(
            ConfigError, match="is neither a number of further seeds nor a list of seeds — write seeds="
        ):
            with_seeds(table, "cpu", text)
    with pytest.raises(ConfigError, match="the same seed twice"):
        with_seeds(table, "cpu", "3,3")
    with pytest.raises(ConfigError, match="more than 1,000 seeds"):
        with_seeds(table, "cpu", "+9999")
    with pytest.raises(ConfigError, match="has no such tier"):
        with_seeds(table, "gpu", "+5")
