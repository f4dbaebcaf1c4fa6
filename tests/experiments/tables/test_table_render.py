from __future__ import annotations

import csv
import io

import pytest

from sparselab.experiments.tables import render
from sparselab.experiments.tables.entries import Entry
from sparselab.experiments.tables.figure import _path, figure_svg
from sparselab.experiments.tables.grid import expand
from sparselab.experiments.tables.ledger import rows_of, to_markdown
from sparselab.experiments.tables.report import html
from sparselab.experiments.tables.schema import Axis, Table
from sparselab.experiments.tables.styles import styles
from sparselab.experiments.tables.summary import requested, summarise


def test_numbers_as_printed():
    assert render.quantity(4_120_000) == "4.12 M"
    assert render.quantity(999) == "999"
    assert render.quantity(None) == "–"
    assert render.fixed(-0.304, 2, sign=True) == "−0.30"
    assert render.fixed(-0.001, 2, sign=True) == "+0.00"


def test_the_sparsity_that_is_asked_for():
    assert requested(["method=dense"]) == requested(["sparsity=null"]) == 0
    assert requested(["sparsity=1:4"]) == requested(["sparsity=in_channel:0.75"]) == 0.75
    assert requested(["sparsity=iso"]) is None
    assert requested(["sparsity=1:4", "targets.patterns={@q: 1:8}"]) is None  # not one number


def test_a_line_by_hand(table: Table, entries: list[Entry]):
    summary = summarise(table, "cpu", entries)
    line = summary.lines[2]
    assert line.place == ("2:4", "srste")
    assert render.texts(line, table) == [
        "2:4", "srste", "97.00 ± 0.10 (3)", "97.00", "+0.00", "99.0 %", "0.5000", "500", "1 M", "0.667",
    ]  # fmt: skip
    assert render.verdicts(line) == "C1 inconclusive, C2 inconclusive"
    assert line.flops_by_seed == (2 / 3, 2 / 3, 2 / 3)


def test_further_columns_show_other_numbers_seconds_and_distances(table: Table, entries: list[Entry]):
    """By hand: a distance is of means (|98 - 97| and |2 - 3| points, 1 on average), zero of a cell to itself."""
    import yaml

    from sparselab.experiments.tables.schema import ExtraColumn

    for entry in entries:
        entry.record["times"] = {"fit": 2.0 + entry.cell.seed}
    columns = """
    - {label: loss, keys: [test.loss], scale: 100, digits: 1}
    - {label: seconds, keys: [times.fit], digits: 1}
    - {label: distance, keys: [test.accuracy, test.loss], to: {row: dense, column: dense}, scale: 100}
    """
    beside = [ExtraColumn(**column) for column in yaml.safe_load(columns)]
    summary = summarise(table.model_copy(update={"extra_columns": beside}), "cpu", entries)
    line = summary.lines[2]
    assert render.texts(line, summary.table)[10:] == ["3.0 ± 0.1", "3.0 ± 1.0", "1.00"]
    assert render.texts(summary.lines[0], summary.table)[12] == "0.00"
    assert render.headers(summary)[9:] == [
        "training FLOPs × dense",
        "loss",
        "seconds",
        "distance",
        "verdicts",
        "records",
    ]
    head = next(text for text in render.to_markdown(summary).splitlines() if text.startswith("| row"))
    assert head.endswith("| loss | seconds | distance | verdicts | records |")
    assert next(csv.reader(io.StringIO(render.to_csv(summary))))[-5:] == [
        "loss",
        "seconds",
        "distance",
        "verdicts",
        "records",
    ]
    summary = summarise(summary.table, "cpu", entries[3:])  # without the cell that the distance is to
    assert render.texts(summary.lines[2], summary.table)[12] == "–"


def test_an_unverified_number_is_marked_and_never_compared(table: Table, entries: list[Entry]):
    ste = summarise(table, "cpu", entries).lines[1]
    assert render.texts(ste, table)[3:5] == ["96.00 (?)", "–"]


def test_numbers_of_another_setting_are_not_compared(table: Table, entries: list[Entry]):
    paper = summarise(table, "paper", []).lines
    assert render.texts(paper[2], table)[2:5] == ["not run", "97.00", "–"]
    other = table.model_copy(update={"tiers": {"cpu": table.tiers["cpu"].model_copy(update={"comparable": False})}})
    assert summarise(other, "cpu", entries).lines[2].difference is None


