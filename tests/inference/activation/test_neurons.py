"""CATS and CHESS: the dossier's exact cases, neurons of real networks whatever their names, and what thresholds promise."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from sparselab.core.errors import ConfigError
from sparselab.inference.activation.frozen.gates import threshold
from sparselab.inference.activation.frozen.masking import Masking
from sparselab.inference.activation.frozen.network import Network
from sparselab.inference.activation.frozen.neurons import find_neurons
from sparselab.inference.activation.frozen.sites import find_blocks
from sparselab.inference.activation.frozen.thresholds import by_channel, cut, scores, size, spread
from sparselab.inference.activation.neurons import gated
from sparselab.inference.activation.rule import ACTIVATIONS
from sparselab.inference.count import active_share
from sparselab.inference.parts import Activations
from sparselab.inputs.models.families.llama import llama_spec

G = torch.tensor([[1.0, -2.0, 0.5, 0.1], [0.2, 1.0, -3.0, 0.4]])
U = torch.tensor([[2.0, 0.1, 1.0, 4.0], [2.0, 0.1, -1.0, -4.0]])
TOKENS = torch.randint(60, (8, 24), generator=torch.Generator().manual_seed(0))
SIZES = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
ATTENTION = ["*.q_proj", "*.o_proj"]


def network_of(kind="Llama", **more):
    torch.manual_seed(0)
    sizes = {**SIZES, **({"head_dim": 8} if kind in ("Gemma", "Gemma2", "Qwen3") else {}), **more}
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes))
    for name, parameter in model.named_parameters():  # channels of different sizes, as after training
        if "up_proj" in name:
            parameter.data.mul_(torch.linspace(0.2, 3, len(parameter))[:, None])
        elif parameter.ndim > 1:
            parameter.data.mul_(10)
    return model.eval().requires_grad_(False)


def prepared(model, name="chess", level=0.5, tokens=TOKENS, fresh=None, **options):
    cls = ACTIVATIONS[name]
    used = cls(cls.Options(**options))
    windows = {"calibrate": tokens, "calibrate again": tokens if fresh is None else fresh}
    return used, used.prepare(
        Network(
            model,
            lambda batch: model(input_ids=batch, use_cache=False).logits,
            lambda purpose, at_once: list(windows[purpose].split(at_once or len(tokens))),
            level,
            lambda where: None,
        )
    )


@torch.no_grad()
def logits(model, tokens=TOKENS):
    return model(input_ids=tokens, use_cache=False).logits


def read_by(model, tokens=TOKENS):
    """What every linear layer reads in a pass, by name."""
    seen, handles = {}, []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, args, name=name: seen.update({name: args[0].clone()}), prepend=False
                )
            )
    logits(model, tokens)
    for handle in handles:
        handle.remove()
    return seen


# What a test can check exactly: the items of the dossier


def test_item_1_by_hand_rms_and_cats():
    weights = size(U, 2)
    assert weights.sqrt().tolist() == pytest.approx([2, 0.1, 1, 4])
    shown = scores(G, weights, 2).sqrt()
    assert torch.allclose(shown, torch.tensor([[2, 0.2, 0.5, 0.4], [0.4, 0.1, 3, 1.6]]))
    value = cut(scores(G, weights, 2), 0.5)
    assert float(value) ** 0.5 == pytest.approx(0.4)  # the fourth smallest of eight
    limits = by_channel(value, weights, 2)
    assert limits.tolist() == pytest.approx([0.2, 4, 0.4, 0.1])
    assert threshold(limits)(G.abs()).int().tolist() == [[1, 0, 1, 0], [0, 0, 1, 1]]
    value = cut(G.abs(), 0.5)
    assert float(value) == 0.5
    assert threshold(value)(G.abs()).int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]


def test_item_1_absmean_on_the_same_tensors():
    weights = size(U, 1)
    assert weights.tolist() == pytest.approx([2, 0.1, 1, 4])
    value = cut(scores(G, weights, 1), 0.5)
    assert by_channel(value, weights, 1).tolist() == pytest.approx([0.2, 4, 0.4, 0.1])


def test_item_2_the_two_statistics_agree_where_a_channels_magnitude_is_constant():
    torch.manual_seed(0)
    g, u = torch.randn(50, 12), torch.rand(12) * torch.randn(50, 12).sign()
    found = []
    for power in (1, 2):
        weights = size(u, power)
        found.append(by_channel(cut(scores(g, weights, power), 0.6), weights, power))
    torch.testing.assert_close(*found)
    varied = u * torch.rand(50, 1)
    assert not torch.allclose(size(varied, 1), size(varied, 2).sqrt(), rtol=1e-2)


@pytest.mark.parametrize("power", [1, 2])
def test_item_3_equal_channels_give_the_mask_of_cats(power):
    torch.manual_seed(0)
    g, weights = torch.randn(50, 12), torch.full((12,), 2.5) ** power
    limits = by_channel(cut(scores(g, weights, power), 0.5), weights, power) * (1 + 1e-6)
    assert torch.equal(threshold(limits)(g.abs()), threshold(cut(g.abs(), 0.5))(g.abs()))
    assert spread(torch.full((12,), 2.5)) == 0


@pytest.mark.parametrize("name", ["cats", "chess"])
@pytest.mark.parametrize("level", [0.1, 0.5, 0.77])
def test_item_4_on_its_own_calibration_text_a_group_has_exactly_so_many_zeros(name, level):
    """The first layer only: what later ones read is no longer the calibration's once layers before them are sparse."""
    model = network_of().double()  # so that no two scores tie
    used, active = prepared(model, name, level, group=len(TOKENS))
    with Masking(used, active.places, active.gates, 0.0) as masking:
        logits(model)
    count = masking.counts[active.places[0].name]
    assert count.read == TOKENS.numel() * 48
    gone = count.read - int(count.kept)
    # thresholds are float32: an entry within its rounding of the threshold may fall to either side
    assert abs(gone - int(count.read * level)) <= 1
    assert count.gated_sparsity == pytest.approx(int(count.read * level) / count.read, abs=1.5 / count.read)


