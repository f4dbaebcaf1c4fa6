"""Attention by tiles inside transformers networks, through the library's registry."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from sparselab.core.errors import RunFailed
from sparselab.inference.attention.rule import ATTENTIONS
from sparselab.inference.attention.tiled.attach import Attached, check_applies
from sparselab.inference.attention.tiled.calibrate import Measure

SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
NETWORKS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)),
    "mistral, window of 9": lambda: MistralForCausalLM(MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=9)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=60, n_positions=64, n_embd=32, n_layer=2, n_head=4)),
    "gemma 2, scores capped at 2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=8, attn_logit_softcapping=2.0, sliding_window=9)
    ),
    "gpt-oss, with sinks": lambda: GptOssForCausalLM(
        GptOssConfig(
            **SIZES, num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=9
        )
    ),
}
ELSEWHERE = {
    "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4)),
    "falcon": lambda: FalconForCausalLM(
        FalconConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    ),
    "gpt-j": lambda: GPTJForCausalLM(
        GPTJConfig(vocab_size=60, n_positions=64, n_embd=32, n_layer=2, n_head=4, rotary_dim=4)
    ),
    "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=4)),
}
TOKENS = torch.randint(60, (2, 30), generator=torch.Generator().manual_seed(0))


def network(kind="llama", sharp=8.0):
    """Sharp scores, so that there is something to skip."""
    torch.manual_seed(0)
    model = NETWORKS[kind]().eval()
    for name, parameter in model.named_parameters():
        if "q_proj" in name or "k_proj" in name or "c_attn.weight" in name:
            parameter.data.mul_(sharp)
        elif name.endswith("sinks"):
            torch.nn.init.normal_(parameter, 1.0, 0.5)
    return model


def rule(threshold=None, **more):
    cls = ATTENTIONS["blasst"]
    return cls(cls.Options(threshold=threshold, **{"block_q": 4, "block_k": 4, **more}))


@torch.no_grad()
def logits(model, tokens=TOKENS, **more):
    return model(input_ids=tokens, use_cache=False, **more).logits


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("phase", ["prefill", "decode", "both"])
def test_a_vanishing_threshold_changes_nothing(kind, phase):
    model = network(kind)
    plain = logits(model)
    with Attached(model, rule(1e-30), phase) as ledger:
        torch.testing.assert_close(logits(model), plain, rtol=1e-4, atol=1e-5)
    assert ledger.sparsity() == 0
    assert {at for _, at in ledger.tallies} == ({"prefill", "decode"} if phase == "both" else {phase})
    assert torch.equal(logits(model), plain)  # and is gone afterwards


def test_padding_is_masked_and_does_not_veto():
    model = network()
    padding = torch.ones_like(TOKENS)
    padding[0, :13] = 0
    with Attached(model, rule(0.3)) as ledger:
        padded = logits(model, attention_mask=padding)
    with Attached(model, rule(1e-30)):
        torch.testing.assert_close(
            logits(model, attention_mask=padding)[0, 13:], logits(model, TOKENS[:1, 13:])[0], rtol=1e-4, atol=1e-5
        )
    assert padded.isfinite().all() and 0 < ledger.sparsity() < 1


def test_decoding_in_one_pass_is_decoding_token_by_token():
    model = network()
    with Attached(model, rule(scale=5.0), "decode") as whole:
        at_once = logits(model)
    with Attached(model, rule(scale=5.0)) as single, torch.no_grad():
        cache, steps = None, []
        for i in range(TOKENS.shape[1]):
            out = model(input_ids=TOKENS[:, i : i + 1], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            steps.append(out.logits)
    torch.testing.assert_close(torch.cat(steps, 1), at_once, rtol=1e-4, atol=1e-5)
    counts = [[(key, int(t.kept), int(t.valid)) for key, t in sorted(x.tallies.items())] for x in (whole, single)]
    assert counts[0] == counts[1] and 0 < whole.sparsity() < 1


def test_measuring_changes_nothing_and_foretells_the_skips():
    model = network()
    plain = logits(model)
    source = rule(trials=[0.01, 0.1, 0.5, 0.9])
    measure = Measure(source)
    with Attached(model, measure):
        torch.testing.assert_close(logits(model), plain, rtol=1e-4, atol=1e-5)
    first = {}
    for trial in source.options.trials:
        with Attached(model, rule(trial)) as ledger:
            logits(model)
        first[trial] = int(ledger.tallies[0, "prefill"].valid) - int(ledger.tallies[0, "prefill"].kept)
    # of the first layer, whose input no skip has changed; the second one's is the measure's own pass
    alone = Measure(source)
    with Attached(model, alone), torch.no_grad():
        model.model.layers[0].self_attn(
            model.model.layers[0].input_layernorm(model.model.embed_tokens(TOKENS)),
            position_embeddings=model.model.rotary_emb(TOKENS.float(), torch.arange(30)[None]),
        )
    assert alone.curves[30].skipped.tolist() == list(first.values())
    assert measure.curves[30].valid == 2 * alone.curves[30].valid


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_rule_applies_to_networks_of_the_attention_interface(kind):
    model = network(kind)
    check_applies(model, lambda tokens: logits(model, tokens), rule(0.1), "prefill", TOKENS)


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_rule_that_would_be_applied_nowhere_is_refused(kind):
    """Attention of their own: a rule left no trace, and a cell said 0.00 % as if nothing could be skipped."""
    torch.manual_seed(0)
    model = ELSEWHERE[kind]().eval()
    with pytest.raises(RunFailed, match=r"attention=blasst: (no layer|this network takes no other)"):
        check_applies(model, lambda tokens: logits(model, tokens), rule(0.1), "prefill", TOKENS)


def test_what_else_attention_takes_is_refused():
    model = network()
    with Attached(model, rule(0.1)), pytest.raises(RunFailed, match="also takes position_bias"):
        logits(model, position_bias=torch.zeros(30, 30))


def test_an_additive_mask_is_added():
    """A bias of the scores, as of distances, in the place of a mask."""
    model = network()
    bias = -torch.arange(30.0).flip(0).expand(1, 1, 30, 30)
    mask = bias.masked_fill(~torch.ones(30, 30, dtype=torch.bool).tril(), torch.finfo(torch.float32).min)
    plain = logits(model, attention_mask=mask)
    assert not torch.allclose(plain, logits(model))
    for phase in ("prefill", "both"):
        with Attached(model, rule(1e-30), phase):
            torch.testing.assert_close(logits(model, attention_mask=mask), plain, rtol=1e-4, atol=1e-5)


def test_every_window_may_be_a_point_of_the_fit():
    """NVIDIA's Model-Optimizer has a point for each sample; pooled over a length they add up."""
    model = network()
    found = {}
    for points in ("lengths", "samples"):
        measure = Measure(rule(fit="exponential", points=points))
        with Attached(model, measure):
            for tokens in (TOKENS, TOKENS[:1].flip(1)):
                logits(model, tokens)
                measure.window += len(tokens)
        found[points] = measure.curves
    pooled, single = found["lengths"][30], [found["samples"][30, window] for window in range(3)]
    assert len(found["samples"]) == 3 and [curve.length for curve in single] == [30] * 3
    assert sum(curve.valid for curve in single) == pooled.valid
    assert torch.equal(sum(curve.skipped for curve in single), pooled.skipped)
    assert len({tuple(curve.skipped.tolist()) for curve in single}) == 3
    with pytest.raises(ValueError, match="points=samples is for fit=exponential"):
        rule(points="samples")
