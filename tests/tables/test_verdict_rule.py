"""Size and power of the rule at a few points of ``scripts/verdict_simulation.py``, with rule 1 as the negative control."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "verdict_simulation.py"


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verdict_simulation", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("correlation", "spread"), [(0.0, 1.0), (0.99, 8.0)])
def test_without_an_effect_at_most_one_table_in_twenty_has_a_verdict(simulation, correlation: float, spread: float):
    """300 tables: 5 % of them are 15 with a standard deviation of 3.8, so 26 are too many."""
    found = simulation.simulate("rule 2", simulation.Setting(5, correlation, spread), 0.0, 300)
    assert max(found.holds, found.fails) <= 26 / 300


def test_an_effect_of_five_standard_errors_is_found_and_rule_1_misses_it(simulation):
    setting = simulation.Setting(5, 0.99, 1.0)
    found, control = (simulation.simulate(rule, setting, 5.0, 60) for rule in ("rule 2", "rule 1"))
    assert found.orders >= 0.65 > 0.05 > control.orders and found.fails <= 0.1
    more = simulation.simulate("rule 2", simulation.Setting(8, 0.99, 1.0), 5.0, 60)
    assert more.orders > found.orders


def test_the_published_table_has_a_line_for_every_setting(simulation):
    text = simulation.DOCS.read_text()
    table = text.partition(simulation.BEGIN)[2].partition(simulation.END)[0]
    assert table.count("\n| 5 |") == table.count("\n| 8 |") == 8 and "600 tables a line." in table
