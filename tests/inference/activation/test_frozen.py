"""Rotation, folding, sites and allocation on real transformers networks."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from transformers import GemmaConfig, GemmaForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from sparselab.core.errors import ConfigError
from sparselab.inference.activation.frozen import rotate as rotate_module
from sparselab.inference.activation.frozen.allocate import (
    _error,
    _output,
    block_calls,
    effective,
    greedy,
    nearest,
    uniform,
)
from sparselab.inference.activation.frozen.calibrate import SAMPLE, Gates, stride
from sparselab.inference.activation.frozen.gates import topk
from sparselab.inference.activation.frozen.masking import Masking
from sparselab.inference.activation.frozen.rotate import rotate
from sparselab.inference.activation.frozen.sites import find_blocks
from sparselab.inference.activation.rule import ACTIVATIONS, InputRuleOptions

TOKENS = torch.randint(60, (2, 24), generator=torch.Generator().manual_seed(0))
PIVOTS = InputRuleOptions().pivots


def shaken(model):
    """With gains and shifts that are not one and zero, as after training."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0 if "weight" in name else 0.0, 0.3)
    return model.eval()


def llama(**more):
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return shaken(LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, **more)))


def gpt2():
    torch.manual_seed(0)
    return shaken(GPT2LMHeadModel(GPT2Config(vocab_size=60, n_positions=32, n_embd=32, n_layer=2, n_head=4)))


@torch.no_grad()
def logits(model):
    return model(input_ids=TOKENS, use_cache=False).logits


def rule(name="wina", **options):
    cls = ACTIVATIONS[name]
    return cls(cls.Options(**options))


