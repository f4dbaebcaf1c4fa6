"""The bench: its page is what its records give, and every section says something on numbers made up here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparselab.tools.bench import __main__ as command
from sparselab.tools.bench import report, sharing
from sparselab.tools.bench.timing import Row, quartiles, row, turns

ROOT = Path(__file__).parents[3]
PLACE = {
    "date": "2026-01-01",
    "commit": "abc",
    "processor": "P",
    "threads": 1,
    "gpu": "",
    "torch": "2",
    "kernels": "native",
}


def record(label, rows):
    return {"label": label, "environment": PLACE, "rows": [vars(one) for one in rows]}


def test_the_page_in_results_is_what_its_records_give():
    folder = ROOT / "results" / "bench"
    records = report.read(folder)
    if not records:
        pytest.skip("nothing is measured yet")
    assert (folder / report.PAGE).read_text() == report.render(records)
    for one in records:
        assert all(low <= middle <= high for low, middle, high in (row["ratio"] for row in one["rows"]))
        assert all(row["rounds"] >= 3 and row["seconds"] > 0 for row in one["rows"])


def test_a_page_by_hand():
    before = record("before", [Row("S", "slow", "copy", (2.0, 2.5, 3.0), 0.01, 5, 2.0)])
    after = record(
        "after",
        [Row("S", "slow", "copy", (1.0, 1.5, 1.75), 0.01, 5, 2.0, "3 calls"), Row("T", "t", "c", (1, 1, 1), 2, 5)],
    )
    page = report.render([before, after])
    assert "1. **before**: 2026-01-01, commit abc, P, 1 thread, torch 2, masks by the native path" in page
    assert "| slow | copy | 2 | **2.50** (2.00 to 3.00) | 10.00 ms | 1.50 (1.00 to 1.75); 3 calls | 10.00 ms |" in page
    assert "## T\n\n| what | against | asked for | after | its baseline |" in page, (
        "a run without a section has no column"
    )


def test_ratios_are_taken_round_by_round():
    times = {"base": [1.0, 2.0, 4.0], "thing": [2.0, 2.0, 6.0]}
    assert row("S", "thing", "base", times).ratio == quartiles([2.0, 1.0, 1.5])
    calls = []
    made = turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, "cpu", warm_up=1)
    assert calls == ["a", "b"] * 4 and [len(seconds) for seconds in made.values()] == [3, 3]


def test_seeds_in_one_batch_have_the_gradients_of_each():
    cells = [
        ["model=mlp", "model.hidden=[16]", "trainer.batch_size=8", *sharing.RULE, f"seed={seed}"] for seed in (0, 1)
    ]
    together = sharing.Together(cells, "cpu")
    stacked = together.step(together.parameters, together.buffers, together.inputs, together.targets)
    for at, cell in enumerate(together.cells):
        torch.nn.functional.cross_entropy(cell.network(cell.inputs), cell.targets).backward()
        for name, param in cell.network.named_parameters():
            torch.testing.assert_close(stacked[name][at], param.grad, rtol=1e-4, atol=1e-6)
    together()
    assert all(param.isfinite().all() for param in together.parameters.values())


@pytest.mark.parametrize("word", ["twice", "speed=1", "only=mask"])
def test_words_that_are_not_understood(word, capsys):
    assert command.main([word]) == 2
    assert word in capsys.readouterr().err


@pytest.mark.slow  # a minute a run
def test_a_section_from_end_to_end(tmp_path, capsys):
    words = ["only=feeding", "device=cpu", "write=true", f"out={tmp_path}"]
    assert command.main(["label=one", *words]) == 0 and command.main(["label=two", *words]) == 0
    assert command.main(["label=one", *words]) == 0, "a label that is there is replaced"
    assert [kept["label"] for kept in report.read(tmp_path)] == ["two", "one"]
    page = (tmp_path / report.PAGE).read_text()
    assert page == report.render(report.read(tmp_path)) and page in capsys.readouterr().out
