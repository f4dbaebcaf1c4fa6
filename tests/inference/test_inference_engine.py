"""Cells of the engine `inference`, from a request to a record, on a network of a few thousand weights."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sparselab.cli import application, check
from sparselab.config.members import CONFIGS
from sparselab.core.errors import ConfigError
from sparselab.inference import runner
from sparselab.inference.count import macs_per_token
from sparselab.inference.windows import batches, draw
from sparselab.inputs.models.families.llama import llama_spec
from sparselab.running.planning import plan_of
from sparselab.storage import record as records

TEXT = ["dataset=stdlib", "dataset.max_bytes=100000", "dataset.block=32", "engine.tokens=256", "engine.windows=4"]
TILES = ["attention.block_q=4", "attention.block_k=4"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A transformers folder of a network with sharp attention."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
        elif "q_proj" in name or "k_proj" in name:
            parameter.data.mul_(12)
    folder = tmp_path_factory.mktemp("networks") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def cell(network, tmp_path):
    """Runs a cell and returns its record."""

    def run(*overrides):
        words = [*TEXT, "model=hf", f"model.path={network}", *overrides, f"runs_dir={tmp_path}", "trainer.threads=1"]
        plan = plan_of(words)
        assert application.main(words) == 0
        return records.read(plan.folder, plan.id)

    return run


def test_the_dense_cell_scores_the_network_once(cell, capsys):
    record = cell("engine=inference")
    metrics = record["metrics"]
    assert metrics["test.loss_rise"] == 0 and metrics["test.n"] == 256
    assert metrics["test.perplexity"] == metrics["test.dense_perplexity"]
    assert record["account"]["macs"] == record["account"]["macs_dense"] and record["sparsity"]["requested"] == "dense"
    assert "MACs" in capsys.readouterr().out
    json.dumps(record)


def test_cells_that_differ_in_their_rule_alone_score_the_dense_network_once(cell, monkeypatch):
    monkeypatch.setattr(runner, "_dense", {})
    scored, score = [], runner.score
    monkeypatch.setattr(runner, "score", lambda *args: scored.append(1) or score(*args))
    teal, wina = (cell(f"activation={name}", "sparsity=0.5")["metrics"] for name in ("teal", "wina"))
    assert len(scored) == 3 and teal["test.dense_loss"] == wina["test.dense_loss"]
    monkeypatch.setattr(runner, "_dense", {})
    assert cell("activation=teal", "sparsity=0.5", "force=true")["metrics"] == teal
    for other in ("seed=1", "engine.tokens=128", "dataset.block=16"):
        cell("engine=inference", other)
    assert len(runner._dense) == 4


@pytest.mark.parametrize(
    "rule",
    [
        ["activation=wina"],
        ["activation=wina", "activation.transform=false", "activation.informed=all"],
        ["activation=teal", "activation.gate=threshold"],
        ["activation=wina", "activation.allocation=greedy", "activation.greedy_step=0.5"],
    ],
    ids=["wina", "everywhere", "threshold", "greedy"],
)
def test_zeros_are_as_many_as_asked(cell, rule):
    record = cell(*rule, "sparsity=0.5")
    metrics, cost = record["metrics"], record["account"]
    words = " ".join(rule)
    near = 0.08 if "threshold" in words or "greedy" in words else 1e-9
    assert metrics["activation.gated_sparsity"] == pytest.approx(0.5, abs=near)
    assert record["sparsity"]["realised"] == pytest.approx(metrics["activation.gated_sparsity"])
    share = int(0.99 * 32) / 32
    assert metrics["activation.sparsity"] == pytest.approx(share * metrics["activation.gated_sparsity"])
    assert abs(metrics["test.loss_rise"]) > 1e-6
    linear = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    saved = linear * 32 * metrics["activation.sparsity"]
    assert cost["macs_dense"] - cost["macs"] == pytest.approx(saved, abs=1)
    assert cost["macs_rotation"] == (0 if "teal" in words or "false" in words else 32 * 4 * 32 * 32)
    assert metrics["test.macs_per_token"] == pytest.approx(
        (1 - metrics["activation.gated_sparsity"]) * linear + 256 * 32
    )


def test_a_rotation_alone_leaves_the_perplexity(cell):
    record = cell("activation=wina")
    assert record["metrics"]["test.perplexity"] == pytest.approx(record["metrics"]["test.dense_perplexity"], rel=1e-4)
    assert record["metrics"]["activation.sparsity"] == 0 and record["account"]["macs_rotation"] > 0


@pytest.mark.parametrize("phase", ["prefill", "decode", "both"])
def test_attention_skips_tiles(cell, phase):
    record = cell("attention=blasst", "attention.threshold=0.5", f"engine.phase={phase}", *TILES)
    metrics, cost = record["metrics"], record["account"]
    assert 0 < metrics["attention.sparsity"] < 1 and record["sparsity"]["realised"] == metrics["attention.sparsity"]
    products = 2 * 2 * 4 * 32 * 32 * 8
    assert cost["macs_dense"] - cost["macs"] == pytest.approx(products * metrics["attention.sparsity"] / 2, abs=1)
    assert {key for key in metrics if key.endswith("_sparsity")} == {
        f"attention.{name}_sparsity" for name in (("prefill", "decode") if phase == "both" else (phase,))
    }


@pytest.mark.parametrize("kind", ["inverse", "exponential", "fixed"])
def test_attention_is_fitted_to_a_sparsity(cell, kind):
    fit = [f"attention.fit={kind}", "attention.lengths=[24,32]", "engine.phase=decode", "attention.tolerance=0.3"]
    record = cell(
        "attention=blasst", "sparsity=0.4", *fit, "attention.trials=[0.001,0.01,0.1,0.3,0.5,0.7,0.9,0.99]", *TILES
    )
    assert record["metrics"]["attention.sparsity"] == pytest.approx(0.4, abs=0.2)
    assert set(record["sparsity"]["limits"]) == {"decode"}


def test_windows_longer_than_a_network_or_a_text_are_refused(network, tmp_path, capsys):
    """A network without positions for them; a train split that has none of them."""
    fitted = ["engine=inference", "attention=blasst", "sparsity=0.4", "dataset=stdlib", "dataset.block=32"]
    longest = "attention=blasst: is fitted on windows of up to 512 tokens, and model.path="
    for words in (["model=hf", f"model.path={network}"], ["model=gpt_tiny"]):
        with pytest.raises(ConfigError) as refused:
            plan_of([*fitted, *words])
        (line,) = map(str, refused.value.issues)
        assert line.startswith(longest if "model=hf" in words else longest.replace(".path", "")), line
        plan_of([*fitted, *words, "attention.lengths=[16,32]"])
    words = ["model=llama_tiny", "dataset.max_bytes=3000", "attention.lengths=[4096]", f"runs_dir={tmp_path}"]
    assert application.main([*fitted, *words]) == 1
    assert "tokens) has no window of 4,096 — write shorter ones" in capsys.readouterr().err


def test_rules_on_both_at_once(cell):
    record = cell("activation=teal", "sparsity=0.25", "attention=blasst", "attention.scale=2.0", *TILES)
    metrics = record["metrics"]
    assert metrics["activation.gated_sparsity"] == pytest.approx(0.25) and 0 < metrics["attention.sparsity"] < 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["engine=inference", "sparsity=0.5"],
            "sparsity=0.5: no rule to reach it — add activation=wina or leave it out",
        ),
        (["activation=wina", "sparsity=2:4"], "sparsity=2:4: engine=inference takes a fraction — write 0.5"),
        (["attention=blasst"], "attention=blasst: has no sparsity to reach — write sparsity=0.5"),
        (["attention=streaming"], "attention=streaming: has no sparsity to reach — write sparsity=0.5"),
        (
            ["attention=blasst", "attention.scale=2.0", "sparsity=0.5"],
            "attention.scale: sparsity= asks for a fit instead",
        ),
        (["activation=wina", "attention=blasst", "sparsity=0.5"], "attention=blasst: has no sparsity to reach"),
        (["activation=wina", "activation.gate=top"], "activation.gate=top: input should be 'topk' or 'threshold'"),
        (["activation=wnia"], "activation=wnia: no such activation"),
        (["activation=wina", "optim=sgd"], "optim=sgd: engine=inference does not read it"),
        (["activation=wina", "method=srste"], "method=srste: engine=inference does not read it"),
        (["activation=wina", "model=vit_s"], "model=vit: engine=inference reads language models"),
        (["activation=wina", "engine.tokens=1"], "engine.tokens=1: input should be greater than or equal to 2"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_loaded(words, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*TEXT[:3], "model=llama_tiny", *words])
    assert any(str(issue).startswith(line) for issue in refused.value.issues), list(map(str, refused.value.issues))


def test_the_id_follows_rules_and_content_alone(network, tmp_path):
    words = [*TEXT, "model=hf", f"model.path={network}", "activation=wina", "sparsity=0.5"]
    plain = plan_of(words).id
    moved = tmp_path / "moved"
    network.rename(moved)
    try:
        assert plan_of([*TEXT, "model=hf", f"model.path={moved}", "activation=wina", "sparsity=0.5"]).id == plain
    finally:
        moved.rename(network)
    assert plan_of([*words, "trainer.threads=1"]).id == plain
    for other in ("sparsity=0.4", "activation.transform=false", "engine.windows=5", "seed=1", "engine.phase=decode"):
        assert plan_of([*words, other]).id != plain


def test_check_says_what_would_run_and_a_network_may_be_another_cells(capsys):
    base = "cell:method=dense model=llama_tiny dataset=stdlib dataset.max_bytes=100000 dataset.block=32 trainer.max_steps=2"
    words = [*TEXT, "model=llama_tiny", f"model.weights='{base}'", "activation=wina", "sparsity=0.5"]
    plan = plan_of(words)
    assert [first.config["engine"]["name"] for first in plan.parent_plans] == ["train"]
    assert plan.recorded_config()["model"]["weights"] == f"cell:{plan.parent_plans[0].id}"
    assert check.run(words) == 0
    shown = capsys.readouterr().out
    assert "wina · sparsity 0.5" in shown and "MACs" in shown


def test_windows_do_not_overlap_and_follow_the_seed():
    tokens = torch.arange(1001)
    starts = draw(tokens, 32, 10, 0, "test")
    assert len(set(starts.tolist())) == 10 and all(start % 32 == 0 for start in starts)
    assert draw(tokens, 32, 10, 1, "test").tolist() != starts.tolist() == draw(tokens, 32, 10, 0, "test").tolist()
    assert len(draw(tokens, 32, None, 0, "test")) == len(draw(tokens, 32, 99, 0, "test")) == 31
    inputs, targets = next(batches(tokens, starts, 32, 3, torch.device("cpu")))
    assert inputs.shape == (3, 32) and torch.equal(targets, inputs + 1)


# arXiv 2505.19427, table 5: billions of multiply-accumulates a token at 0, 25, 40, 50 and 65 %. Sizes: vocabulary, width,
# heads, key and value heads, feed-forward width, depth.
PAPER = {
    "Llama-2-7B": ((32000, 4096, 32, 32, 11008, 32), (6.607, 4.988, 4.017, 3.369, 2.398)),
    "Llama-3-8B": ((128256, 4096, 32, 8, 14336, 32), (7.505, 5.760, 4.713, 4.015, 2.968)),
    "Qwen-2.5-7B": ((152064, 3584, 28, 4, 18944, 28), (7.070, None, None, None, 2.829)),
    "Phi-4": ((100352, 5120, 40, 10, 17920, 40), (14.145, None, None, None, 5.285)),
}
KEYS = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "num_hidden_layers",
)


@pytest.mark.parametrize("name", PAPER)
def test_multiplications_a_token_are_the_papers(name):
    sizes, printed = PAPER[name]
    model_spec = llama_spec(dict(zip(KEYS, sizes, strict=True)), 1).model_spec(name)
    for sparsity, value in zip((0, 0.25, 0.4, 0.5, 0.65), printed, strict=True):
        assert value is None or macs_per_token(model_spec, sparsity) / 1e9 == pytest.approx(value, abs=6e-4)


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2"])
def test_any_causal_network_of_a_folder_goes_the_same_way(kind, tmp_path):
    """Untied and with biases (Qwen2) or a window (Mistral): rotated without a change of the output, gated, and tiled."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=256, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # gains and biases that do something
            torch.nn.init.normal_(parameter, 0.5, 0.3)
        elif "q_proj" in name or "k_proj" in name:
            parameter.data.mul_(20)  # sharp attention
    model.save_pretrained(tmp_path / "network")
    words = [*TEXT, "model=hf", f"model.path={tmp_path / 'network'}", f"runs_dir={tmp_path}", "trainer.threads=1"]
    found = []
    for rule in (
        ["activation=wina"],
        [
            "activation=wina",
            "sparsity=0.5",
            "attention=blasst",
            "attention.threshold=0.9",
            "attention.order=reverse",
            *TILES,
        ],
    ):
        plan = plan_of([*words, *rule])
        assert application.main([*words, *rule]) == 0
        found.append(records.read(plan.folder, plan.id)["metrics"])
    assert found[0]["test.perplexity"] == pytest.approx(found[0]["test.dense_perplexity"], rel=1e-4)
    assert found[1]["activation.gated_sparsity"] == pytest.approx(0.5) and 0 < found[1]["attention.sparsity"] < 1
    assert found[1]["test.dense_perplexity"] == pytest.approx(found[0]["test.dense_perplexity"])


