"""Selectors: names, globs, roles, and the closest where nothing matches."""

from __future__ import annotations

import pytest

from sparselab.core.errors import ConfigError
from sparselab.core.model_spec import Layer, ModelSpec
from sparselab.weights.targets import select


def _layer(name: str, *roles: str) -> Layer:
    return Layer(name, "linear", (4, 4), 16, frozenset(roles))


VIT = ModelSpec(
    "vit",
    (
        _layer("patch_embed.proj", "stem"),
        _layer("blocks.0.attn.qkv", "qkv"),
        _layer("blocks.0.attn.proj", "proj"),
        _layer("blocks.0.mlp.fc1", "ff"),
        _layer("blocks.1.attn.qkv", "qkv"),
        _layer("blocks.10.mlp.fc1", "ff"),
        _layer("head", "head"),
    ),
    params=0,
)


def names(include, exclude=()):
    return [layer.name for layer in select(VIT, include, exclude)]


def lines(include, exclude=()):
    with pytest.raises(ConfigError) as refused:
        select(VIT, include, exclude)
    return str(refused.value).split("\n")


def test_globs_match_full_names_and_come_in_forward_order():
    assert names(["*"]) == [layer.name for layer in VIT.layers]
    assert names(["blocks.*.mlp.fc1", "*.qkv"]) == [
        "blocks.0.attn.qkv",
        "blocks.0.mlp.fc1",
        "blocks.1.attn.qkv",
        "blocks.10.mlp.fc1",
    ]
    assert names(["blocks.1.*"]) == ["blocks.1.attn.qkv"]
    assert names(["blocks.[01].attn.qkv"]) == ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]


def test_a_name_without_wildcards_is_exact():
    assert names(["head"]) == ["head"]
    assert lines(["blocks.0"]) == ["targets.include[0]: 'blocks.0' matches no layer — closest: 'blocks.0.mlp.fc1'"]


def test_roles_and_exclusion():
    assert names(["@qkv"]) == ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]
    assert names(["*"], ["@stem", "@head", "*.fc1"]) == ["blocks.0.attn.qkv", "blocks.0.attn.proj", "blocks.1.attn.qkv"]


def test_a_known_role_may_be_absent_from_exclude_only():
    assert names(["head"], ["@depthwise"]) == ["head"]
    assert lines(["@depthwise"])[0].startswith("targets.include[0]: '@depthwise' matches no layer — ")


@pytest.mark.parametrize(
    "selector, closest",
    [
        ("blocks.*.atn.qkv", "closest: 'blocks.*.attn.qkv'"),
        ("blocks.*.atn.*", "closest: 'blocks.*.attn.*'"),
        ("blocks.0.mlp.fc2", "closest: 'blocks.0.mlp.fc1'"),
        ("haed", "closest: 'head'"),
        ("@heads", 'did you mean "@head"?'),
        ("zzz", "one of: blocks.0.attn.proj, blocks.0.attn.qkv, blocks.0.mlp.fc1"),
    ],
)
@pytest.mark.parametrize("key", ["include", "exclude"])
def test_a_selector_that_matches_nothing_names_the_closest(selector, closest, key):
    (line,) = lines([selector]) if key == "include" else lines(["*"], [selector])
    assert line.startswith(f"targets.{key}[0]: '{selector}' matches no layer — {closest}")


def test_all_faults_at_once():
    assert len(lines(["haed", "*", "@stam"], ["blocks.0.mlp.fc2"])) == 3


def test_nothing_left():
    assert "exclude takes out all" in lines(["head"], ["@head"])[0]
    assert "nothing is included" in lines([])[0]


def test_a_model_without_roles_says_so():
    bare = ModelSpec("mlp", (_layer("a"),), params=16)
    with pytest.raises(ConfigError, match="no roles"):
        select(bare, ["@qkv"], [])
