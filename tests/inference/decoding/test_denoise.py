"""Masked diffusion: steps, texts, metrics and cells, on networks of a few thousand weights."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sparselab.cli import application
from sparselab.inference.attention.rule import ATTENTIONS
from sparselab.inference.attention.tiled.attach import Attached, check_applies
from sparselab.inference.decoding.decoding import DECODINGS
from sparselab.inference.decoding.denoising.outcome import Drift, Work, costs, shared
from sparselab.inference.decoding.denoising.steps import amounts, chosen, grouped, schedule, without_mask, write
from sparselab.inputs.data.prompts import Prompt
from sparselab.running.planning import plan_of
from sparselab.storage import record as records

MASK = 60
DRAWN = torch.Generator().manual_seed(1)
PROMPTS = [Prompt(torch.randint(60, (length,), generator=DRAWN)) for length in (12, 7, 12, 12)]
NEEDLES = [
    "dataset=needles", "dataset.max_bytes=200000", "dataset.block=32", "dataset.pairs=1", "dataset.asked=8",
    "dataset.records=100", "model=llama_tiny", "model.width=16", "model.depth=2", "model.heads=2", "model.ff=24",
]  # fmt: skip
TEXTS = ["decoding=denoise", "decoding.prompts=4", "decoding.tokens=8", "decoding.steps=8", "trainer.threads=1"]
SPARSE = ["attention=sparsed", "sparsity=0.5", "attention.block_q=4", "attention.block_k=4"]


def llama(**more):
    torch.manual_seed(0)
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    given = {"num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, **given, "is_causal": False, **more}))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(8)
    return model.eval().requires_grad_(False)


def loop(**options):
    cls = DECODINGS["denoise"]
    return cls(cls.Options(**{"tokens": 8, "steps": 8, **options}))


def logits_of(model):
    return lambda tokens, step: model(input_ids=tokens, use_cache=False).logits.float()


def texts(model, made, seed=0, size=8, prompts=PROMPTS):
    """Tokens by prompt."""
    found = {}
    for group in grouped(prompts, size, torch.device("cpu")):
        written = write(made, logits_of(model), group, MASK, seed)
        found.update(zip(group.numbers, written.tokens.tolist(), strict=True))
    return [found[number] for number in range(len(prompts))]


def released(model, prompt, steps, tokens, block):
    """ML-GSAI/LLaDA ``generate.py`` at temperature 0, and without ever writing the mask."""
    x = torch.cat((prompt, torch.full((tokens,), MASK)))[None]
    per = steps // (tokens // block)
    for number in range(tokens // block):
        end = len(prompt) + (number + 1) * block
        counts = [block // per + (i < block % per) for i in range(per)]
        for count in counts:
            hidden = x == MASK
            logits = without_mask(model(input_ids=x, use_cache=False).logits, MASK)
            found = logits.argmax(-1)
            sure = logits.softmax(-1).gather(-1, found[..., None])[..., 0]
            sure[:, end:] = -torch.inf
            picked = torch.where(hidden, sure, -torch.inf)[0].topk(count).indices
            x[0, picked] = found[0, picked]
    return x[0, len(prompt) :].tolist()


@pytest.mark.parametrize(("hidden", "steps"), [(64, 32), (64, 24), (7, 7), (8, 3), (5, 1)])
def test_item_9_revealed_tokens_add_up_to_the_masks(hidden, steps):
    found = amounts(hidden, steps)
    assert sum(found) == hidden and len(found) == steps and max(found) - min(found) <= 1
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(("steps", "block"), [(8, None), (4, 4), (8, 4), (6, 4), (4, 2)])
def test_texts_are_those_of_the_released_sampler(steps, block):
    model = llama()
    made = loop(steps=steps, block=block)
    expected = [released(model, prompt.tokens, steps, 8, block or 8) for prompt in PROMPTS]
    assert texts(model, made) == expected
    assert all(MASK not in text for text in expected)


def test_steps_of_blocks_have_one_count_and_only_their_own_tokens():
    made = loop(tokens=8, steps=4, block=4)
    found = list(schedule(made, 10))
    assert [(step.number, end, count) for step, end, count in found] == [(0, 14, 2), (1, 14, 2), (2, 18, 2), (3, 18, 2)]
    assert {(step.steps, step.prompt, step.generated) for step, _, _ in found} == {(4, 10, 8)}
    states = write(made, logits_of(llama()), grouped(PROMPTS, 8, torch.device("cpu"))[0], MASK, 0).states
    assert [(state[:, 12:] == MASK).sum(1).unique().tolist() for state in states] == [[8], [6], [4], [2]]
    assert (states[2][:, 16:] == MASK).all() and (states[2][:, 12:16] != MASK).all()


def test_texts_do_not_hang_on_who_is_passed_with_them():
    model = llama()
    for more in ({}, {"temperature": 0.7}, {"order": "random"}):
        made = loop(**more)
        assert texts(model, made, size=1) == texts(model, made, size=8)
        assert texts(model, made) == texts(model, made)
    assert texts(model, loop(temperature=0.7)) != texts(model, loop(temperature=0.7), seed=1)
    assert texts(model, loop(order="random")) != texts(model, loop())


def test_drawn_tokens_have_the_probabilities_of_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(2, 2000, 3)
    tokens, sure = chosen(loop(tokens=2000, steps=1, temperature=0.5), logits, [0, 1], 0, 0)
    shares = torch.bincount(tokens.flatten(), minlength=3) / 4000
    torch.testing.assert_close(shares, (logits[0, 0] / 0.5).softmax(-1), atol=0.03, rtol=0)
    torch.testing.assert_close(sure, logits.softmax(-1).gather(-1, tokens[..., None])[..., 0])


@torch.no_grad()
def test_a_network_that_reads_both_ways_does_so_under_a_rule():
    """The library's layers say that they are causal, whatever their config says."""
    model, tokens = llama(), torch.stack([PROMPTS[0].tokens, PROMPTS[2].tokens])
    cls = ATTENTIONS["window"]
    check_applies(
        model, lambda x: model(input_ids=x).logits, cls(cls.Options(block_q=4, block_k=4), 0.5), "prefill", tokens
    )
    whole = cls(cls.Options(block_q=4, block_k=4), 0.0)
    plain = model(input_ids=tokens).logits
    with Attached(model, whole) as ledger:
        torch.testing.assert_close(model(input_ids=tokens).logits, plain, rtol=1e-4, atol=1e-4)
    assert ledger.sparsity() == 0 and next(iter(ledger.tallies.values())).valid == 2 * 4 * 9


