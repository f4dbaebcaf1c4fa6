"""Cells whose tokens are routed, through the engine."""

from __future__ import annotations

import pytest

from sparselab.cli import application
from sparselab.core.errors import ConfigError
from sparselab.inference.routing.rule import ROUTINGS
from sparselab.running.planning import plan_of
from sparselab.storage import record as records

TEXT = ["dataset=stdlib", "dataset.max_bytes=100000", "dataset.block=16", "engine.tokens=128", "engine.windows=2"]
TINY = ["model=llama_tiny", "model.width=16", "model.depth=3", "model.heads=2", "model.kv_heads=2", "model.ff=32"]
WORDS = {
    "ftp": ["sparsity=0.5", "routing.steps=3", "routing.population=3", "routing.generations=1",
            "routing.elite=1", "routing.refine=1"],
    "all_tokens": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routed")
    found = {}
    for name in ROUTINGS:
        words = [*TEXT, *TINY, f"runs_dir={folder}", "trainer.threads=1", f"routing={name}"]
        words += WORDS.get(name, ["sparsity=0.5"])
        assert application.main(words) == 0
        plan = plan_of(words)
        found[name] = records.read(plan.folder, plan.id)
    return found


@pytest.mark.parametrize("name", list(ROUTINGS))
def test_every_rule_gives_a_whole_record(cells, name):
    record = cells[name]
    metrics, cost = record["metrics"], record["account"]
    skips = name != "all_tokens"
    assert metrics["test.contexts"] == 8 and metrics["test.n"] == 128
    assert (metrics["routing.sparsity"] > 0) == skips == (metrics["routing.mac_ratio"] < 1)
    assert (cost["macs"] < cost["macs_dense"]) == skips
    assert (metrics["test.last_loss_rise"] == 0) == (not skips)
    assert record["sparsity"]["realised"] == pytest.approx(metrics["routing.sparsity"])
    assert [layer["name"] for layer in record["sparsity"]["layers"]] == [f"model.layers.{i}" for i in range(3)]


@pytest.mark.parametrize("name", list(ROUTINGS))
def test_no_share_of_an_accuracy_of_zero(cells, name):
    """A network with random weights is never right: what is kept of that is no number, and of the network itself not 0."""
    metrics = cells[name]["metrics"]
    assert metrics["test.dense_last_accuracy"] == 0 and "test.retention" not in metrics


def test_costs_are_of_what_goes_through(cells):
    half = cells["static_tokens"]["metrics"]
    assert half["routing.sparsity"] == pytest.approx(0.5)
    assert 0.25 < half["routing.mac_ratio"] < 0.5  # between the square, of attention's products, and the share itself
    assert half["routing.layer_ratio"] == 0
    removed, cost = cells["shortgpt"]["metrics"], cells["shortgpt"]["account"]
    assert removed["routing.layer_ratio"] == removed["routing.sparsity"] == pytest.approx(2 / 3)
    assert removed["routing.mac_ratio"] == pytest.approx(1 / 3)
    assert cost["params_nonzero"] < cost["params"]


def test_a_shorter_input_is_the_static_router_at_the_last_position(cells):
    one, other = cells["static_tokens"]["metrics"], cells["truncate"]["metrics"]
    assert one["test.last_loss"] == pytest.approx(other["test.last_loss"], abs=1e-5)
    assert one["test.loss"] != pytest.approx(other["test.loss"], abs=1e-3)


def test_the_id_follows_the_rule_and_cells_without_one_keep_theirs():
    words = [*TEXT, *TINY]
    routed = plan_of([*words, "routing=static_tokens", "sparsity=0.5"])
    assert plan_of([*words, "routing=static_tokens", "sparsity=0.5", "engine.stride=4"]).id != routed.id
    plain = plan_of([*words, "engine=inference"]).identity[0]
    assert "routing" not in plain and "stride" not in str(plain)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["routing=ftp"], "routing=ftp: has no sparsity to reach"),
        (["routing=ftp", "sparsity=0.3", "routing.steps=0"], "routing.steps=0: leaves no router trained"),
        (["routing=ftp", "sparsity=0.3", "routing.score_from=causal", "routing.select=topk"], "routing.select=topk: "),
        (["routing=static_tokens", "routing.shares=[0,1.2,0]"], "routing.shares.1=1.2: input should be less"),
        (["routing=static_tokens", "routing.shares=[0,0.2,0]", "sparsity=0.3"], "routing.shares=[0.0,0.2,0.0]: is one goal"),
        (["routing=static_tokens", "routing.shares=[0,0.2]"], "routing.shares=[0.0,0.2]: names 2 blocks"),
        (["routing=shortgpt", "routing.remove=4"], "routing.remove=4: asks for 4 of 3 blocks"),
        (["routing=shortgpt", "routing.remove=1", "sparsity=0.3"], "routing.remove=1: is one goal"),
        (["routing=ftp", "sparsity=0.3", "attention=streaming"], "routing=ftp: routes whole windows of text"),
        (["routing=truncate", "sparsity=0.3", "decoding=plain"], "routing=truncate: routes whole windows of text"),
        (["routing=ftp", "sparsity=0.3", "routing.elite=24"], "routing"),
        (["routing=all_tokens", "sparsity=0.3"], "sparsity=0.3: is not for a rule that skips nothing"),
        (["routing=static_tokens", "sparsity=0.3", "model=lstm"], "model=lstm: routing rules work on the blocks"),
        (["routing=ftpp"], "routing=ftpp: no such routing"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_before_anything_is_loaded(words, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*TEXT, *([] if "model=lstm" in words else TINY), *words])
    assert any(str(issue).startswith(line) for issue in refused.value.issues), list(map(str, refused.value.issues))