def test_missing_and_failed_runs_show(table: Table, entries: list[Entry]):
    some = entries[:1] + entries[3:5]
    lines = summarise(table, "cpu", some).lines
    assert render.ours(lines[0], 2) == "97.90 (1 of 3)"
    assert render.ours(lines[1], 2) == "94.95 ± 0.07 (2 of 3)"
    assert render.ours(lines[2], 2) == "not run"
    failed = Entry(entries[0].cell, {**entries[0].record, "status": "failed"})
    assert render.ours(summarise(table, "cpu", [failed]).lines[0], 2) == "failed"


def test_records_of_different_data_are_told(table: Table, entries: list[Entry]):
    for entry in entries:
        entry.record["data"]["content"] = "one"
    assert not any("the same digits" in note for note in render.notes(summarise(table, "cpu", entries)))
    entries[0].record["data"]["content"] = "other"
    assert any("the same digits" in note for note in render.notes(summarise(table, "cpu", entries)))
    entries[0].record["config"] = {"dataset": {"limit_test": 10, "test_draw": 3}}  # another draw is other data
    assert not any("the same digits" in note for note in render.notes(summarise(table, "cpu", entries)))


@pytest.mark.parametrize(
    ("times", "words", "alone"),
    [
        ({"steps": 5, "lineage_steps": 8}, [], True),
        ({"steps": 5, "lineage_steps": 5}, ["model.weights={cell: {trainer.max_steps: 0}}"], False),  # never trained
        ({}, ["model.weights={cell: {method: dense}}"], True),  # of an older record, by its words
        ({}, ["model.weights=cell:method=dense"], True),
        ({}, [], False),
    ],
)
def test_a_cost_without_that_of_the_cells_before_it_says_so(table: Table, entries: list[Entry], times, words, alone):
    made = table.model_copy(update={"base": [*table.base, *words]})
    found = [
        Entry(cell, {**entry.record, "times": times}) for cell, entry in zip(expand(made, "cpu"), entries, strict=True)
    ]
    summary = summarise(made, "cpu", found)
    assert summary.cost_label == "training FLOPs × dense" + ", last phase alone" * alone
    assert any("without what the cells that it starts from took" in note for note in render.notes(summary)) is alone
    assert (", last phase alone" in html([summary])) is alone


@pytest.mark.parametrize("every", [True, False])
def test_costs_of_all_phases_stand_where_every_record_has_them(table: Table, entries: list[Entry], every: bool):
    """Older records count their own run alone; a table of both kinds compares what all of them have."""
    for number, entry in enumerate(entries):
        own = entry.record["account"]["flops_train"]
        entry.record["times"] = {
            "steps": 5,
            "lineage_steps": 8,
            **({"lineage_flops": 10 * own} if every or number else {}),
        }
    summary = summarise(table, "cpu", entries)
    assert summary.cost_label == f"training FLOPs × dense, {'all phases' if every else 'last phase alone'}"
    for entry in entries:
        entry.record["times"] = {}
    own = [line.flops for line in summarise(table, "cpu", entries).lines]
    assert [line.flops for line in summary.lines] == pytest.approx(own)  # ten times as much of each is as much of dense


def test_nan_never_enters_a_table(table: Table, entries: list[Entry]):
    entries[0].record["metrics"]["test.accuracy"] = float("nan")
    assert len(summarise(table, "cpu", entries).lines[0].values) == 2


def test_lower_is_better_turns_recovery_round(table: Table, entries: list[Entry]):
    lower = table.model_copy(update={"metric": table.metric.model_copy(update={"better": "lower"})})
    line = summarise(lower, "cpu", entries).lines[1]
    assert line.recovery is not None
    assert round(line.recovery, 2) == round(100 * 98 / 95, 2)


def test_markdown_by_hand(table: Table, entries: list[Entry]):
    text = render.to_markdown(summarise(table, "cpu", entries))
    assert text.startswith(
        "# A paper (2021), Table 2, tier cpu\n\narXiv 2102.04010\n\n- 15 of 15 runs. top-1 %, higher"
    )
    assert "- Data: digits.\n" in text
    assert "| 2:4 | ste | 95.00 ± 0.10 (3) | 96.00 (?) | – |" in text
    assert (
        "| C1 | srste beats ste | **inconclusive (too few seeds)** | mean of 2 × (srste − ste) = +2.00 ± 0.02 (se over 3 seeds)"
        in text
    )
    assert "## Not in the table\n\n- ste (dense); srste (dense): no mask\n- dense (2:4, 1:4): one dense cell\n" in text
    assert "- ste (2:4): memory (not checked)\n" in text
    assert all(f"`{entry.id}`" in text for entry in entries)


