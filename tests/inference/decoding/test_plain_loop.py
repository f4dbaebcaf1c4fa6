"""The plain loop, the reader with its cache, and cells that write texts, on networks of a few thousand weights."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from sparselab.cli import application
from sparselab.core.errors import ConfigError
from sparselab.inference.decoding.cached.cell import agreement
from sparselab.inference.decoding.cached.reader import Reader, Rules
from sparselab.inference.decoding.cached.writing import choose, write_all
from sparselab.inference.decoding.decoding import DECODINGS
from sparselab.inputs.data.prompts import Prompt
from sparselab.running.planning import plan_of
from sparselab.storage import record as records

TEXT = ["dataset=stdlib", "dataset.max_bytes=100000", "dataset.block=16", "engine.windows=4"]
SHORT = ["decoding.prompts=3", "decoding.tokens=10"]
DRAWN = torch.Generator().manual_seed(1)
PROMPTS = [Prompt(torch.randint(60, (length,), generator=DRAWN)) for length in (7, 1, 12)]


def llama(**more):
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = LlamaConfig(
        **sizes, num_attention_heads=4, num_key_value_heads=2, bos_token_id=None, eos_token_id=None, **more
    )
    return shaken(LlamaForCausalLM(config))


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=60, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=None
    )
    return shaken(GPT2LMHeadModel(config))


def shaken(model):
    """Far enough from uniform outputs that the likeliest token is no matter of rounding."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(8)
    return model.eval().requires_grad_(False)


def loop(name="plain", **options):
    cls = DECODINGS[name]
    return cls(cls.Options(**options))


def written(model, seed=0, **options):
    texts, _ = write_all(loop(**options), model, Rules(), PROMPTS, seed, lambda where: None)
    return [text.tokens for text in texts]


@pytest.mark.parametrize("network", [llama, gpt2])
def test_greedy_texts_are_those_of_transformers(network):
    model = network()
    for prompt, tokens in zip(PROMPTS, written(model, tokens=12), strict=True):
        asked = prompt.tokens[None]
        own = model.generate(
            asked, attention_mask=torch.ones_like(asked), max_new_tokens=12, do_sample=False, pad_token_id=0
        )
        assert tokens == own[0, len(prompt.tokens) :].tolist()


def test_a_text_ends_at_the_token_that_the_network_names():
    model = llama()
    whole = written(model, tokens=12)
    end = whole[0][5]
    model.config.eos_token_id = [end]
    short = written(model, tokens=12)
    assert short[0] == whole[0][: whole[0].index(end) + 1]
    assert written(model, tokens=12, stop=False) == whole


def test_drawn_tokens_hang_on_their_address_alone():
    model = llama()
    drawn = written(model, tokens=12, temperature=1.0)
    assert drawn == written(model, tokens=12, temperature=1.0)
    assert [text[:5] for text in drawn] == written(model, tokens=5, temperature=1.0)
    assert drawn != written(model, tokens=12, temperature=1.0, seed=1) and drawn != written(model, tokens=12)


def test_draws_have_the_probabilities_of_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0])
    counts = torch.bincount(torch.tensor([choose(logits, 0.5, (0, i)) for i in range(4000)]), minlength=3) / 4000
    torch.testing.assert_close(counts, (logits / 0.5).softmax(-1), atol=0.03, rtol=0)
    assert choose(logits, 0.0, (0, 0)) == 2


@torch.no_grad()
def test_a_reader_goes_back_branches_and_has_twins():
    model, tokens = llama(), PROMPTS[2].tokens
    plain = model(input_ids=tokens[None], use_cache=False).logits[0]
    reader = Reader(model, Rules())
    near = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(reader.start(tokens[:5], "watch"), plain[4], **near)
    reader.read([[1, 2, 3]])
    reader.forget(3)
    assert reader.length == 5
    twin = reader.twin()
    torch.testing.assert_close(reader.read(tokens[None, 5:9])[0], plain[5:9], **near)
    torch.testing.assert_close(twin.read(tokens[None, 5:])[0], plain[5:], **near)
    reader.branch([0, 0])
    both = reader.read(torch.stack([tokens[9:], tokens.flip(0)[:3]]))
    torch.testing.assert_close(both[0], plain[9:], **near)
    reader.branch([1])
    other = torch.cat((tokens[:9], tokens.flip(0)[:3]))
    reader.forget(1)
    expected = model(input_ids=other[None], use_cache=False).logits[0]
    torch.testing.assert_close(reader.read(other[None, -1:])[0, -1], expected[-1], **near)
    assert (reader.passes.dense, reader.passes.sparse) == (3 + 4 + 7 + 6 + 1, 0)


