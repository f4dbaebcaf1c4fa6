"""Patterns of their own for some layers: who gets what, what is refused, what the plan counts."""

from __future__ import annotations

import pytest

from sparselab.core.errors import WIDTH, ConfigError
from sparselab.core.model_spec import Layer
from sparselab.core.sparsity import Sparsity
from sparselab.running.planning import plan_of
from sparselab.weights.layer_patterns import exceptions, own_patterns, spelled

LAYERS = [
    Layer("a.q", "linear", (8, 8), 64, frozenset({"q"})),
    Layer("a.k", "linear", (8, 8), 64, frozenset({"k"})),
    Layer("b.fc1", "linear", (16, 8), 128, frozenset({"ff"})),
]
ONE = Sparsity.parse("2:4")
VIT = [
    "model=vit_ti", "model.width=64", "model.depth=2", "model.heads=2", "dataset=digits", "method=srste",
    "model.transform={name: split_qkv}", "targets.exclude=[]",
]  # fmt: skip


def given(**patterns):
    own = own_patterns({key.replace("at_", "@"): value for key, value in patterns.items()})
    return {name: str(pattern) for name, pattern in exceptions(LAYERS, ONE, own).items()}


def test_the_first_selector_that_matches_counts():
    assert given() == {}
    assert given(at_q="1:8") == {"a.q": "1:8"}
    own = own_patterns({"@k": "1:4", "a.*": 0.5})
    assert exceptions(LAYERS, ONE, own) == {"a.q": Sparsity.parse(0.5), "a.k": Sparsity.parse("1:4")}
    assert spelled(ONE, own) == "2:4, @k 1:4, a.* 0.5" and spelled(ONE, {}) == "2:4"


@pytest.mark.parametrize(
    ("own", "lines"),
    [
        ({"@q": "dense", "@k": "iso", "@ff": 68}, [
            'targets.patterns.@q=dense: keeps every weight — write targets.exclude=["@q"]',
            'targets.patterns.@k=iso: is worked out for a whole network — write a pattern such as "1:8"',
            'targets.patterns.@ff=68: looks like an unquoted 1:8 — write "1:8" in quotes, and for 68 % write 0.68',
        ]),
        ({"a.*": "1:8", "@q": "1:4", "@v": "1:4"}, [
            "targets.patterns.@q: earlier selectors have all its layers — write it before them",
            'targets.patterns.@v: \'@v\' matches no layer — did you mean "@q"?',
        ]),
        ({"a.*": "1:8", "@ff": "1:4"}, [
            "sparsity=2:4: no layer has it: targets.patterns has one for each — make one of them the sparsity, "
            "and leave it out of targets.patterns",
        ]),
    ],
)  # fmt: skip
def test_what_means_nothing_is_a_line_each(own, lines):
    with pytest.raises(ConfigError) as refused:
        exceptions(LAYERS, ONE, own_patterns(own))
    found = [str(issue) for issue in refused.value.issues]
    assert found == lines and all(len(line) <= WIDTH for line in found)


def test_the_plan_counts_each_layer_by_its_own_pattern():
    plan = plan_of([*VIT, "sparsity=1:32", 'targets.include=["@ff","@q","@k"]', "targets.patterns={@q: 1:8, @k: 2:4}"])
    kept = plan.parts.kept
    assert {name.removeprefix("blocks.0."): kept[name] for name in kept if name.startswith("blocks.0.")} == {
        "attn.qkv.q": 64 * 64 // 8, "attn.qkv.k": 64 * 64 // 2, "mlp.fc1": 256 * 64 // 32, "mlp.fc2": 256 * 64 // 32,
    }  # fmt: skip
    gone = sum(plan.parts.model_spec[name].macs * (1 - kept[name] / plan.parts.model_spec[name].numel) for name in kept)
    assert plan.cost["macs"] == plan.cost["macs_dense"] - gone
    assert dict(plan.facts)["method"].startswith("srste · sparsity 1:32, @q 1:8, @k 2:4 · ")


@pytest.mark.parametrize("distribution", ["uniform", "erk", "global"])
def test_a_distribution_deals_with_the_other_layers_alone(distribution):
    words = [
        *VIT[:-3],
        "method=magnitude",
        f"distribution={distribution}",
        "sparsity=0.75",
        "targets.patterns={@ff: 2:4}",
    ]
    parts = plan_of(words).parts
    apart = [layer for layer in parts.layers if layer.name in parts.exceptions]
    others = [layer for layer in parts.layers if layer.name not in parts.exceptions]
    assert len(apart) == len(others) == 4
    assert all(2 * parts.kept[layer.name] == layer.numel for layer in apart)
    assert 4 * sum(parts.kept[layer.name] for layer in others) == sum(layer.numel for layer in others)


def test_stages_are_counted_layer_by_layer():
    """1:32 has six stages and 1:8 four, over the same span: what is in force in between is not the same."""
    words = [
        *VIT[:-3],
        "method=sdgf",
        "schedule=stepwise",
        "targets.exclude=[]",
        'targets.include=["@ff"]',
        "sparsity=1:32",
    ]
    alone, both = plan_of(words), plan_of([*words, "targets.patterns={*.fc2: 1:8}"])
    eighth = plan_of([*words, "sparsity=1:8"])
    for key in ("flops_train", "macs"):  # fc1 and fc2 cost the same
        assert 2 * both.cost[key] == pytest.approx(alone.cost[key] + eighth.cost[key], rel=1e-9)


def test_ids_tell_patterns_and_their_order_apart_and_not_their_spelling():
    words = [*VIT, 'targets.include=["@ff","@q","@k"]', "sparsity=1:32"]

    def id_of(patterns: str) -> str:
        return plan_of([*words, f"targets.patterns={patterns}"]).id

    plain = plan_of(words).id
    assert id_of("{}") == plain
    assert id_of("{@q: 1:8}") == id_of('{@q: "1:8"}') != plain
    assert id_of("{@q: 1:8, blocks.*.qkv.*: 1:4}") != id_of("{blocks.0.*.q: 1:8, blocks.*.qkv.*: 1:4}")
    one, other = "blocks.0.attn.*: 1:8", "blocks.*.qkv.q: 2:4"
    a, b = (plan_of([*words, f"targets.patterns={{{x}, {y}}}"]) for x, y in ((one, other), (other, one)))
    assert a.id != b.id and a.cost["macs"] != b.cost["macs"]