def test_the_sites_of_a_llama_by_what_they_read():
    blocks = find_blocks(llama(), TOKENS, PIVOTS)
    words = [[[s.name.split(".")[-1] for s in shared.sites] for shared in block.inputs] for block in blocks]
    assert words == [[["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]] * 2
    assert [type(shared.source).__name__ for shared in blocks[0].inputs][::2] == ["LlamaRMSNorm"] * 2
    pivots = [shared.pivot and shared.pivot.name.split(".")[-1] for shared in blocks[1].inputs]
    assert pivots == ["k_proj", None, "gate_proj", None]
    assert (blocks[0].sites[1].outputs, blocks[0].sites[1].inputs) == (16, 32)


def test_transposed_weights_of_gpt2_are_read_as_outputs_by_inputs():
    blocks = find_blocks(gpt2(), TOKENS, ["*.c_attn"])
    site = blocks[0].sites[0]
    assert (site.outputs, site.inputs, site.pivot) == (96, 32, True)
    assert torch.equal(site.column_norms(), site.module.weight.detach().norm(dim=1))


@pytest.mark.parametrize("tied", [False, True])
def test_rotation_makes_columns_orthogonal_and_changes_no_output(tied):
    model = llama(tie_word_embeddings=tied).double()
    dense = logits(model)
    blocks = find_blocks(model, TOKENS, PIVOTS)
    assert rotate(blocks) == 2 * 2 * 32 * 32
    torch.testing.assert_close(logits(model), dense, rtol=1e-9, atol=1e-10)
    for block in blocks:
        for shared in block.inputs[::2]:
            gram = shared.pivot.weight.T @ shared.pivot.weight
            assert (gram - gram.diag().diag()).abs().max() < 1e-8
            assert torch.equal(shared.source.weight, torch.ones(32, dtype=torch.float64))


def test_rotation_of_layer_norms_with_shifts():
    model = gpt2().double()
    dense = logits(model)
    blocks = find_blocks(model, TOKENS, ["*.c_attn", "*.c_fc"])
    rotate(blocks)
    torch.testing.assert_close(logits(model), dense, rtol=1e-9, atol=1e-10)


def test_the_layers_read_what_they_read_when_the_stream_is_rotated():
    """The paper's form, written out: embeddings, shortcuts and outputs turned instead of the norms' outputs.

    Equal to float32's rounding only: transformers computes norms in float32, also of a float64 network.
    """
    model = llama().double()
    blocks = find_blocks(model, TOKENS, PIVOTS)
    rotate(blocks)
    inputs = {}
    for block in blocks:
        for site in block.sites:
            site.module.register_forward_hook(lambda m, args, out, name=site.name: inputs.update({name: args[0]}))
    logits(model)
    paper = llama().double()
    layers = paper.model.layers
    attention = [torch.linalg.svd((x.self_attn.k_proj.weight * x.input_layernorm.weight), full_matrices=True).Vh.T
                 for x in layers]  # fmt: skip
    loader = [torch.linalg.svd((x.mlp.gate_proj.weight * x.post_attention_layernorm.weight), full_matrices=True).Vh.T
            for x in layers]  # fmt: skip
    normal = lambda x: x * (x.square().mean(-1, keepdim=True) + paper.config.rms_norm_eps).rsqrt()  # noqa: E731
    with torch.no_grad():
        stream = paper.model.embed_tokens(TOKENS) @ attention[0]
        for i, layer in enumerate(layers):
            qa, qm, after = attention[i], loader[i], attention[min(i + 1, len(layers) - 1)]
            x = normal(stream)
            torch.testing.assert_close(x, inputs[f"model.layers.{i}.self_attn.k_proj"], rtol=1e-4, atol=1e-5)
            # what attention gives in its own basis, turned on its way out
            plain = layer.self_attn(
                hidden_states=(x @ qa.T) * layer.input_layernorm.weight,
                position_embeddings=paper.model.rotary_emb(stream, torch.arange(24)[None]),
            )[0]
            stream = stream @ (qa.T @ qm) + plain @ qm
            x = normal(stream)
            torch.testing.assert_close(x, inputs[f"model.layers.{i}.mlp.gate_proj"], rtol=1e-4, atol=1e-5)
            plain = layer.mlp((x @ qm.T) * layer.post_attention_layernorm.weight)
            stream = stream @ (qm.T @ after) + plain @ after


def test_a_norm_that_stores_its_gain_less_one_is_refused():
    torch.manual_seed(0)
    config = GemmaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, pad_token_id=0,
    )  # fmt: skip
    model = shaken(GemmaForCausalLM(config))
    with pytest.raises(ConfigError, match="the gain of GemmaRMSNorm is not its weight"):
        rotate(find_blocks(model, TOKENS, PIVOTS))


@pytest.mark.parametrize(
    ("pivots", "problem"),
    [
        (["*.k_proj", "*.q_proj"], "read one input"),
        (["*.key_proj"], "no layer has such a name"),
        (["*.down_proj"], "does not read a norm"),
    ],
)
def test_bad_pivots_are_refused(pivots, problem):
    with pytest.raises(ConfigError, match=problem):
        rotate(find_blocks(llama(), TOKENS, pivots))


def test_sparsity_zero_is_the_dense_network_and_counts_are_exact():
    model = llama()
    dense = logits(model)
    blocks = find_blocks(model, TOKENS, PIVOTS)
    sites = [site for block in blocks for site in block.sites]
    with Masking(rule(), sites, {}, 0.01):
        assert torch.equal(logits(model), dense)
    with Masking(rule(), sites, {site.name: topk(0.65) for site in sites}, 0.01) as masking:
        assert not torch.equal(logits(model), dense)
    for site in sites:
        count = masking.counts[site.name]
        assert count.gated == 2 * 23 * site.inputs  # int(0.99 * 24) tokens of each window
        assert count.gated - int(count.kept) == 2 * 23 * (site.inputs - int(site.inputs * 0.35))


def test_greedy_allocation_empties_first_what_costs_least_and_reaches_its_target():
    model = llama()
    blocks = find_blocks(model, TOKENS, PIVOTS)
    model.model.layers[0].self_attn.o_proj.weight.data.mul_(1e-4)  # so all of this attention does next to nothing
    used = rule("teal", greedy_step=0.25)
    log = greedy(model, blocks[0], [TOKENS], used, lambda site, level: topk(level) if level else None, 0.5)
    assert log[0].effective == 0 and log[-1].effective >= 0.5 - 1e-9
    assert [b.effective for b in log] == sorted(b.effective for b in log)
    for before, after in pairwise(log):  # one step moves one site, by the same share of parameters
        moved = [name for name in after.levels if after.levels[name] != before.levels[name]]
        assert len(moved) == 1
        assert after.effective - before.effective == pytest.approx(0.25 * 1024 / (2 * 1024 + 2 * 512 + 3 * 1536))
    assert {name.split(".")[3] for name, level in log[6].levels.items() if level} == {"self_attn"}
    chosen = nearest(log, 0.4)
    assert abs(chosen.effective - 0.4) == min(abs(row.effective - 0.4) for row in log)
    assert effective(blocks[0].sites, uniform(blocks, 0.4)) == pytest.approx(0.4)


@torch.no_grad()
def test_every_window_counts_alike_in_the_greedy_search_however_they_are_batched():
    """Windows of a shorter last batch counted more: engine.batch_size could change the allocation."""
    model, used = llama(), rule("teal", greedy_step=0.25)
    block = find_blocks(model, TOKENS, PIVOTS)[0]
    windows = torch.randint(60, (7, 24), generator=torch.Generator().manual_seed(1))
    errors, logs = [], []
    for size in (7, 4, 3, 1):
        batches = list(windows.split(size))
        calls = block_calls(model, block, batches)
        clean = [_output(block, call) for call in calls]
        with Masking(used, block.sites, {site.name: topk(0.5) for site in block.sites}, 0.0):
            errors.append(_error(block, calls, clean, 0.25))
        logs.append(greedy(model, block, batches, used, lambda site, level: topk(level) if level else None, 0.5))
    assert errors == pytest.approx([errors[0]] * 4, rel=1e-5)
    assert all([row.levels for row in log] == [row.levels for row in logs[0]] for log in logs)


def test_thresholds_weigh_every_window_and_input_alike(monkeypatch):
    monkeypatch.setattr("sparselab.inference.activation.frozen.calibrate.SAMPLE", 1000)
    model, used = llama(), rule("teal", gate="threshold", dense_prefix=0.0)
    blocks = find_blocks(model, TOKENS, PIVOTS)
    windows = torch.randint(60, (7, 24), generator=torch.Generator().manual_seed(1))
    found = [Gates(used, model, blocks, list(windows.split(size))).samples for size in (7, 4, 1)]
    for name, sample in found[0].items():
        assert 700 < len(sample) <= 1000 + 7
        for other in found[1:]:
            torch.testing.assert_close(other[name].sort().values, sample.sort().values)


@pytest.mark.parametrize("inputs", [7, 48, 64, 4096])
def test_a_stride_meets_every_input(inputs):
    assert stride(1000, inputs) == 1
    step = stride(20 * SAMPLE, inputs)
    assert step >= 20 and len({at % inputs for at in range(0, step * inputs, step)}) == inputs


def test_a_basis_is_kept_for_the_same_bytes_up_to_a_size(monkeypatch):
    monkeypatch.setattr(rotate_module, "_bases", {})
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    first = rotate_module.right_basis(weight)
    assert rotate_module.right_basis(weight.T.contiguous().T) is first
    assert rotate_module.right_basis(weight.double()) is not first
    monkeypatch.setattr(rotate_module, "KEPT", 3 * 8 * 64 - 1)
    other = rotate_module.right_basis(weight + 1)
    assert torch.equal(rotate_module.right_basis(weight + 1), other) and len(rotate_module._bases) == 2