def test_two_papers_start_from_the_same_network():
    """The language model of wina and blasst is trained once: their records name the same phase, seed by seed."""
    found = {}
    for paper in ("wina", "blasst"):
        kept = CONFIGS.parent / "results" / paper / "cpu" / "records.jsonl"
        entries = [json.loads(line) for line in kept.read_text().splitlines()]
        found[paper] = {(entry["seed"], entry["record"]["config"]["model"]["weights"]) for entry in entries}
    both = {seed for seed, _ in found["wina"]} & {seed for seed, _ in found["blasst"]}
    common = [{cell for cell in cells if cell[0] in both} for cells in found.values()]
    assert common[0] == common[1] and len(common[0]) == len(both) >= 3
    assert all(weights.startswith("cell:") for _, weights in found["wina"])


def test_cells_whose_calibration_weighs_windows_anew_have_other_ids(network):
    """Those that read one batch give what they gave, and keep their ids."""

    def extra(*overrides):
        words = [*TEXT, "model=hf", f"model.path={network}", "activation=teal", "sparsity=0.5", *overrides]
        return plan_of(words).identity[1]

    assert "windows" not in extra("activation.allocation=greedy")
    assert "windows" not in extra("engine.batch_size=2")
    assert extra("activation.allocation=greedy", "engine.batch_size=3")["windows"] == 2
    assert extra("activation.gate=threshold")["windows"] == 2


def test_a_copy_without_a_training_split_serves(network, tmp_path):
    """WINA's card: WikiText-2's training split is not everywhere, and calibration takes the validation split then."""
    folder = tmp_path / "data" / "text" / "wikitext2"
    folder.mkdir(parents=True)
    for name in ("valid", "test"):
        (folder / f"{name}.txt").write_bytes(b"one two three = four . \n" * 60)
    words = ["model=hf", f"model.path={network}", "activation=wina", "activation.gate=threshold", "sparsity=0.5"]
    words += [
        "dataset=wikitext2",
        "dataset.block=32",
        "engine.windows=2",
        "engine.tokens=128",
        f"data_dir={tmp_path}/data",
    ]
    words += [f"runs_dir={tmp_path}/runs", "trainer.threads=1"]
    with pytest.raises(ConfigError, match=r"has no train.txt — write dataset.train_from=valid"):
        plan_of(words)
    words.append("dataset.train_from=valid")
    assert application.main(words) == 0
    plan = plan_of(words)
    assert records.read(plan.folder, plan.id)["metrics"]["activation.gated_sparsity"] == pytest.approx(0.5, abs=0.1)
