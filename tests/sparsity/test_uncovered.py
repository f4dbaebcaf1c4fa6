"""Parameters that no mask can be put on: named, excluded by name, or a reason to refuse."""

from __future__ import annotations

import pytest

from sparselab.engines.train.layers import choose_layers
from sparselab.planning import plan_of
from sparselab.sparsity.targets import select
from sparselab.sparsity.uncovered import line, spelled, uncovered
from sparselab.spec.faults import WIDTH, Refused
from sparselab.spec.outline import Layer, Loose, Outline
from sparselab.spec.schema import TargetOptions
from sparselab.spec.sparsity import Sparsity

LAYERS = (Layer("blocks.0.fc", "linear", (4, 8), 32), Layer("head", "linear", (2, 4), 8, frozenset({"head"})))


def chosen(*loose: Loose, include=("*",), exclude=(), sparsity=0.5):
    targets = TargetOptions(include=list(include), exclude=list(exclude), axis="in")
    outline = Outline("net", LAYERS, 100, loose=loose)
    return [layer.name for layer in choose_layers(targets, Sparsity.parse(sparsity), {}, outline)[0]]


POSITIONS = Loose("pos_embed", (1, 5, 8), "added")
STANDARD = Loose("blocks.0.conv.weight", (4, 8, 3, 3), "function")


def test_positions_are_named_and_no_error():
    outline = Outline("net", LAYERS, 100, loose=(POSITIONS,))
    assert uncovered(outline, ["@head"]) == [POSITIONS] and uncovered(outline, ["pos_*"]) == []
    assert chosen(POSITIONS) == ["blocks.0.fc", "head"]
    assert chosen(POSITIONS, exclude=["pos_embed", "@head"]) == ["blocks.0.fc"]


@pytest.mark.parametrize("use", ["product", "unseen"])
def test_who_asks_for_everything_gets_it_or_an_error(use):
    left = Loose("attn.latent", (4, 8), use)
    with pytest.raises(Refused, match=r"attn\.latent") as refused:
        chosen(left)
    assert len(str(refused.value)) <= WIDTH
    assert chosen(left, exclude=["@head"]) == ["blocks.0.fc"]
    assert chosen(left, exclude=["attn.latent"]) == ["blocks.0.fc", "head"]
    assert chosen(left, include=["@head"]) == ["head"]
    assert chosen(left, sparsity="dense") == []


def test_a_layer_that_multiplies_with_a_function_of_its_weight_is_refused_where_it_is_asked_for():
    for selectors in ({}, {"exclude": ["@head"]}, {"include": ["blocks.*"]}):
        with pytest.raises(Refused, match=r"blocks\.0\.conv.*function"):
            chosen(STANDARD, **selectors)
    assert chosen(STANDARD, exclude=["*.conv"]) == ["blocks.0.fc", "head"]
    assert chosen(STANDARD, include=["@head"]) == ["head"]


def test_to_include_what_is_no_layer_is_answered_with_the_reason():
    with pytest.raises(Refused, match="pos_embed is added to what passes"):
        select(Outline("net", LAYERS, 100, loose=(POSITIONS,)), ["pos_embed"])


def test_a_plan_names_them():
    words = ["method=magnitude", "schedule=one_shot", "sparsity=0.5", "model=vit_ti", "dataset=digits"]
    facts = dict(plan_of(words).facts)
    assert facts["dense besides"].startswith("cls_token, pos_embed (2 parameters")
    assert "dense besides" not in dict(plan_of(["method=dense", *words[3:]]).facts)
    named = plan_of([*words, 'targets.exclude=["@head","cls_token","pos_embed"]'])
    assert "dense besides" not in dict(named.facts)


def test_many_are_told_in_few_words():
    names = [f"layers.{i}.{word}" for i in range(3) for word in "ab"] + ["top.5.c"]
    assert spelled(names) == ["layers.*.a", "layers.*.b", "top.5.c"]
    assert (
        line(spelled(names), 1234, 7)
        == "layers.*.a, layers.*.b, top.5.c (7 parameters that no mask is put on, 1,234 numbers)"
    )
