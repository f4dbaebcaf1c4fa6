"""The task of masked diffusion: what is hidden, what the loss weighs, and that nothing is causal."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import MaskedTokens, NextTokens, Tokens
from sparselab.inputs.data.masking import IGNORE
from sparselab.inputs.models.family import MODELS
from sparselab.training.tasks.masked_diffusion import present_in
from sparselab.training.tasks.task import TASKS

DATA = DataSpec("text", Tokens(16, 50), NextTokens(16, 50), 8, 2, 2, "0", "bundled")
TOKENS = torch.randint(50, (64, 16), generator=torch.Generator().manual_seed(0))
BATCH = (TOKENS, TOKENS.roll(-1, 1))


def task(**options):
    cls = TASKS["masked_diffusion"]
    return cls(cls.Options(**options))


def seen(**options):
    made = task(**options)
    return made, made.sees(DATA)


def test_the_mask_is_one_token_more_or_a_given_one():
    made, data = seen()
    assert data.pair == (Tokens, MaskedTokens) and data.inputs.vocabulary == data.classes == 51
    assert made.issues(data) == [] and set(made.batch(BATCH)[0][made.batch(BATCH)[1] != IGNORE].tolist()) <= {
        50,
        *range(50),
    }
    made, data = seen(mask=7)
    assert data.inputs.vocabulary == 50 and made.issues(data) == []
    inputs, targets, _, _ = made.batch(BATCH)
    assert (inputs[targets != IGNORE] == 7).all()
    assert "write a number below 50" in str(task(mask=50).issues(task(mask=50).sees(DATA))[0])


@pytest.mark.parametrize("ratios", ["independent", "spread"])
def test_as_many_tokens_are_hidden_as_the_ratio_says(ratios):
    made, _ = seen(ratios=ratios, least=0.1)
    torch.manual_seed(0)
    shares = []
    for _ in range(200):
        inputs, targets, drawn, present = made.batch(BATCH)
        hidden = targets != IGNORE
        assert (
            present.all() and (targets[hidden] == TOKENS[hidden]).all() and (inputs[~hidden] == TOKENS[~hidden]).all()
        )
        assert (inputs[hidden] == 50).all() and drawn.min() >= 0.1 and drawn.max() <= 1
        shares.append(torch.stack([hidden.float().mean(1), drawn], 1))
        if ratios == "spread":
            assert (drawn.sort().values.diff() - 0.9 / 64).abs().max() < 1e-5
    found = torch.cat(shares)
    assert found[:, 0].mean() == pytest.approx(0.55, abs=0.02)
    assert torch.corrcoef(found.T)[0, 1] > 0.8


def test_a_split_is_scored_with_the_same_masks_each_time():
    made, _ = seen()
    torch.manual_seed(1)
    first = made.scored(BATCH)
    second = made.scored((TOKENS[5:9], BATCH[1][5:9]))
    assert all(torch.equal(a[5:9], b) for a, b in zip(first, second, strict=True))
    assert first[2].unique().numel() == 64
    assert not torch.equal(made.batch(BATCH)[2], made.batch(BATCH)[2])


def test_the_loss_is_of_hidden_tokens_over_their_ratio():
    made, _ = seen()
    torch.manual_seed(2)
    batch = made.batch(BATCH)
    outputs = torch.randn(64, 16, 51)
    nats = -outputs.log_softmax(-1).gather(-1, TOKENS[..., None])[..., 0]
    expected = ((batch[1] != IGNORE) * nats / batch[2][:, None]).sum() / TOKENS.numel()
    torch.testing.assert_close(made.criterion(outputs, batch, None), expected)
    # its expectation is the mean over all tokens, whatever the ratio: a uniform guess costs log of the vocabulary
    flat = torch.zeros(64, 16, 51)
    losses = [made.criterion(flat, made.batch(BATCH), None).item() for _ in range(400)]
    assert sum(losses) / 400 == pytest.approx(math.log(51), rel=0.05)


def test_what_lies_past_the_end_is_neither_hidden_nor_counted():
    following = BATCH[1].clone()
    following[3, 4:] = IGNORE  # the text ends with the fifth token of this window
    assert present_in(following)[3].tolist() == [True] * 5 + [False] * 11 and present_in(following)[2].all()
    made, data = seen()
    batch = made.scored((TOKENS, following))
    assert (batch[1][3, 5:] == IGNORE).all()
    metrics = made.metrics(data)
    made.score(metrics, torch.zeros(64, 16, 51), batch, None)
    values = {name: float(metric.compute()) for name, metric in metrics.items()}
    assert values["tokens"] == 64 * 16 - 11
    numbers = made.numbers(values, "test", SimpleNamespace(bytes_per_token={"test": 1.0}))
    hidden = (batch[1] != IGNORE).sum(1)
    assert numbers["loss"] == pytest.approx(
        float((hidden / batch[2]).sum()) * math.log(51) / values["tokens"], rel=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gpt"])
def test_its_networks_read_both_ways_and_say_so_in_their_config(name):
    data = task().sees(DATA)
    options = MODELS[name].Options(width=16, depth=2, heads=2, ff=24)
    torch.manual_seed(0)
    family = MODELS[name](options)
    model = family.build(data).eval()
    other = TOKENS[:2].clone()
    other[:, -1] += 1
    changed = (family.logits(model, TOKENS[:2]) - family.logits(model, other % 50))[:, 0].abs().max()
    assert changed > 1e-6 and family.library_config(model)["is_causal"] is False
    causal = MODELS[name](options).build(DATA).eval()
    assert "is_causal" not in family.library_config(causal)
    assert (family.logits(causal, TOKENS[:2]) - family.logits(causal, other % 50))[:, :-1].abs().max() == 0


@torch.no_grad()
def test_a_saved_network_reads_both_ways_and_a_causal_one_is_told_apart(tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    for kind, more in (("both", {"is_causal": False}), ("causal", {})):
        LlamaForCausalLM(LlamaConfig(vocab_size=51, **sizes, **more)).save_pretrained(tmp_path / kind)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "both").eval()
    other = TOKENS[:2].clone()
    other[:, -1] = 0
    assert (plain(input_ids=TOKENS[:2]).logits - plain(input_ids=other).logits)[:, 0].abs().max() > 1e-6
    hf = MODELS["hf"]
    both, causal = (hf(hf.Options(path=str(tmp_path / kind))) for kind in ("both", "causal"))
    assert not both.one_way() and causal.one_way()
    data = task(mask=50).sees(DataSpec("text", Tokens(16, 51), NextTokens(16, 51), 8, 2, 2, "0", "bundled"))
    model = both.build(data).eval()
    torch.testing.assert_close(both.logits(model, TOKENS[:2]), plain(input_ids=TOKENS[:2]).logits)