def test_csv_reads_back(table: Table, entries: list[Entry]):
    rows = list(csv.DictReader(io.StringIO(render.to_csv(summarise(table, "cpu", entries)))))
    assert len(rows) == 5
    assert rows[2]["row"] == "2:4"
    assert float(rows[2]["mean"]) == 97.0
    assert rows[2]["records"].split() == [entry.id for entry in entries[6:9]]
    assert rows[1]["difference"] == ""


def test_bytes_do_not_depend_on_the_order_of_the_records(table: Table, entries: list[Entry]):
    one, other = summarise(table, "cpu", entries), summarise(table, "cpu", entries[::-1])
    assert render.to_markdown(one) == render.to_markdown(other)
    assert figure_svg(one) == figure_svg(other)
    svg = figure_svg(one)
    assert svg.startswith(b"<?xml")
    assert b"dc:date" not in svg
    assert b"Matplotlib" not in svg


def test_sixteen_curves_are_told_apart_by_the_parts_of_their_names():
    names = [f"MLP {width} · {method}" for width in (16, 32, 64, 128) for method in ("ERK", "uniform", "SNIP", "GraSP")]
    found = dict(zip(names, styles(names), strict=True))
    assert len(set(found.values())) == 16
    assert {style.colour for name, style in found.items() if name.endswith("ERK")} == {0}
    assert {(style.shape, style.dash) for name, style in found.items() if name.startswith("MLP 64")} == {(2, 2)}
    plain = styles([f"method {number}" for number in range(20)])
    assert len(set(plain)) == 20 and {style.dash for style in plain[:8]} == {0}
    assert len({(style.colour, style.shape) for style in plain}) == 20, "single points have no dash"
    tall = [f"{first}, {second}" for first in "abcdefgh" for second in "xy"]
    assert {style.colour for style in styles(tall)} == set(range(8)), "the part with more values gets the colours"


def test_one_seed_has_no_error_bar_and_a_curve_never_goes_up_and_down(table: Table, entries: list[Entry]):
    assert _path([(0.5, 1.0), (0.5, 3.0), (0.9, 5.0)]) == ([0.5, 0.9], [2.0, 5.0])
    assert _path([(0.0, 1.0), (0.0, 2.0), (0.0, 3.0), (1.0, 0.0)]) == ([], [])
    decades = [(1e4, 1.0), (1e8, 2.0), (1e12, 3.0), (1e19, 4.0)]  # on a linear axis three of them would be at one place
    assert _path(decades) == ([], []) and _path(decades, log=True) == ([1e4, 1e8, 1e12, 1e19], [1.0, 2.0, 3.0, 4.0])
    assert _path([(10.0, 1.0), (10.01, 3.0), (1000.0, 5.0)], log=True)[1] == [2.0, 5.0]
    one, all_seeds = (figure_svg(summarise(table, "cpu", list(kept))) for kept in (entries[::3], entries))
    assert one.count(b"LineCollection") == 0 < all_seeds.count(b"LineCollection")


def test_markdown_and_csv_defuse_hostile_names(table: Table, entries: list[Entry]):
    evil = "=1+1|<script>`x`"
    entries[0].record["id"] = evil
    summary = summarise(table, "cpu", entries)
    assert evil not in render.to_markdown(summary)
    assert "\\|&lt;script&gt;" in render.to_markdown(summary)
    assert "'=1+1" in render.to_csv(summary)


def test_curves_start_at_the_dense_reference(table: Table, entries: list[Entry]):
    curves = summarise(table, "cpu", entries).curves()
    assert {name: [line.place for line in lines] for name, lines in curves.items()} == {
        "ste": [("dense", "dense"), ("2:4", "ste"), ("1:4", "ste")],
        "srste": [("dense", "dense"), ("2:4", "srste"), ("1:4", "srste")],
    }


def test_the_ledger_has_a_row_for_what_was_run_and_for_what_was_not(table: Table, entries: list[Entry]):
    full, empty = summarise(table, "cpu", entries), summarise(table, "paper", [])
    assert [row[3:] for row in rows_of([full, empty])] == [["cpu", "15 of 15", "0", "0", "2", "0", "–", "–"]]
    assert [row[3:] for row in rows_of([empty])] == [["not run", "0", "0", "0", "0", "2", "–", "–"]]
    assert "[cpu](demo/cpu/table.md)" in to_markdown([full, empty])


