"""Every closed form against a traced network: names, kinds, shapes, roles, multiply-accumulates, parameters."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from data_specs import image_data, spec_of, text_data
from torch.utils.flop_counter import FlopCounterMode

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Activations, Images, Taken, Users
from sparselab.core.options import validate
from sparselab.inputs.models.family import MODELS, Family
from sparselab.inputs.models.trace import trace


def image(channels: int, height: int, width: int, classes: int = 10) -> DataSpec:
    return image_data((channels, height, width), classes)


def pairs(*shape: int) -> DataSpec:
    return spec_of("pairs", Images(*shape), Images(*shape))


def taken(users: int, items: int) -> DataSpec:
    pairs = np.array([[0, 0, 1], [1, 2, 0]])
    return spec_of("taken", Users(users, items, 3, 0, lambda: pairs), Taken(items, items))


def vectors(width: int) -> DataSpec:
    return spec_of("vectors", Activations(width), Activations(width))


def family(name: str, **options: object) -> Family:
    return MODELS[name](validate(MODELS[name].Options, options, "model"))


CASES = [
    ("vit", {}, image(1, 8, 8)),
    ("vit", {"width": 24, "depth": 2, "heads": 3, "mlp_ratio": 2.5}, image(3, 32, 32, 7)),
    ("vit", {"width": 24, "depth": 1, "heads": 2, "patch": 3}, image(3, 12, 9)),
    ("convnet", {"widths": [4, 6, 8], "pools": [1, 3]}, image(1, 8, 8)),
    ("convnet", {}, image(3, 32, 32, 7)),
    ("convnet", {"widths": [4, 6], "pools": [1], "bare": True}, image(1, 8, 8)),
    ("resnet", {}, image(1, 8, 8)),
    ("resnet", {"bare": True}, image(3, 32, 32)),
    ("resnet", {"width": 8}, image(3, 32, 32)),
    ("resnet", {"depth": 34}, image(3, 28, 28, 3)),
    ("resnet", {"depth": 50}, image(3, 32, 32)),
    ("resnet", {"depth": 50}, image(3, 97, 65, 1000)),
    ("cifar_resnet", {}, image(3, 32, 32)),
    ("cifar_resnet", {"depth": 32, "width": 5}, image(1, 29, 27, 4)),
    ("wrn", {}, image(3, 32, 32)),
    ("wrn", {"depth": 10, "widen": 1}, image(1, 9, 8)),
    ("mlp", {}, image(1, 8, 8)),
    ("mlp", {"hidden": [7, 6, 5], "batch_norm": True}, image(3, 5, 4)),
    ("mlp", {"hidden": []}, image(1, 8, 8)),
    ("mlp", {"hidden": [7], "bare": True}, image(1, 8, 8)),
    ("gpt", {"width": 32, "depth": 2}, text_data(16, 100)),
    ("gpt", {"width": 32, "depth": 1, "tie": False, "ff": 40, "context": 64}, text_data(16, 100)),
    ("llama", {"width": 32, "depth": 2, "ff": 48}, text_data(16, 100)),
    ("llama", {"width": 48, "depth": 1, "heads": 6, "kv_heads": 2, "ff": 40, "tie": True}, text_data(9, 50)),
    ("lstm", {"width": 8, "depth": 2}, text_data(7, 11)),
    ("lstm", {"width": 6, "depth": 1, "embedding": 4, "tie": False}, text_data(7, 11)),
    ("lstm", {"width": 5, "depth": 3, "tie": False}, text_data(3, 11)),
    ("mobilenet_v2", {"width": 0.25}, image(3, 16, 16)),
    ("mobilenet_v2", {"width": 0.5}, image(1, 9, 8, 7)),
    ("darts_search", {"cells": 3, "channels": 4, "nodes": 2}, image(3, 16, 16)),
    ("darts_search", {"cells": 2, "channels": 3, "nodes": 3, "ops": ["skip_connect", "dil_conv_5x5"]}, image(1, 8, 8)),
    ("darts", {"cells": 4, "channels": 4}, image(3, 16, 8)),
    ("darts", {"cells": 3, "channels": 5, "genotype": {"random": 1, "nodes": 3}}, image(1, 8, 8)),
    ("dncnn", {"depth": 4, "width": 6}, pairs(3, 9, 12)),
    ("dncnn", {"depth": 3, "width": 5, "batch_norm": False}, pairs(1, 8, 8)),
    ("snn", {"hidden": [7, 6], "timesteps": 3, "batch_norm": True, "neuron": {"name": "ultraplif"}}, image(3, 5, 4)),
    ("snn", {"encoding": "rows", "timesteps": 6, "readout": "neuron", "neuron": {"name": "fullplif"}}, image(1, 6, 8)),
    (
        "snn_conv",
        {"widths": [4, 6], "timesteps": 2, "neuron": {"name": "ultradplif", "spike_scale": 1.0}},
        image(1, 9, 8),
    ),
    ("snn_conv", {"widths": [5], "batch_norm": True, "encoding": "rate"}, image(3, 8, 8, 7)),
    ("autoencoder", {"features": 24, "allocation": {"name": "topk", "k": 3}}, vectors(10)),
    ("multvae", {"hidden": [6, 2]}, taken(4, 5)),
    ("neumf", {"width": 4, "hidden": [6, 3]}, taken(4, 5)),
]
OWN_TEST = {"hf", "lightgcn", "llama_moe"}
"""What a trace does not see: a share of a graph's propagation, experts unused (test_recommenders.py, test_routers.py)."""


