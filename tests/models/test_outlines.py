"""Every closed form against a traced network: names, kinds, shapes, roles, multiply-accumulates, parameters."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from sparselab.models.family import MODELS, Family
from sparselab.models.trace import trace
from sparselab.spec.dataspec import DataSpec
from sparselab.spec.options import validate

torch.set_num_threads(1)


def image(channels: int, height: int, width: int, classes: int = 10) -> DataSpec:
    return DataSpec("pictures", "image", (channels, height, width), classes, 8, 8, 8, "0" * 64, "local")


def text(tokens: int, vocabulary: int) -> DataSpec:
    return DataSpec("words", "text", (tokens,), vocabulary, 8, 8, 8, "0" * 64, "local")


def family(name: str, **options: object) -> Family:
    return MODELS[name](validate(MODELS[name].Options, options, "model"))


CASES = [
    ("vit", {}, image(1, 8, 8)),
    ("vit", {"width": 24, "depth": 2, "heads": 3, "mlp_ratio": 2.5}, image(3, 32, 32, 7)),
    ("vit", {"width": 24, "depth": 1, "heads": 2, "patch": 3}, image(3, 12, 9)),
    ("resnet", {}, image(1, 8, 8)),
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
    ("gpt", {"width": 32, "depth": 2}, text(16, 100)),
    ("gpt", {"width": 32, "depth": 1, "tie": False, "ff": 40, "context": 64}, text(16, 100)),
    ("llama", {"width": 32, "depth": 2, "ff": 48}, text(16, 100)),
    ("llama", {"width": 48, "depth": 1, "heads": 6, "kv_heads": 2, "ff": 40, "tie": True}, text(9, 50)),
]


@pytest.mark.parametrize(("name", "options", "data"), CASES, ids=lambda value: str(value)[:40])
def test_closed_form_equals_trace(name: str, options: dict, data: DataSpec) -> None:
    member = family(name, **options)
    outline = member.outline(data)
    model = member.build(data)
    assert outline == trace(model, data, name)
    parameters = dict(model.named_parameters())
    assert all(tuple(parameters[layer.tensor].shape) == layer.shape for layer in outline.layers)


def test_every_family_with_a_closed_form_is_compared() -> None:
    closed = {name for name in MODELS if MODELS[name].sketch is not Family.sketch}
    assert closed - {"hf"} == {name for name, _, _ in CASES}


def test_hand_counted_vit() -> None:
    outline = family("vit", width=4, depth=1, heads=2, patch=4).outline(image(1, 8, 8, 3))
    assert [(layer.name, layer.shape, layer.macs, set(layer.roles)) for layer in outline.layers] == [
        ("patch_embed.proj", (4, 1, 4, 4), 64 * 4, {"stem"}),
        ("blocks.0.attn.qkv", (12, 4), 48 * 5, {"qkv"}),
        ("blocks.0.attn.proj", (4, 4), 16 * 5, {"proj"}),
        ("blocks.0.mlp.fc1", (16, 4), 64 * 5, {"ff"}),
        ("blocks.0.mlp.fc2", (4, 16), 64 * 5, {"ff"}),
        ("head", (3, 4), 12, {"head"}),
    ]
    assert outline.fixed_macs == {"blocks.0.attn": 2 * 5 * 5 * 4}
    assert outline.params == (64 + 4) + 4 + 5 * 4 + (48 + 12) + (16 + 4) + (64 + 16) + (64 + 4) + 3 * 8 + (12 + 3)


def test_hand_counted_tied_gpt() -> None:
    outline = family("gpt", width=2, depth=1, heads=1).outline(text(3, 5))
    assert [(layer.name, layer.kind, layer.shape, layer.macs) for layer in outline.layers] == [
        ("transformer.wte", "embedding", (5, 2), 30),
        ("transformer.wpe", "embedding", (3, 2), 0),
        ("transformer.h.0.attn.c_attn", "conv1d", (2, 6), 36),
        ("transformer.h.0.attn.c_proj", "conv1d", (2, 2), 12),
        ("transformer.h.0.mlp.c_fc", "conv1d", (2, 8), 48),
        ("transformer.h.0.mlp.c_proj", "conv1d", (8, 2), 48),
    ]
    assert outline["transformer.wte"].roles == {"embedding", "head"}
    assert outline.fixed_macs == {"transformer.h.0.attn": 36}


def test_known_sizes() -> None:
    """Parameters as the papers and libraries print them."""
    imagenet = image(3, 224, 224, 1000)
    assert family("vit").outline(imagenet).params == 22_050_664
    assert family("vit", width=192, heads=3).outline(imagenet).params == 5_717_416
    assert family("vit", width=768, heads=12).outline(imagenet).params == 86_567_656
    assert family("resnet", depth=18).outline(imagenet).params == 11_689_512
    assert family("resnet", depth=50).outline(imagenet).params == 25_557_032
    assert family("cifar_resnet").outline(image(3, 32, 32)).params == 269_722
    assert family("cifar_resnet", depth=110).outline(image(3, 32, 32)).params == 1_727_962
    assert family("wrn", depth=28, widen=10).outline(image(3, 32, 32)).params == 36_479_194
    assert family("mlp").outline(image(1, 28, 28)).params == 266_610


def test_residual_roles() -> None:
    layers = family("resnet", depth=50).outline(image(3, 32, 32)).layers
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
        "from sparselab.models.family import MODELS\n"
        "from sparselab.sparsity import account\n"
        "from sparselab.spec.dataspec import DataSpec\n"
        "data = DataSpec('d', 'image', (3, 32, 32), 10, 1, 1, 1, '0', 'local')\n"
        "vit = MODELS['vit'](MODELS['vit'].Options())\n"
        "assert list(MODELS) and vit.outline(data).macs\n"
        "heavy = {'torch', 'timm', 'transformers', 'safetensors', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
