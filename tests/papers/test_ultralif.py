"""The table of UltraLIF: its rows are the neurons that they say, in the paper's reading and in the released code's."""

from __future__ import annotations

import pytest

from sparselab.experiments.tables.load import load_all
from sparselab.inputs.models.neuron import NEURONS, made
from sparselab.running.planning import plan_of

READINGS = {
    "LIF": {"name": "lif", "spike": "hard", "threshold": 0.5, "tau": 0.9, "beta": 10.0},
    "LIF, released": {"name": "lif", "spike": "soft", "threshold": 0.5, "tau": 0.9, "beta": 10.0},
    "PLIF, released": {"name": "plif", "tau_map": "sigmoid_raw", "spike": "soft"},
    "UltraPLIF": {"name": "ultraplif", "threshold": 0.5, "tau_map": "sigmoid", "eps": 1.0, "learn_eps": True},
    "UltraPLIF, released": {"name": "ultraplif", "threshold": 0.0, "tau_map": "exp"},
    "UltraDLIF": {"name": "ultradlif", "threshold": 0.5, "order": "lse_first", "leak": "none"},
    "UltraDLIF, released": {"name": "ultradlif", "threshold": 0.0, "order": "input_first", "leak": "all"},
    "UltraDPLIF, released": {"name": "ultradplif", "tau_map": "sigmoid_raw", "order": "input_first"},
    "plain sigmoids": {"name": "sigmalif", "learn_eps": False, "threshold": 0.0, "eps": 1.0},
}


@pytest.fixture(scope="module")
def table():
    return next(table for table in load_all() if table.label == "paper=ultralif")


@pytest.mark.parametrize("row", READINGS)
def test_a_row_is_the_neuron_that_it_says(row, table):
    words = ["model=snn", "method=dense", *table.rows[row]]
    neuron = plan_of(words).config["model"]["neuron"]
    assert READINGS[row].items() <= neuron.items()


def test_every_neuron_has_a_row_and_every_neuron_of_the_paper_its_published_numbers(table):
    said = {word.removeprefix("neuron=") for row in table.rows.values() for word in row if word.startswith("neuron=")}
    assert said == set(NEURONS)
    printed = {entry.row for entry in table.published}
    assert len(printed) == 10 and len(table.published) == 10 * 9 + 3 * 4 * 2


def test_the_network_is_the_papers(table):
    plan = plan_of(["dataset=digits", *[word for word in table.base if "dataset" not in word], "neuron=lif"])
    assert plan.parts.model_spec.params == 64 * 64 + 64 + 64 * 10 + 10
    assert (made({"name": "ultraplif"}).learned, made({"name": "ultradplif"}).learned) == (2, 2)