@pytest.mark.parametrize("name", ["cats", "chess"])
def test_item_5_at_zero_the_output_is_the_same_bit_for_bit(name):
    model = network_of()
    dense = logits(model)
    used, active = prepared(model, name, 0.0, inputs=ATTENTION)
    assert not active.gates
    with Masking(used, active.places, active.gates, 0.0) as masking:
        assert torch.equal(logits(model), dense)
    assert all(count.sparsity == 0 for count in masking.counts.values())
    assert cut(G.abs(), 0.0) == 0 and cut(G.abs(), 0.1) == 0  # k = 0: nothing is asked for


# Sizes: vocabulary, width, heads, key and value heads, feed-forward width, depth
LLAMA2 = {"vocab_size": 32000, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 32,
          "intermediate_size": 11008, "num_hidden_layers": 32}  # fmt: skip
LLAMA3 = {**LLAMA2, "vocab_size": 128256, "num_key_value_heads": 8, "intermediate_size": 14336}


class Fixed:
    """A place of given size."""

    def __init__(self, name, kind, params):
        self.name, self.kind, self.params = name, kind, params


@pytest.mark.parametrize(
    ("sizes", "level", "without", "with_"),
    [(LLAMA2, 0.5, 0.777, 0.694), (LLAMA3, 0.5, 0.731, 0.654), (LLAMA3, 0.7, 0.623, 0.515)],
)
def test_item_6_activated_parameters(sizes, level, without, with_):
    spec = llama_spec(sizes, 1).model_spec("llama")
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    neurons = [Fixed(f"act {i}", "neuron", 2 * width * inner) for i in range(32)]
    inputs = [Fixed(f"{kind} {i}", "input", width * width) for i in range(32) for kind in "qo"]

    class Counts:
        counts = dict.fromkeys(
            [place.name for place in neurons + inputs], type("", (), {"gated_sparsity": level, "sparsity": level})
        )

    for places, share in ((neurons, without), (neurons + inputs, with_)):
        assert active_share(spec, Activations(places, {}, {}), Counts()) == pytest.approx(share, abs=5e-4)
    assert active_share(spec, None, None) == 1


@pytest.mark.parametrize(("name", "options"), [("cats", {}), ("chess", {}), ("chess", {"inputs": ATTENTION})])
def test_item_7_keys_and_values_read_what_they_read(name, options):
    """Of the first layer: what later ones read has passed sparse layers."""
    model = network_of()
    dense = read_by(model)
    used, active = prepared(model, name, 0.5, **options)
    with Masking(used, active.places, active.gates, 0.0):
        sparse = read_by(model)
    first = "model.layers.0.self_attn."
    assert torch.equal(sparse[first + "k_proj"], dense[first + "k_proj"])
    assert torch.equal(sparse[first + "v_proj"], dense[first + "v_proj"])
    assert torch.equal(sparse[first + "q_proj"], dense[first + "q_proj"]) == (not options)
    for layer in (0, 1):  # and in every layer all three read one tensor, of which only q_proj sees zeros
        at = f"model.layers.{layer}.self_attn."
        assert torch.equal(sparse[at + "k_proj"], sparse[at + "v_proj"])
        q, k = sparse[at + "q_proj"], sparse[at + "k_proj"]
        assert torch.equal(q, torch.where(q == 0, 0, k))
        assert ((q == 0).float().mean() > 0.3) == bool(options)


