"""The contract of a method: five hooks, and capabilities that it names."""

from __future__ import annotations

import copy

import pytest
import torch

from sparselab.running.planning import plan_of
from sparselab.training.slots import make_sparsifier
from sparselab.weights import capabilities
from sparselab.weights.capabilities import CAPABILITIES, PullsBackTogether, Rewinds, by_chance, ranks_layers
from sparselab.weights.method import METHODS, Method

HOOKS = {"score", "remask", "effective", "pullback", "after_step"}
ABOUT = {"admits", "overrides"}  # what others ask a method, and no method defines


def test_the_base_has_the_five_hooks_of_papers():
    public = {name for name, value in vars(Method).items() if callable(value) or isinstance(value, classmethod)}
    assert {name for name in public if not name.startswith("_")} - ABOUT - {"Options"} == HOOKS


def test_every_capability_is_listed_once_and_used():
    own = [value for value in vars(capabilities).values() if isinstance(value, type)]
    defined = {cls for cls in own if cls.__module__ == capabilities.__name__}
    assert defined == set(CAPABILITIES) and len(CAPABILITIES) == len(defined)
    assert {each for each in CAPABILITIES if not any(issubclass(METHODS[name], each) for name in METHODS)} == set()


@pytest.mark.parametrize(
    ("name", "value", "capability"),
    [
        ("prepare", lambda self, slots, probe: None, "MeasuresFirst"),
        ("blend", lambda self, slot, weight, first: first, "ChangesMoments"),
        ("rewinds", 0.1, "Rewinds"),
        ("files", lambda self: {}, "ReadsFiles"),
        ("axes", ("in",), "ReadsInputs"),
    ],
)
def test_a_hook_whose_capability_is_not_named_is_refused(name, value, capability):
    """It would never be called, and the method would silently be another."""
    with pytest.raises(TypeError, match=rf"Mine\.{name} belongs .* write class Mine\({capability}, Method\)"):
        type("Mine", (Method,), {name: value})


def test_a_capability_behind_the_base_is_refused():
    with pytest.raises(TypeError, match="PullsBackTogether stands before Method"):
        type("Mine", (Method, PullsBackTogether), {})


def test_what_is_asked_of_all_methods_has_an_answer_for_each():
    plain, rewound = Method(None), type("Mine", (Rewinds, Method), {})(None)
    for method in (plain, rewound):
        assert by_chance(method) is None and not ranks_layers(method)
        assert capabilities.alternating_update(method, 1, 2) is capabilities.ALL


@pytest.mark.parametrize("distribution", ["uniform", "global"])
def test_nothing_is_written_onto_a_method(distribution):
    """A sparsifier knows by itself that scores are ranked over all layers; the plan's method stays as it was."""
    parts = plan_of(["method=magnitude", "sparsity=0.9", "model=mlp", f"distribution={distribution}"]).parts
    before = copy.deepcopy(vars(parts.method))
    torch.manual_seed(0)
    sparsifier = make_sparsifier(parts, parts.family.build(parts.data))
    assert vars(parts.method) == before and sparsifier.method is parts.method
    assert sparsifier.ranked == (distribution == "global")