@pytest.mark.parametrize(("name", "options", "data"), CASES, ids=lambda value: str(value)[:40])
def test_closed_form_equals_trace(name: str, options: dict, data: DataSpec) -> None:
    member = family(name, **options)
    model_spec = member.model_spec(data)
    model = member.build(data)
    assert model_spec == trace(model, data, name)
    parameters = dict(model.named_parameters())
    assert all(tuple(parameters[layer.tensor].shape) == layer.shape for layer in model_spec.layers)


def test_every_family_with_a_closed_form_is_compared() -> None:
    closed = {name for name in MODELS if MODELS[name].builder is not Family.builder}
    assert closed - OWN_TEST == {name for name, _, _ in CASES}


def test_hand_counted_vit() -> None:
    model_spec = family("vit", width=4, depth=1, heads=2, patch=4).model_spec(image(1, 8, 8, 3))
    assert [(layer.name, layer.shape, layer.macs, set(layer.roles)) for layer in model_spec.layers] == [
        ("patch_embed.proj", (4, 1, 4, 4), 64 * 4, {"stem"}),
        ("blocks.0.attn.qkv", (12, 4), 48 * 5, {"qkv"}),
        ("blocks.0.attn.proj", (4, 4), 16 * 5, {"proj"}),
        ("blocks.0.mlp.fc1", (16, 4), 64 * 5, {"ff"}),
        ("blocks.0.mlp.fc2", (4, 16), 64 * 5, {"ff"}),
        ("head", (3, 4), 12, {"head"}),
    ]
    assert model_spec.fixed_macs == {"blocks.0.attn": 2 * 5 * 5 * 4}
    assert model_spec.params == (64 + 4) + 4 + 5 * 4 + (48 + 12) + (16 + 4) + (64 + 16) + (64 + 4) + 3 * 8 + (12 + 3)


def test_hand_counted_tied_gpt() -> None:
    model_spec = family("gpt", width=2, depth=1, heads=1).model_spec(text_data(3, 5))
    assert [(layer.name, layer.kind, layer.shape, layer.macs) for layer in model_spec.layers] == [
        ("transformer.wte", "embedding", (5, 2), 30),
        ("transformer.wpe", "embedding", (3, 2), 0),
        ("transformer.h.0.attn.c_attn", "conv1d", (2, 6), 36),
        ("transformer.h.0.attn.c_proj", "conv1d", (2, 2), 12),
        ("transformer.h.0.mlp.c_fc", "conv1d", (2, 8), 48),
        ("transformer.h.0.mlp.c_proj", "conv1d", (8, 2), 48),
    ]
    assert model_spec["transformer.wte"].roles == {"embedding", "head"}
    assert model_spec.fixed_macs == {"transformer.h.0.attn": 36}