def test_agreement_counts_places_of_the_longer_text():
    assert agreement([1, 2, 3], [1, 9, 3, 4]) == (2, 1, 4)
    assert agreement([1, 2], [1, 2]) == (2, 2, 2)


@pytest.fixture
def cell(tmp_path):
    """Runs a cell and returns its record."""

    def run(*overrides):
        model = ["model=llama_tiny", "model.width=32", "model.depth=2", "model.heads=4", "model.context=64"]
        words = [*TEXT, *SHORT, *model, *overrides, f"runs_dir={tmp_path}", "trainer.threads=1"]
        plan = plan_of(words)
        assert application.main(words) == 0
        return records.read(plan.folder, plan.id)

    return run


def test_the_dense_cell_writes_its_own_texts(cell, capsys):
    record = cell("decoding=plain")
    metrics = record["metrics"]
    assert metrics["test.agreement"] == metrics["test.identical"] == metrics["test.effective_density"] == 1
    assert metrics["test.loss_rise"] == 0 and metrics["test.n"] == 30 and metrics["test.texts"] == 3
    assert "test.exact_match" not in metrics and record["account"]["macs"] == record["account"]["macs_dense"]
    assert "as without rules" in capsys.readouterr().out
    json.dumps(record)


@pytest.mark.parametrize(
    "rule",
    [
        ["activation=teal", "sparsity=0.6"],
        ["activation=wina", "sparsity=0.6"],
        ["activation=chess", "sparsity=0.9"],
        ["attention=streaming", "sparsity=0.5", "attention.block_k=4", "engine.phase=decode"],
        ["activation=cats", "sparsity=0.9", "decoding.prompt=sparse", "decoding.temperature=1.0"],
    ],
    ids=lambda rule: rule[0],
)
def test_every_kind_of_rule_takes_part(cell, rule):
    record = cell("decoding=plain", *rule)
    metrics, cost = record["metrics"], record["account"]
    active = "activation" in rule[0]
    assert (metrics["test.density"] < 1) == active and metrics["test.effective_density"] == metrics["test.density"]
    assert metrics["test.loss"] != metrics["test.dense_loss"] or metrics["test.agreement"] == 1
    assert (cost["macs"] < cost["macs_dense"]) == active
    assert record["sparsity"]["realised"] > 0


def test_problems_are_answered(tmp_path):
    words = [
        "dataset=arithmetic",
        "dataset.problems=200",
        "dataset.shots=1",
        "dataset.block=16",
        "decoding=plain",
        *SHORT,
    ]
    words += ["model=llama_tiny", "model.width=32", "model.depth=1", "model.heads=4", "model.context=200"]
    words += [f"runs_dir={tmp_path}", "trainer.threads=1", "engine.windows=1"]
    assert application.main(words) == 0
    plan = plan_of(words)
    metrics = records.read(plan.folder, plan.id)["metrics"]
    assert metrics["test.exact_match"] == metrics["test.dense_exact_match"] == 0


def test_the_id_follows_the_loop_and_cells_without_one_keep_theirs():
    words = [*TEXT, "model=llama_tiny", "model.context=128"]
    plain = plan_of([*words, "decoding=plain"])
    assert plan_of([*words, "decoding=plain", "decoding.tokens=10"]).id != plain.id
    assert "decoding" not in plan_of([*words, "engine=inference"]).identity[0]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["decoding=plain", "model=gpt_tiny"],
            "decoding.tokens=64: model=gpt reads at most 16 tokens, and a prompt with what follows has 80",
        ),
        (["decoding=plian"], "decoding=plian: no such decoding"),
        (
            ["decoding=plain", "decoding.temperature=-1"],
            "decoding.temperature=-1: input should be greater than or equal",
        ),
        (["decoding=plain", "sparsity=0.5"], "sparsity=0.5: no rule to reach it"),
        (
            ["decoding=plain", "attention=streaming", "sparsity=0.5"],
            "engine.phase=prefill: keeps attention rules from written tokens — write engine.phase=decode",
        ),
        (["decoding=plain", "model=lstm"], "model=lstm: decoding reads through a cache of keys and values"),
        (["decoding=plain", "engine=train"], "decoding="),
    ],
)
def test_bad_requests_are_refused_before_anything_is_loaded(words, line):
    with pytest.raises(ConfigError) as refused:
        plan_of([*TEXT, "model=llama_tiny", *words])
    assert any(str(issue).startswith(line) for issue in refused.value.issues), list(map(str, refused.value.issues))
