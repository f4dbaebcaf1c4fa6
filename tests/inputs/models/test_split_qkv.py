"""Queries, keys and values apart: the same function, the same weights, and each third is what it is called."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from data_specs import image_data, text_data
from safetensors.torch import save_file
from torch import nn

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import ConfigError
from sparselab.core.options import validate
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.models.qkv import IN_THIRDS, SeparateQKV, split
from sparselab.inputs.models.trace import trace
from sparselab.inputs.models.transforms.split_qkv import SplitQKV
from sparselab.weights.cost import cost_of
from sparselab.weights.targets import select

PIXELS = image_data((3, 8, 8), 10)
IMAGENET = image_data((3, 224, 224), 1000)
WORDS = text_data(12, 60)
SPLIT = {"name": "split_qkv"}
VIT = {"width": 12, "depth": 2, "heads": 3, "patch": 4}
GPT = {"width": 12, "depth": 2, "heads": 3}
SWIN = {"arch": "swinv2_tiny_window8_256"}
NETWORKS = [("vit", VIT, PIXELS), ("gpt", GPT, WORDS)]


def family(name: str, transform: dict | None = SPLIT, **options: object):
    return MODELS[name](validate(MODELS[name].Options, {**options, "transform": transform}, "model"))


def batch(data: DataSpec) -> torch.Tensor:
    torch.manual_seed(1)
    return data.inputs.sample(2)


def built(member, data):
    torch.manual_seed(0)
    return member.build(data).eval()


@pytest.mark.parametrize(("name", "options", "data"), NETWORKS)
def test_it_starts_as_the_plain_network_and_computes_the_same(name, options, data):
    plain, apart = family(name, None, **options), family(name, **options)
    one, three = built(plain, data), built(apart, data)
    after = torch.rand(())
    built(plain, data)
    assert torch.equal(torch.rand(()), after)  # dividing a layer draws no random numbers
    with torch.no_grad():
        torch.testing.assert_close(
            apart.logits(three, batch(data)), plain.logits(one, batch(data)), rtol=1e-5, atol=1e-6
        )
    fused = {k: v for k, v in one.state_dict().items() if "qkv" in k or "c_attn" in k}
    axis = -1 if name == "gpt" else 0
    for key, value in fused.items():
        path, _, kind = key.rpartition(".")
        parts = [three.get_parameter(f"{path}.{letter}.{kind}") for letter in "qkv"]
        assert torch.equal(torch.cat(parts, axis), value)
    rest = {k: v for k, v in one.state_dict().items() if k not in fused}
    assert all(torch.equal(three.state_dict()[key], value) for key, value in rest.items())


@pytest.mark.parametrize(("name", "options", "data"), NETWORKS)
def test_gradients_are_thirds_of_the_plain_ones(name, options, data):
    models = []
    for change in (None, SPLIT):
        member = family(name, change, **options)
        model = built(member, data).double()
        x = batch(data)
        member.logits(model, x.double() if x.is_floating_point() else x).square().sum().backward()
        models.append(dict(model.named_parameters()))
    plain, apart = models
    for key, value in plain.items():
        path, _, kind = key.rpartition(".")
        grads = [apart[f"{path}.{letter}.{kind}"].grad for letter in "qkv"] if key not in apart else [apart[key].grad]
        torch.testing.assert_close(torch.cat(grads, -1 if name == "gpt" and len(grads) > 1 else 0), value.grad)


@pytest.mark.parametrize(("name", "options", "data"), NETWORKS)
def test_closed_form_equals_trace(name, options, data):
    member = family(name, **options)
    model_spec, plain = member.model_spec(data), family(name, None, **options).model_spec(data)
    assert model_spec == trace(member.build(data), data, name)
    assert (model_spec.macs, model_spec.params, model_spec.fixed_macs) == (plain.macs, plain.params, plain.fixed_macs)
    assert model_spec.plain_macs is None  # it takes nothing's place at equal cost: it is the same network


def test_each_of_the_three_can_be_selected():
    model_spec = family("vit", **VIT).model_spec(PIXELS)
    assert [x.name for x in select(model_spec, ["@q", "@k"])] == [
        f"blocks.{i}.attn.qkv.{x}" for i in (0, 1) for x in "qk"
    ]
    assert [(x.shape, set(x.roles)) for x in select(model_spec, ["blocks.0.attn.qkv.*"])] == [
        ((12, 12), {"q"}), ((12, 12), {"k"}), ((12, 12), {"v"}),
    ]  # fmt: skip
    shapes = {x.shape for x in select(family("gpt", **GPT).model_spec(WORDS), ["@q", "@k", "@v"])}
    assert shapes == {(12, 12)}


# -- every third is what it is called ----------------------------------------------------------------------------------


def attention(name: str) -> tuple[nn.Module, str, torch.Tensor]:
    """A small module of the class, the name of its fused layer, and an input."""
    path, _, cls = name.rpartition(".")
    made = getattr(importlib.import_module(path), cls)
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8)
    if "gpt2" in name:
        from transformers import GPT2Config

        return made(GPT2Config(n_embd=8, n_head=2, attn_pdrop=0.0), layer_idx=0), "c_attn", x
    others = (
        {"window_size": (2, 2)} if "Window" in cls else {"qk_norm": False, "scale_norm": False} if "eva" in name else {}
    )
    return made(dim=8, num_heads=2, qkv_bias=True, **others), "qkv", x


@pytest.mark.parametrize("name", sorted(IN_THIRDS))
def test_thirds_are_queries_keys_and_values(name):
    module, fused, x = attention(name)
    holder = nn.Module()
    holder.attn = module.eval()
    for bias in ("q_bias", "v_bias", "k_bias"):  # of modules that add them beside the layer
        if getattr(module, bias, None) is not None:
            getattr(module, bias).data.zero_()
    nn.init.normal_(getattr(module, fused).weight)

    def output() -> torch.Tensor:
        with torch.no_grad():
            found = module(x)
        return found[0] if isinstance(found, tuple) else found

    before = output()
    split(holder, "model.transform.name=split_qkv")
    parts = getattr(module, fused)
    assert isinstance(parts, SeparateQKV)
    torch.testing.assert_close(output(), before, rtol=1e-5, atol=1e-6)

    def without(*letters: str) -> torch.Tensor:
        state = {key: value.clone() for key, value in parts.state_dict().items()}
        for letter in letters:
            for tensor in getattr(parts, letter).parameters():
                nn.init.zeros_(tensor)
        found = output()
        parts.load_state_dict(state)
        return found

    assert not torch.allclose(without("q"), before, atol=1e-4)
    torch.testing.assert_close(without("q", "k"), without("q"))  # no queries: nobody is asked
    torch.testing.assert_close(without("q", "k"), without("k"))
    rows = without("v")  # no values: every token gets the same, the projection's bias
    torch.testing.assert_close(rows, rows[:1, :1].expand_as(rows))
    if getattr(parts.k, "bias", None) is not None and "rope" not in name.lower():
        with torch.no_grad():
            parts.k.bias.add_(3.0)  # the same for all keys: a softmax over keys does not see it
            torch.testing.assert_close(output(), before, rtol=1e-4, atol=1e-5)
            parts.q.bias.add_(3.0)
            assert not torch.allclose(output(), before, atol=1e-3)


def test_a_network_of_timm_whose_weights_are_read_past_the_layer():
    """Swin V2 hands the fused weight to a function; apart, its layers are called and so can be seen."""
    data = image_data((3, 64, 64), 10)
    plain, apart = family("timm", None, **SWIN), family("timm", **SWIN)
    assert apart.model_spec(data) is None
    one, three = built(plain, data), built(apart, data)
    with torch.no_grad():
        torch.testing.assert_close(three(batch(data)), one(batch(data)), rtol=1e-4, atol=1e-5)
    model_spec = trace(three, data)
    assert len(select(model_spec, ["@q"])) == len(select(model_spec, ["@v"])) == 12
    assert model_spec.macs == trace(one, data).macs
    fused = select(trace(one, data), ["@qkv"])  # read past their module, layers all the same
    assert [layer.macs for layer in fused] == [3 * layer.macs for layer in select(model_spec, ["@q"])]


@pytest.mark.parametrize(
    ("arch", "line"),
    [
        ("resnet18", "model.transform.name=split_qkv: the network has no linear layer with queries, keys and values in one — "
                     "leave it out"),
        ("maxvit_tiny_tf_224", "model.transform.name=split_qkv: the order of stages.0.blocks.0.attn_block.attn.qkv's "
                               "outputs is not known (AttentionCl) — leave it out"),
    ],
)  # fmt: skip
def test_networks_of_timm_that_cannot_be_divided(arch, line):
    with torch.device("meta"), pytest.raises(ConfigError) as refused:
        family("timm", arch=arch).build(IMAGENET)
    assert str(refused.value) == line


def test_networks_without_such_a_layer_are_refused_without_torch():
    with pytest.raises(ConfigError) as refused:
        family("mlp").model_spec(PIXELS)
    assert str(refused.value) == (
        "model.transform.name=split_qkv: model=mlp has no layer with queries, keys and values in one — leave it out"
    )


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options", "data"), NETWORKS)
def test_weights_of_the_plain_network_are_read_and_so_are_its_own(name, options, data, tmp_path: Path):
    plain = built(family(name, None, **options), data)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(torch.randn_like(parameter))
    state = {key: value.clone() for key, value in plain.state_dict().items() if key != "lm_head.weight"}
    save_file(state, tmp_path / "plain.safetensors")
    member = family(name, **options, weights=str(tmp_path / "plain.safetensors"))
    assert member.issues(data) == []
    apart = member.build(data)
    same = family(name, **options)
    with torch.no_grad():
        want = same.logits(plain, batch(data))
        torch.testing.assert_close(same.logits(apart.eval(), batch(data)), want, rtol=1e-4, atol=1e-5)
    own = {key: value.clone() for key, value in apart.state_dict().items() if key != "lm_head.weight"}
    save_file(own, tmp_path / "own.safetensors")
    again = family(name, **options, weights=str(tmp_path / "own.safetensors"))
    assert again.issues(data) == []
    assert all(torch.equal(a, b) for a, b in zip(again.build(data).parameters(), apart.parameters(), strict=True))


def test_only_tensors_of_the_three_are_parts_of_another():
    part_of = SplitQKV(SplitQKV.Options()).part_of
    part = part_of("blocks.0.attn.qkv.k.weight")
    assert (part.whole, part.index, part.count) == ("blocks.0.attn.qkv.weight", 1, 3)
    assert [part_of(name) for name in ("cls_token", "norm.weight", "q.weight", "")] == [None] * 4


def test_weights_that_do_not_fit_are_refused_by_their_header(tmp_path: Path):
    state = built(family("vit", None, **VIT), PIXELS).state_dict()
    state = {key: value.clone() for key, value in state.items()}
    state["blocks.1.attn.qkv.weight"] = torch.zeros(24, 12)
    del state["blocks.0.attn.qkv.weight"]
    save_file(state, tmp_path / "w.safetensors")
    member = family("vit", **VIT, weights=str(tmp_path / "w.safetensors"))
    lines = [issue.problem for issue in member.issues(PIXELS)]
    assert lines == [
        "lacks tensor blocks.0.attn.qkv.q.weight (and 2 more)",
        "shape of blocks.1.attn.qkv.q.weight (and 2 more) is [24, 12], not [12, 12]",
    ]
    with pytest.raises(ConfigError):
        family("vit", **VIT).load(built(family("vit", **VIT), PIXELS), str(tmp_path / "w.safetensors"))


def test_the_library_is_told_nothing_of_tensors_that_it_does_not_know():
    member, plain = family("gpt", **GPT), family("gpt", None, **GPT)
    wide = family("gpt", {"name": "sparse_wide", "sparsity": 0.5}, **GPT)
    assert member.library_config(member.build(WORDS)) is None
    assert plain.library_config(plain.build(WORDS))["n_embd"] == 12
    assert wide.library_config(wide.build(WORDS))["n_embd"] == 15


# -- the paper's accounting (arXiv 2402.04744) -------------------------------------------------------------------------


def test_shares_of_a_block_of_vit_base():
    """197 tokens: QKV 24.0 %, projection 8.0 %, attention products 4.1 %, feed-forward 63.9 % of a block."""
    model_spec = family("vit", width=768, depth=12, heads=12, patch=16).model_spec(IMAGENET)
    inside = [x for x in model_spec.layers if x.name.startswith("blocks.0.")]
    products = model_spec.fixed_macs["blocks.0.attn"]
    block = sum(x.macs for x in inside) + products

    def share(*roles: str) -> float:
        return sum(x.macs for x in inside if x.roles & set(roles)) / block

    assert [round(100 * x, 1) for x in (share("q", "k", "v"), share("proj"), products / block, share("ff"))] == [
        24.0, 8.0, 4.1, 63.9,
    ]  # fmt: skip
    assert share("q") == share("k") == share("v")
    t, d = 197, 768
    assert share("ff") == pytest.approx(8 * t * d**2 / (12 * t * d**2 + 2 * t**2 * d))
    weights = sum(x.numel for x in inside)
    assert sum(x.numel for x in inside if "ff" in x.roles) / weights == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("include", "share", "costs"),
    [
        (["@ff"], 8, [0.680, 0.521, 0.441, 0.401, 0.381, 0.366]),  # printed in the notes on the paper
        (["@ff", "@q", "@k"], 10, [0.600, 0.401, 0.301, 0.251, 0.226, 0.207]),
        (["@ff", "@q", "@k", "@v"], 11, [0.560, 0.341, 0.231, 0.176, 0.148, 0.128]),
    ],
)
def test_forward_cost_of_a_block_of_vit_base(include, share, costs):
    """``share`` of the 12 + 2 T / D parts that a block of width D costs at T tokens, times what is gone, is saved."""
    model_spec = family("vit", width=768, depth=12, heads=12, patch=16).model_spec(IMAGENET)
    around = model_spec.layers[0].macs + model_spec.layers[-1].macs
    sparse = select(model_spec, include)
    for density, cost in zip((1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 128), costs, strict=True):
        spent = cost_of(model_spec, {x.name: int(x.numel * density) for x in sparse}).macs
        found = (spent - around) / (model_spec.macs - around)
        assert found == pytest.approx(1 - share / (12 + 2 * 197 / 768) * (1 - density))
        assert found == pytest.approx(cost, abs=6e-4)