def test_hand_counted_lstms() -> None:
    """Width 2, vocabulary 5, 3 tokens: each matrix works at each token, the embedding is looked up, the tied softmax not."""
    tied = family("lstm", width=2, depth=2).model_spec(text_data(3, 5))
    gates = [(f"rnns.{i}.weight_{kind}_l0", "gates", (8, 2), 48) for i in range(2) for kind in ("ih", "hh")]
    assert [(layer.tensor, layer.kind, layer.shape, layer.macs) for layer in tied.layers] == [
        ("encoder.weight", "embedding", (5, 2), 30),
        *gates,
    ]
    assert [set(layer.roles) for layer in tied.layers] == [{"embedding", "head"}, *[{"gates"}] * 4]
    assert tied.params == 5 * 2 + 2 * (16 + 16 + 8 + 8) + 5 and tied.macs == 30 + 4 * 48
    free = family("lstm", width=2, depth=1, embedding=3, tie=False).model_spec(text_data(3, 5))
    assert [(layer.tensor, layer.shape, layer.macs) for layer in free.layers] == [
        ("encoder.weight", (5, 3), 0),
        ("rnns.0.weight_ih_l0", (8, 3), 72),
        ("rnns.0.weight_hh_l0", (8, 2), 48),
        ("decoder.weight", (5, 2), 30),
    ]
    assert free.params == 15 + (24 + 16 + 8 + 8) + (10 + 5)


def test_recurrent_macs_are_those_of_torch_without_fused_kernels() -> None:
    for options in ({"width": 8}, {"width": 6, "depth": 1, "embedding": 4, "tie": False}):
        member, data = family("lstm", **options), text_data(7, 11)
        model = member.build(data).eval()
        with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 7, dtype=torch.int64))
        assert counter.get_total_flops() == 2 * member.model_spec(data).macs


def test_lstms_have_the_weights_that_distiller_counts() -> None:
    """IntelLabs/distiller docs-src/docs/tutorial-lang_model.md: tied and untied, without biases, 33,278 words."""
    words = text_data(35, 33_278)
    for width, untied, tied in (
        (200, 13_951_200, 7_295_600),
        (650, 50_021_400, 28_390_700),
        (1500, 135_834_000, 85_917_000),
    ):
        for tie, count in ((False, untied), (True, tied)):
            model_spec = family("lstm", width=width, tie=tie).model_spec(words)
            assert sum(layer.numel for layer in model_spec.layers) == count


def test_known_sizes() -> None:
    """Parameters as the papers and libraries print them."""
    imagenet = image(3, 224, 224, 1000)
    assert family("vit").model_spec(imagenet).params == 22_050_664
    assert family("vit", width=192, heads=3).model_spec(imagenet).params == 5_717_416
    assert family("vit", width=768, heads=12).model_spec(imagenet).params == 86_567_656
    assert family("resnet", depth=18).model_spec(imagenet).params == 11_689_512
    assert family("resnet", depth=50).model_spec(imagenet).params == 25_557_032
    assert family("cifar_resnet").model_spec(image(3, 32, 32)).params == 269_722
    assert family("cifar_resnet", depth=110).model_spec(image(3, 32, 32)).params == 1_727_962
    assert family("wrn", depth=28, widen=10).model_spec(image(3, 32, 32)).params == 36_479_194
    assert family("mlp").model_spec(image(1, 28, 28)).params == 266_610


def test_residual_roles() -> None:
    layers = family("resnet", depth=50).model_spec(image(3, 32, 32)).layers
    assert [layer.name for layer in layers if "downsample" in layer.roles] == [
        f"layer{stage}.0.downsample.0" for stage in (1, 2, 3, 4)
    ]
    assert [(layers[0].name, set(layers[0].roles)), (layers[-1].name, set(layers[-1].roles))] == [
        ("conv1", {"stem"}),
        ("fc", {"head"}),
    ]


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from sparselab.inputs.models.family import MODELS\n"
        "from sparselab.weights import cost as account\n"
        "from sparselab.core.data_spec import DataSpec\n"
        "from sparselab.core.data_types import Classes, Images\n"
        "data = DataSpec('d', Images(3, 32, 32), Classes(10), 1, 1, 1, '0', 'local')\n"
        "vit = MODELS['vit'](MODELS['vit'].Options())\n"
        "assert list(MODELS) and vit.model_spec(data).macs\n"
        "heavy = {'torch', 'timm', 'transformers', 'safetensors', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
