from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from project_tables import tables

from sparselab.core.errors import ConfigError
from sparselab.experiments.tables.claims import judge
from sparselab.experiments.tables.grid import expand, layout
from sparselab.experiments.tables.load import load, papers
from sparselab.experiments.tables.schema import TIERS

Break = Callable[[str, str], list[str]]


@pytest.fixture
def broken(configs: Path) -> Break:
    """The faults of the demo table after replacing a text in it."""

    def lines(old: str, new: str) -> list[str]:
        path = configs / "paper" / "demo.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ConfigError) as refused:
            load("demo", configs)
        return [str(issue) for issue in refused.value.issues]

    return lines


FILE = "configs/paper/demo.yaml"
CASES = {
    "axis at no row": (
        "reference: {row: dense", "axis: {at: {\"2:8\": 1}, label: updates, along: rows}\nreference: {row: dense",
        'axis.at: 2:8: the table has no such row — did you mean "2:4"?',
    ),
    "curve of no column": (
        "reference: {row: dense", "axis: {metric: test.loss, label: a, along: rows, columns: [sted]}\nreference: {row: dense",
        'axis column=sted: the table has no such column — did you mean "ste"?',
    ),
    "axis of two kinds": (
        "reference: {row: dense", "axis: {metric: test.loss, at: {dense: 1}, label: loss, along: rows}\nreference: {row: dense",
        "axis: takes a metric of the records, or a number at each row (or column) — write one of the two",
    ),
    "axis along nothing": (
        "reference: {row: dense", "axis: {at: {dense: 1}, label: loss}\nreference: {row: dense",
        "axis: does not say what its curves run along — write along: rows, or along: columns",
    ),
    "duplicate cell": (
        '"1:4": ["sparsity=1:4"]', '"1:4": ["sparsity=2:4"]',
        "tiers.cpu: (2:4, ste, seed 0) and (1:4, ste, seed 0) are the same cell — exclude one of them",
    ),
    "claim about no column": (
        "b: {column: ste}", "b: {column: stee}",
        'claims.C1 column=stee: the table has no such column — did you mean "ste"?',
    ),
    "claim about no row": (
        'a: {row: "2:4", column: srste}, margin', 'a: {row: "2:5", column: srste}, margin',
        'claims.C2 row=2:5: the table has no such row — did you mean "2:4"?',
    ),
    "no provenance": (
        "provenance: memory, ", "",
        "published (2:4, ste): 96 has no provenance — write provenance: where it was read",
    ),
    "empty provenance": (
        "provenance: memory", 'provenance: " "',
        "published (2:4, ste): 96 has no provenance — write provenance: where it was read",
    ),
    "unknown tier": ("  paper: {base", "  papre: {base", 'tiers.papre: no such tier — did you mean "paper"?'),
    "unquoted override": (
        '"2:4": ["sparsity=2:4"]', '"2:4": [sparsity=124]',
        'rows.2:4: sparsity=124: looks like an unquoted 2:4 — write "2:4" in quotes',
    ),
    "no sparsity": (
        '"2:4": ["sparsity=2:4"]', '"2:4": ["sparsity=3:2"]',
        'rows.2:4: sparsity=3:2: keeps 3 of every 2: N must be below M — for 2 of 3 write "2:3"',
    ),
    "unknown key": ("differences: [", "difference: [", 'difference: no such key — did you mean "differences"?'),
    "nested key": ("reason: no mask", "reeson: no mask", 'exclude.0.reeson: no such key — did you mean "reason"?'),
    "missing nested key": (", minutes: 3", "", "tiers.cpu.minutes: is required and has no value"),
    "unknown kind": ("kind: within", "kind: witin", 'claim=witin: no such claim — did you mean "within"?'),
    "claim's key": ("margin: 1.0}", "margn: 1.0}", 'claims.C2.margn: no such key — did you mean "margin"?'),
    "number as text": ("value: 97.0", 'value: "97.0"', "published.0.value=97.0: input should be a valid number"),
    "seed twice": ("seeds: [0, 1, 2]", "seeds: [0, 1, 1]", "tiers.cpu.seeds=[0, 1, 1]: the same seed twice"),
    "no seeds": ("seeds: [0, 1, 2]", "seeds: []", "tiers.cpu.seeds=[]: list should have at least 1 item"),
    "published twice": (
        "column: ste, value: 96.0", "column: srste, value: 96.0",
        "published (2:4, srste): two published numbers for one cell — keep the one with the better provenance",
    ),
    "published and excluded": (
        'row: "2:4", column: ste, value', "row: dense, column: ste, value",
        "published (dense, ste): the cell is excluded (no mask) — delete one of the two",
    ),
    "no override": (
        "base: [dataset=digits]", "base: [dataset]",
        "base: dataset: not an override — write key=value, like method=srste",
    ),
    "seed in overrides": (
        "base: [dataset=digits]", "base: [seed=1]",
        "base: seed=1: seed is set by the table itself — delete it (seeds: tiers.<tier>.seeds)",
    ),
    "excludes all": (
        "{rows: [dense], columns: [ste, srste], reason: no mask}", "{reason: x}", "exclude.1: excludes every cell",
    ),
    "no reference": (
        "reference: {row: dense,", "reference: {row: dens,",
        'reference row=dens: the table has no such row — did you mean "dense"?',
    ),
    "band without ends": (
        "kind: within, text: 2:4 matches dense, a:", 'kind: ratio, text: x, b: {column: ste}, a:',
        "claims.C2.margin: no such key",
    ),
    "tier of a claim": (
        "combine: mean}", "combine: mean, tiers: [cpuu]}",
        'claims.C1.tiers=cpuu: no such tier — did you mean "cpu"?',
    ),
    "row of deterministic cells": (
        "differences: [", "deterministic: [{rows: [dens], reason: counted}]\ndifferences: [",
        'deterministic.1 row=dens: the table has no such row — did you mean "dense"?',
    ),
    "basis of a claim": (
        "combine: mean}", "combine: mean, basis: proved}",
        "claims.C1.basis",
    ),
    "tier of rule 1": (
        "combine: mean}", "combine: mean, rule1: {cpuu: holds}}",
        'claims.C1.rule1.tiers=cpuu: no such tier — did you mean "cpu"?',
    ),
    "pooled spread": ("differences: [", "pool: columns\ndifferences: [", "pool: no such key"),
    "claim on what the id leaves out": (
        "column: srste}, margin: 1.0", "column: srste}, metric: val.loss, margin: 1.0",
        "claims.C2.metric=val.loss: is there only where a run validates, and trainer.evals is no part of an id",
    ),
    "metric that the id leaves out": ("key: test.accuracy", "key: val.accuracy", "metric.key=val.accuracy: is there only"),
    "column that the id leaves out": (
        '"1:4": ["sparsity=1:4"]', '"1:4": ["sparsity=2:4", trainer.evals=2]',
        "rows.1:4: trainer.evals=2: is no part of an id: it makes no other cell — write it in base",
    ),
    "name inside": ("differences: [", "name: x\ndifferences: [", "name: is the file's own name — delete the line"),
    "an old key": ("differences: [", "beside: []\ndifferences: [", "beside: is called extra_columns now — write extra_"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_tables_are_refused_in_one_line(broken: Break, case: str):
    old, new, expected = CASES[case]
    lines = broken(old, new)
    assert any(line.startswith(f"{FILE} {expected}"[:150]) for line in lines), lines
    assert all("\n" not in line and len(line) <= 160 for line in lines)


YAML_CASES = {
    "base 60": ('  "2:4": [', "  2:4: [", ":6: an unquoted 2:4 is a base-60 number in YAML — write \"2:4\""),
    "key twice": ("rows:\n", "base: []\nrows:\n", ":4: the key base is there twice — keep one"),
    "alias": ("base: [dataset=digits]", "base: &a [dataset=digits]\nextra: *a", ":3: YAML anchors and aliases are not allowed"),
    "no yaml": ("base: [dataset=digits]", "base: [dataset=digits", " is not YAML"),
    "no mapping": ("source: {", "- {", " is not"),
}  # fmt: skip


@pytest.mark.parametrize("case", YAML_CASES)
def test_bad_files_name_the_line(broken: Break, case: str):
    old, new, expected = YAML_CASES[case]
    line = broken(old, new)[0]
    assert line.startswith(FILE)
    assert expected in line


def test_all_faults_come_at_once(broken: Break):
    lines = broken("b: {column: ste}, combine: mean}", "b: {column: x}, combine: mean, tiers: [y]}")
    assert len(lines) == 2


def test_two_files_with_one_output(configs: Path):
    (configs / "paper" / "demo.yml").write_text((configs / "paper" / "demo.yaml").read_text())
    with pytest.raises(ConfigError, match=r"configs/paper/demo.yml: claims the output of configs/paper/demo.yaml"):
        load("demo", configs)


def test_further_tables_of_a_paper(configs: Path):
    (configs / "paper" / "demo").mkdir()
    (configs / "paper" / "demo" / "more.yaml").write_text((configs / "paper" / "demo.yaml").read_text())
    assert [table.output for table in load("demo", configs)] == ["demo", "demo/more"]
    assert [table.label for table in load("demo/more", configs)] == ["paper=demo/more"]
    with pytest.raises(ConfigError, match='paper=demo/mor: demo has no such table — did you mean "more"'):
        load("demo/mor", configs)


def test_an_unknown_paper_names_the_nearest(configs: Path):
    assert papers(configs) == ["demo"]
    with pytest.raises(ConfigError, match='paper=demoo: no such paper — did you mean "demo"'):
        load("demoo", configs)


def test_every_table_of_the_project_is_sound():
    known = tables()
    assert {"srste", "gmp", "random_pruning"} <= {table.output for table in known}
    for table in known:
        for tier in table.tiers:
            assert expand(table, tier)
        for claim in table.claims:  # each claim is about cells of at least one tier
            assert any(claim.bounds(layout(table, tier)) for tier in table.tiers), claim.text
    for slug in ("srste", "gmp", "random_pruning"):
        (table,) = [table for table in known if table.output == slug]
        assert tuple(table.tiers) == TIERS
        assert all(item.provenance for item in table.published)


NAMED = """claims:
  wins: {kind: order, text: srste beats ste, a: {column: srste}, relation: ">", b: {column: ste}, combine: mean}
  dense.too: {kind: within, text: 2:4 matches dense, a: {row: "2:4", column: srste}, margin: 1.0}
"""


def test_claims_are_called_as_they_are_written(configs: Path):
    path = configs / "paper" / "demo.yaml"
    assert [claim.id for claim in load("demo", configs)[0].claims] == ["C1", "C2"]
    text = path.read_text().partition("claims:")[0]
    path.write_text(text + NAMED)
    (table,) = load("demo", configs)
    assert [claim.id for claim in table.claims] == ["wins", "dense.too"]
    found = judge(table.claims, "cpu", layout(table, "cpu"), lambda metric: {})
    assert [verdict.name for verdict in found] == ["wins", "dense.too"]


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            "column: ste}",
            "column: stee}",
            'claims.wins column=stee: the table has no such column — did you mean "ste"?',
        ),
        ("wins:", "it wins:", "claims.it wins: is no name for a claim — begin with a letter"),
        (
            "{kind: within",
            "{id: C9, kind: within",
            "claims.dense.too.id: a claim is named by its key — write C9: {kind: …}",
        ),
        ("kind: within, ", "", "claims.dense.too: has no kind"),
    ],
)
def test_a_named_claim_s_faults_are_under_its_name(before: str, after: str, line: str, configs: Path):
    path = configs / "paper" / "demo.yaml"
    path.write_text(path.read_text().partition("claims:")[0] + NAMED.replace(before, after))
    with pytest.raises(ConfigError) as refused:
        load("demo", configs)
    assert any(f"demo.yaml {line}" in str(issue) for issue in refused.value.issues), list(
        map(str, refused.value.issues)
    )


