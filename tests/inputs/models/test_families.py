"""Families: what they build, what they refuse, and the YAML that offers them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from data_specs import image_data, text_data

from sparselab.core import packaged
from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Classes, Images, NextTokens, Taken, Tokens, Users
from sparselab.core.errors import WIDTH, ConfigError
from sparselab.core.options import validate
from sparselab.inputs.models.families.vit import patch_for
from sparselab.inputs.models.family import MODELS, Family
from sparselab.inputs.models.trace import trace, traced

CONFIGS = Path(__file__).parents[3] / "configs" / "model"
IMAGE = image_data((3, 16, 16), 10)
TEXT = text_data(12, 60)
SMALL = {
    "vit": {"width": 16, "depth": 1, "heads": 2},
    "resnet": {},
    "cifar_resnet": {"depth": 8, "width": 4},
    "wrn": {"depth": 10, "widen": 1},
    "mlp": {},
    "timm": {"arch": "resnet10t"},
    "gpt": {"width": 16, "depth": 1},
    "llama": {"width": 16, "depth": 1, "ff": 24},
    "llama_moe": {"width": 16, "depth": 1, "experts": 6, "expert_width": 4},
    "lstm": {"width": 16, "depth": 2},
    "dncnn": {"depth": 3, "width": 4},
    "lightgcn": {"width": 4, "depth": 2},
    "multvae": {"hidden": [8, 2]},
    "neumf": {"width": 4, "hidden": [8, 4]},
    "darts": {"channels": 4, "cells": 3},
    "darts_search": {"channels": 2, "cells": 2, "nodes": 2},
    "mobilenet_v2": {"width": 0.25},
}
TAKEN = DataSpec(
    "taken", Users(4, 5, 3, 0, lambda: np.array([[0, 0, 1], [1, 2, 0]])), Taken(5, 5), 8, 8, 8, "0" * 64, "local"
)
PAIRS = DataSpec("pairs", Images(3, 16, 16), Images(3, 16, 16), 8, 8, 8, "0" * 64, "local")
DATA = {(Images, Classes): IMAGE, (Tokens, NextTokens): TEXT, (Images, Images): PAIRS, (Users, Taken): TAKEN}


def family(name: str, **options: object) -> Family:
    return MODELS[name](validate(MODELS[name].Options, options, "model"))


def only_line(refused: pytest.ExceptionInfo[ConfigError]) -> str:
    (issue,) = refused.value.issues
    line = str(issue)
    assert "\n" not in line and len(line) <= WIDTH
    return line


MEMBERS = sorted(path.stem for path in CONFIGS.glob("[!_]*.yaml"))


@pytest.mark.parametrize("member", MEMBERS)
def test_yaml_names_a_family_and_all_its_options(member: str) -> None:
    values = dict(packaged.values(f"model/{member}"))
    schema = MODELS[values.pop("name")].Options
    assert set(values) == set(schema.model_fields), "every option is listed, so that it can be overridden"
    asked = {"path", "arch"} & set(values)  # what only the user can say
    assert all(values[name] is None for name in asked)
    validate(schema, {**values, **dict.fromkeys(asked, "gpt2")}, "model")


def test_every_family_has_a_yaml() -> None:
    assert {packaged.values(f"model/{member}")["name"] for member in MEMBERS} == set(MODELS)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_logits(name: str) -> None:
    torch.manual_seed(0)
    member = family(name, **SMALL[name])
    data = DATA[member.heads[0]]
    outputs = {
        (Images, Classes): (10,),
        (Tokens, NextTokens): (12, 60),
        (Images, Images): (3, 16, 16),
        (Users, Taken): (5,),
    }
    model = member.build(data).eval()
    assert member.logits(model, data.inputs.sample(2)).shape == (2, *outputs[member.heads[0]])


@pytest.mark.parametrize("name", sorted(SMALL))
def test_weights_come_from_the_global_generator(name: str) -> None:
    member = family(name, **SMALL[name])
    data = DATA[member.heads[0]]
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(member.build(data).state_dict())
    first, same, other = states
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", [name for name in sorted(SMALL) if name not in {"timm", "resnet"}])
def test_dropout_reaches_the_network(name: str) -> None:
    if "dropout" not in MODELS[name].Options.model_fields:
        pytest.skip("no dropout in this family")
    member = family(name, **SMALL[name], dropout=0.5)
    torch.manual_seed(0)
    data = DATA[member.heads[0]]
    batch = data.inputs.sample(2)
    model = member.build(data).train()
    assert not torch.equal(member.logits(model, batch), member.logits(model, batch))


@pytest.mark.parametrize(
    ("side", "patch"), [(224, 16), (96, 8), (64, 8), (32, 4), (28, 4), (8, 4), (12, 4), (6, 2), (7, None)]
)
def test_patch_rule(side: int, patch: int | None) -> None:
    assert patch_for(side, side) == patch


def test_vit_is_timms() -> None:
    ours = family("vit").build(image_data((1, 8, 8), 10))
    theirs = timm.create_model("vit_small_patch16_224", img_size=8, patch_size=4, in_chans=1, num_classes=10)
    theirs.load_state_dict(ours.state_dict())
    batch = torch.randn(2, 1, 8, 8)
    assert torch.equal(ours.eval()(batch), theirs.eval()(batch))


def test_large_resnet_is_timms() -> None:
    data = image_data((3, 72, 72), 5)
    ours = family("resnet").build(data).eval()
    theirs = timm.create_model("resnet18", num_classes=5).eval()
    theirs.load_state_dict(ours.state_dict())
    batch = torch.randn(1, 3, 72, 72)
    assert torch.equal(ours(batch), theirs(batch))


@pytest.mark.parametrize("arch", ["swin_tiny_patch4_window7_224", "rexnet_100", "vgg11"])
def test_timm_drops_what_was_asked_for_and_nothing_else(arch: str) -> None:
    """Swin's own default drops a tenth of its paths and ReXNet's a fifth of its features; VGG has no such rate."""
    data = replace(IMAGE, inputs=Images(3, 224, 224))
    with torch.device("meta"):
        model = family("timm", arch=arch).make(data)
    rates = [getattr(module, "drop_prob", None) or getattr(module, "p", 0) for module in model.modules()]
    assert not any(rates) and not getattr(model, "drop_rate", 0)
    if arch.startswith("swin"):
        with torch.device("meta"):
            model = family("timm", arch=arch, drop_path=0.2).make(data)
        assert max(getattr(module, "drop_prob", 0) for module in model.modules()) == pytest.approx(0.2)


def test_timm_fits_the_input_size() -> None:
    model = family("timm", arch="vit_tiny_patch16_224").build(IMAGE)
    assert trace(model, IMAGE)["head"].shape == (10, 192)
    assert family("timm", arch="vit_tiny_patch16_224").model_spec(IMAGE) is None


def test_a_network_of_timm_that_images_are_too_small_for_is_refused() -> None:
    made, small = family("timm", arch="levit_128s"), image_data((1, 8, 8), 10)
    with pytest.raises(ConfigError) as refused:
        traced(made, made.build(small), small)
    line = only_line(refused)
    assert (
        line.startswith("model.arch=levit_128s: cannot compute images of 1x8x8: ") and "choose another network" in line
    )


@pytest.mark.parametrize(
    ("name", "options", "data", "line"),
    [
        (
            "vit",
            {},
            TEXT,
            "model=vit: is for images → classes, and dataset words is tokens → next tokens — choose another of the two",
        ),
        (
            "gpt",
            {},
            IMAGE,
            "model=gpt: is for tokens → next tokens or tokens → masked tokens or sentences → classes, and dataset pictures is"
            " images → classes — choose another of the two",
        ),
        ("vit", {"heads": 5}, IMAGE, "model.heads=5: does not divide width 384 — choose a divisor of the width"),
        (
            "vit",
            {"patch": 3},
            IMAGE,
            "model.patch=3: does not divide pictures's 16x16 images — choose a divisor of both sides, or null",
        ),
        (
            "gpt",
            {"context": 8},
            TEXT,
            "model.context=8: is shorter than words's window of 12 tokens — write model.context=12 or null",
        ),
        (
            "lstm",
            {"embedding": 100},
            TEXT,
            "model.embedding=100: differs from width 650, and a tied softmax layer multiplies hidden units by it — "
            "write model.embedding=null or model.tie=false",
        ),
        (
            "lstm",
            {"carry": True},
            TEXT,
            "model.carry=true: goes on from window to window, and windows of words are drawn at random — "
            "write dataset.windows=streams or model.carry=false",
        ),
        (
            "lstm",
            {},
            replace(TEXT, inputs=Tokens(12, 0)),
            "dataset=words: the size of its vocabulary is known only once it is loaded — "
            "use a local copy (data_dir), or dataset.tokenizer=bytes",
        ),
        ("llama", {"kv_heads": 3}, TEXT, "model.kv_heads=3: does not divide heads 4 — choose a divisor of heads"),
        (
            "llama",
            {"width": 12},
            TEXT,
            "model.heads=4: leaves 3 channels a head, and rotary positions turn pairs — "
            "choose heads so that width / heads is even",
        ),
        (
            "timm",
            {"arch": "resnet_26"},
            IMAGE,
            'model.arch=resnet_26: timm has no such network — did you mean "resnet26"?',
        ),
    ],
)
def test_misfits(name: str, options: dict, data: DataSpec, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        family(name, **options).build(data)
    assert only_line(refused) == line


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet", {"depth": 21}),
        ("wrn", {"depth": 17}),
        ("resnet", {"depth": 20}),
        ("vit", {"dropout": 1.0}),
        ("vit", {"wdth": 3}),
        ("mlp", {"hidden": [0]}),
        ("timm", {"arch": "hf-hub:someone/thing"}),
        ("timm", {}),
        ("hf", {"path": None}),
    ],
)
def test_bad_options_are_one_line(name: str, options: dict) -> None:
    with pytest.raises(ConfigError) as refused:
        family(name, **options)
    assert only_line(refused).startswith("model")