def test_item_8_skipping_columns_gives_what_the_mask_gives():
    model = network_of()
    used, active = prepared(model, "chess", 0.6)
    mlp, neurons = model.model.layers[0].mlp, active.places[0]
    assert neurons.act is mlp.act_fn
    x = torch.randn(5, 32)
    with Masking(used, active.places, active.gates, 0.0):
        masked = mlp(x)
    g = F.silu(x @ mlp.gate_proj.weight.T)
    for token, row, out in zip(x, g, masked, strict=True):
        kept = active.gates[neurons.name](row.abs()).nonzero().flatten()
        assert 0 < len(kept) < 48
        skipped = mlp.down_proj.weight[:, kept] @ (row[kept] * (mlp.up_proj.weight[kept] @ token))
        torch.testing.assert_close(out, skipped)


# Beyond them


def test_thresholds_of_groups_are_averaged_and_the_second_pass_reads_fresh_windows():
    """Written out on the network: means of squares and quantiles of each group, averaged (first release)."""
    model = network_of()
    fresh = torch.randint(60, (8, 24), generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def of(tokens):
        layer = model.model.layers[0]
        x = layer.post_attention_layernorm(_after_attention(model, tokens))
        return F.silu(layer.mlp.gate_proj(x)), layer.mlp.up_proj(x)

    def by_hand(level, again):
        squares = torch.stack([of(group)[1].square().flatten(0, 1).mean(0) for group in TOKENS.split(4)]).mean(0)
        cuts = []
        for group in again.split(4):
            each = (of(group)[0] ** 2 * squares).flatten()
            cuts.append(each.kthvalue(int(each.numel() * level)).values)
        return (torch.stack(cuts).mean() / squares) ** 0.5

    for second_pass, again in (("fresh", fresh), ("same", TOKENS)):
        _, active = prepared(model, "chess", 0.5, fresh=fresh, second_pass=second_pass)
        limits = by_hand(0.5, again)
        gate = active.gates[active.places[0].name]
        assert gate((limits * 1.0001)[None]).all() and not gate((limits * 0.9999)[None]).any()
        assert active.spreads[active.places[0].name] > 0.3


@torch.no_grad()
def _after_attention(model, tokens):
    seen = []
    handle = model.model.layers[0].post_attention_layernorm.register_forward_pre_hook(
        lambda m, args: seen.append(args[0])
    )
    logits(model, tokens)
    handle.remove()
    return seen[0]


def test_the_down_norm_weighs_a_channel_by_the_column_that_reads_it():
    model = network_of()
    down = model.model.layers[0].mlp.down_proj.weight
    down.data[:, 3] *= 100
    loud, plain = (
        prepared(model, "chess", 0.5, down_norm=norm)[1].gates["model.layers.0.mlp.act_fn"] for norm in (True, False)
    )
    values = torch.logspace(-9, 3, 500)[:, None].expand(-1, 48)
    passing = [gate(values).sum(0) for gate in (loud, plain)]  # the more, the lower a channel's threshold
    assert passing[0][3] - passing[1][3] > 50  # two decades of twelve are 83
    assert (passing[0] - passing[1])[4:].abs().max() < 30


def test_a_dead_channel_never_passes_and_does_no_harm():
    weights = torch.tensor([0.0, 1.0])
    limits = by_channel(torch.tensor(0.25), weights, 2)
    assert not threshold(limits)(torch.tensor([[1e6, 1.0]]))[0, 0] and limits[1] == 0.5
    model = network_of()
    model.model.layers[0].mlp.up_proj.weight.data[7] = 0
    dense = logits(model)
    used, active = prepared(model, "chess", 0.02)
    with Masking(used, active.places, active.gates, 0.0):
        assert torch.isfinite(logits(model)).all()
    assert torch.isfinite(dense).all()


def test_where_more_channels_are_dead_than_asked_for_only_the_others_pass():
    """The quantile is 0 there: thresholds of 0 let the dead ones pass, and nothing was sparse."""
    weights = torch.tensor([0.0, 0.0, 0.0, 1.0])
    g = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    value = cut(scores(g, weights, 2), 0.5)
    assert value == 0
    assert threshold(by_channel(value, weights, 2))(g).int().tolist() == [[0, 0, 0, 1]] * 5


def test_a_dead_layer_has_no_spread_and_all_its_neurons_are_skipped():
    model = network_of()
    model.model.layers[0].mlp.up_proj.weight.data.zero_()
    dense = logits(model)
    used, active = prepared(model, "chess", 0.5)
    first = active.places[0].name
    assert active.spreads[first] == 0
    active.gates = {first: active.gates[first]}
    with Masking(used, active.places, active.gates, 0.0) as masking:
        assert torch.equal(logits(model), dense)
    assert masking.counts[first].gated_sparsity == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [("Llama", {}), ("Mistral", {}), ("Qwen2", {}), ("Qwen3", {}), ("Gemma", {}), ("Gemma2", {}), ("Phi3", {})],
)
def test_gated_layers_are_found_by_what_they_compute(kind, options):
    """Also of Phi-3, whose gate and up-projection are one layer; whatever the modules are called."""
    model = network_of(kind, **options)
    found = find_neurons(model, find_blocks(model, TOKENS[:1], ()), TOKENS)
    assert [(n.inputs, n.outputs, n.params) for n in found] == [(48, 32, 2 * 32 * 48)] * 2
    assert [n.down.name for n in found] == [f"model.layers.{i}.mlp.down_proj" for i in range(2)]
    assert {n.first for n in found} == {48 if kind == "Phi3" else 0}
    h = read_by(model)["model.layers.1.mlp.down_proj"]
    seen = {}
    handles = [found[1].attach(lambda g: seen.update(g=g)), found[1].attach_up(lambda u: seen.update(u=u))]
    logits(model)
    for handle in handles:
        handle.remove()
    assert torch.equal(seen["g"] * seen["u"], h)
    used, active = prepared(model, "chess", 0.5)
    with Masking(used, active.places, active.gates, 0.0) as masking:
        zeros = (read_by(model)["model.layers.0.mlp.down_proj"] == 0).float().mean()
    assert masking.counts[active.places[0].name].gated_sparsity == pytest.approx(float(zeros), abs=1e-6)
    assert 0.4 < zeros < 0.6