def test_a_table_without_networks_shows_only_what_it_has_and_its_own_axis(table: Table, entries: list[Entry]):
    """Records of an engine without a network: no MACs, no training; the figure is drawn against a number of theirs."""
    axis = Axis(metric="test.rounds", label="rounds", log=True)
    table = table.model_copy(update={"axis": axis, "published": [], "reference": None, "claims": []})
    rounds = {place: 10.0**number for number, place in enumerate(dict.fromkeys(e.cell.place for e in entries))}
    for entry in entries:
        entry.record["metrics"]["test.rounds"] = rounds[entry.cell.place]
        entry.record.update(sparsity={}, account={"work": 1.0})
    summary = summarise(table, "cpu", entries)
    head = next(line for line in render.to_markdown(summary).splitlines() if line.startswith("| row"))
    assert head == "| row | column | ours ± sd (n) | verdicts | records |"
    assert [line.x for line in summary.lines] == list(rounds.values())
    assert summary.axis == ("rounds", True) and not summary.trained
    assert b"<svg" in figure_svg(summary) and figure_svg(summary) != figure_svg(
        summarise(table.model_copy(update={"axis": "sparsity"}), "cpu", entries)
    )


def test_a_table_may_say_that_each_column_or_row_is_a_curve(table: Table, entries: list[Entry]):
    for along, names in (("rows", {e.cell.column for e in entries}), ("columns", {e.cell.row for e in entries})):
        axis = Axis(metric="test.accuracy", label="a number", along=along)
        own = table.model_copy(update={"axis": axis, "published": [], "reference": None, "claims": []})
        assert set(summarise(own, "cpu", entries).curves()) == names


def test_a_figure_may_show_some_cells_and_say_which_claims_it_is_about(table: Table, entries: list[Entry]):
    claims = [claim.id for claim in table.claims]
    axis = Axis(
        metric="test.accuracy", label="a number", along="rows", rows=["2:4", "1:4"], columns=["ste"], claims=claims[:1]
    )
    own = table.model_copy(update={"axis": axis, "published": [], "reference": None})
    summary = summarise(own, "cpu", entries)
    assert {name: [line.place for line in lines] for name, lines in summary.curves().items()} == {
        "ste": [("2:4", "ste"), ("1:4", "ste")]
    }
    absent = own.model_copy(update={"axis": axis.model_copy(update={"rows": ["no such"]})})
    assert {line.place for lines in summarise(absent, "cpu", entries).curves().values() for line in lines} == {
        e.cell.place for e in entries
    }
    first, *rest = summary.verdicts
    assert summary.shown == [f"{first.name} {first}: {first.claim.text}"] and rest
    silent = own.model_copy(update={"axis": axis.model_copy(update={"claims": []})})
    assert figure_svg(summary) != figure_svg(summarise(silent, "cpu", entries))
    assert len(render.to_markdown(summary)) == len(render.to_markdown(summarise(silent, "cpu", entries)))


def test_a_curve_may_run_along_what_rows_stand_for(table: Table, entries: list[Entry]):
    """Points of a training, say, which no record has as a number; and only some of the curves are drawn."""
    at = {"2:4": 10.0, "1:4": 20.0}
    axis = Axis(at=at, label="updates", along="rows", columns=["ste"])
    own = table.model_copy(update={"axis": axis, "published": [], "reference": None, "claims": []})
    summary = summarise(own, "cpu", entries)
    assert {line.row: line.x for line in summary.lines} == {"dense": None, **at}
    assert [*summary.curves()] == ["ste"] and b"<svg" in figure_svg(summary)


def test_a_pattern_of_its_own_is_a_curve_of_its_own(table: Table, entries: list[Entry]):
    """Half the weights of a layer, and two of every four: asked for alike but for the sparsity, and not joined by a line."""
    rows = {"dense": ["sparsity=null"], "2:4": ["sparsity=0.5"], "1:4": ['sparsity="1:4"']}
    summary = summarise(table.model_copy(update={"rows": rows}), "cpu", entries)
    ours = {line.row: line.series for line in summary.lines if line.column == "ste"}
    assert ours["2:4"] != ours["1:4"]


def test_columns_that_only_extra_tells_apart_are_curves_of_their_own(table: Table, entries: list[Entry]):
    """A row has two cells of one sparsity: they cannot lie on one line."""
    columns = {"dense": ["method=dense"], "ste": ["method=ste"], "srste": ["method=ste"]}
    summary = summarise(table.model_copy(update={"columns": columns, "extra": []}), "cpu", entries)
    names = {line.column: line.series for line in summary.lines if line.sparsity is not None or line.column != "dense"}
    assert names["ste"] != names["srste"]