def test_published_numbers_are_the_dossiers():
    numbers = {t.output: {(p.row, p.column): (p.value, p.verified) for p in t.published} for t in tables()}
    assert numbers["srste"]["4:8", "srste"] == (77.4, True)
    assert numbers["srste"]["2:4", "asp"] == (76.8, False)
    assert numbers["gmp"]["87.5 %", "large-sparse"] == (74.6, True)
    assert numbers["random_pruning"]["ResNet-20", "ERK 0.9"] == (87.79, True)
    assert numbers["random_pruning"]["ResNet-110", "uniform+ 0.9"] == (91.54, True)
    assert ("ResNet-20", "ERK 0.1") not in numbers["random_pruning"]  # hidden in the figure
    assert all(not verified for _, verified in numbers["gmp/mobilenet"].values())


def test_the_commands_import_no_torch():
    code = (
        "import sys, sparselab.cli.table, sparselab.cli.list, sparselab.cli.report as r\n"
        "import sparselab.experiments.tables.render, sparselab.experiments.tables.report, sparselab.experiments.tables.figure\n"
        "from sparselab.experiments.tables.load import load_all; load_all()\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'pandas', 'sklearn', 'transformers', 'timm', 'jinja2', 'numpy'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_claim_rests_on_a_number_that_nobody_could_check():
    """A bound on a cell whose published number is unverified says what else it is compared with."""
    for table in tables():
        doubtful = {(item.row, item.column) for item in table.published if not item.verified}
        for claim in table.claims:
            on_published = claim.kind == "bound" and claim.metric is None  # published numbers are of the table's metric
            for point in claim.points() if on_published else []:
                if (point.row, point.column) in doubtful:
                    assert "released code" in claim.text or "a threshold of ours" in claim.text, (
                        table.label,
                        claim.text,
                    )
        for item in table.published:
            assert not (item.verified and "memory" in item.provenance), (table.label, item)