@pytest.mark.parametrize("kind", ["GPT2", "OPT", "GPTNeoX"])
def test_networks_without_gates_are_refused(kind):
    sizes = {
        "GPT2": {"vocab_size": 60, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4},
        "OPT": {"vocab_size": 60, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                "word_embed_proj_dim": 32, "max_position_embeddings": 64},
        "GPTNeoX": {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                    "num_attention_heads": 4, "max_position_embeddings": 64},
    }[kind]  # fmt: skip
    name = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    model = getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**sizes)).eval().requires_grad_(False)
    with pytest.raises(ConfigError, match="no feed-forward layer whose gate is a module"):
        prepared(model, "cats", 0.5)


def test_an_activation_that_serves_several_layers_is_refused():
    model = network_of()
    for layer in model.model.layers:
        layer.mlp.act_fn = model.model.layers[0].mlp.act_fn
    with pytest.raises(ConfigError, match="one activation module serves several"):
        prepared(model, "cats", 0.5)


def test_inputs_that_match_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"\*.query matches no linear layer"):
        prepared(network_of(), "cats", 0.5, inputs=["*.query"])


def test_shapes_tell_before_anything_is_built():
    assert gated(llama_spec(LLAMA2, 1).model_spec("llama"))


def test_thresholds_of_bfloat16_networks_are_float32():
    model = network_of().to(torch.bfloat16)
    used, active = prepared(model, "chess", 0.5, inputs=ATTENTION)
    with Masking(used, active.places, active.gates, 0.0) as masking:
        assert logits(model).dtype == torch.bfloat16
    for place in active.places:
        assert masking.counts[place.name].gated_sparsity == pytest.approx(0.5, abs=0.1)
    _, one = prepared(model, "cats", 0.5)
    zero = torch.zeros(1, 48, dtype=torch.bfloat16)
    for gate in (active.gates[active.places[0].name], one.gates[one.places[0].name]):
        limit = gate.__closure__[0].cell_contents
        assert limit.dtype == torch.float32 and torch.result_type(zero, limit) == torch.float32