@torch.no_grad()
@pytest.mark.parametrize("sparsity", [0.0, 0.75])
def test_item_8_keeping_all_tiles_is_full_attention_and_keeping_few_is_not(sparsity):
    model, made = llama(), loop()
    cls = ATTENTIONS["sparsed"]
    rule = cls(cls.Options(block_q=2, block_k=2, skip=0.0), sparsity)
    groups = grouped(PROMPTS, 8, torch.device("cpu"))
    dense = [write(made, logits_of(model), group, MASK, 0) for group in groups]
    attached = Attached(model, rule)
    plain = logits_of(model)
    with attached:
        work = Work(made, attached, plain)
        ruled = [write(made, work.step, group, MASK, 0) for group in groups]
        drift = Drift.along(made, groups, dense, plain, work.step, attached, MASK)
    found = drift.metrics()
    assert drift.hidden == [4 * (8 - step) for step in range(8)]
    assert drift.nats[0] == pytest.approx(0.0, abs=1e-4)  # full attention in the first two steps
    if sparsity:
        assert found["test.kl"] > 0.01 and work.last_density < 0.5
    else:
        assert found["test.kl"] == pytest.approx(0.0, abs=1e-5) and work.last_density == 1.0
        assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(ruled, dense, strict=True))


def test_costs_count_all_steps_and_what_masks_take():
    model, made = llama(), loop()
    cls = ATTENTIONS["sparsed"]
    for reuse, masks in ((True, 1), (False, 6)):
        rule = cls(cls.Options(block_q=4, block_k=4, skip=0.2, reuse=reuse), 0.5)
        with Attached(model, rule) as ledger:
            work = Work(made, Attached(model, rule), logits_of(model))
            work.attached.ledger = ledger
            write(made, work.step, grouped(PROMPTS[:1], 8, torch.device("cpu"))[0], MASK, 0)
            found = costs(ledger, rule.spent, work.last_density, 8)
        # 20 keys, 5 tiles: 3 of the prompt, of which 2 stay, and 2 generated ones, of which 1 does
        assert found["attention.last_density"] == pytest.approx(3 / 5)
        assert found["attention.density"] == pytest.approx((3 + 5 * 3 / 5) / 8)
        assert found["attention.masks"] == pytest.approx(masks)
        assert found["attention.cost"] == pytest.approx(found["attention.density"] + masks / 8 / 2)


def test_means_of_the_first_and_the_last_steps():
    drift = Drift([4.0, 2.0, 1.0, 0.0, 3.0], [4, 4, 2, 2, 1])
    assert drift.metrics() == {"test.kl": 10 / 13, "test.kl_early": 1.0, "test.kl_late": 3.0, "test.kl_fall": -2.0}
    assert shared("7306", "7300") == 0.75 and shared("", "73") == 0.0


@pytest.fixture
def cell(tmp_path):
    """Runs a cell and returns its record."""

    def run(*overrides):
        words = [*NEEDLES, *TEXTS, f"runs_dir={tmp_path}", "trainer.accelerator=cpu", *overrides]
        plan = plan_of(words)
        assert application.main(words) == 0
        return records.read(plan.folder, plan.id)

    return run


def test_cells_of_full_and_of_sparse_attention(cell):
    full, sparse, again = cell(), cell(*SPARSE), cell(*SPARSE, "force=true")
    assert full["metrics"]["test.kl"] == 0 and full["metrics"]["attention.cost"] == 1
    assert full["metrics"]["test.exact_match"] == full["metrics"]["test.dense_exact_match"]
    assert full["account"]["macs"] == full["account"]["macs_dense"] > 0
    found = sparse["metrics"]
    assert found["test.kl"] > 0 and 0 < found["attention.last_density"] < found["attention.density"] < 1
    assert sparse["sparsity"]["realised"] == pytest.approx(1 - found["attention.density"])
    assert sparse["account"]["macs"] < sparse["account"]["macs_dense"]
    assert again["metrics"] == found


def test_a_cell_without_reuse_says_what_masks_share(cell):
    found = cell(*SPARSE, "attention.reuse=false")["metrics"]
    assert 0 < found["attention.same_over_heads"] <= 1 and 0 < found["attention.same_over_steps"] <= 1
    assert found["attention.masks"] == 6
