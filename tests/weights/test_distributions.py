"""Densities against worked examples, and totals to the weight."""

from __future__ import annotations

from math import nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.core.errors import WIDTH, ConfigError
from sparselab.core.model_spec import Layer
from sparselab.core.options import validate
from sparselab.core.sparsity import Sparsity
from sparselab.weights.count import nearest_count
from sparselab.weights.distributions import DISTRIBUTIONS, Distribution, whole_numbers
from sparselab.weights.patterns.pattern import Pattern

EXACT = ("uniform", "er", "erk", "erk_plus")


def make(name: str, **options) -> Distribution:
    cls = DISTRIBUTIONS[name]
    return cls(validate(cls.Options, options, "distribution"))


def layers_of(*shapes: tuple[int, ...]) -> list[Layer]:
    """The first is the stem, the last the head."""
    roles = [frozenset({"stem"}), *[frozenset()] * (len(shapes) - 2), frozenset({"head"})]
    kinds = ["conv" if len(shape) > 2 else "linear" for shape in shapes]
    return [Layer(f"l{i}", kinds[i], shape, 0, roles[i]) for i, shape in enumerate(shapes)]


MLP = layers_of((300, 784), (100, 300), (10, 100))
RESNET20 = layers_of(
    (16, 3, 3, 3),
    *[(16, 16, 3, 3)] * 6,
    (32, 16, 3, 3),
    (32, 16, 1, 1),
    *[(32, 32, 3, 3)] * 5,
    (64, 32, 3, 3),
    (64, 32, 1, 1),
    *[(64, 64, 3, 3)] * 5,
    (10, 64),
)


def by_shape(name: str, layers: list[Layer], density: float) -> dict[tuple[int, ...], float]:
    densities = make(name).densities(layers, density)
    return {layer.shape: densities[layer.name] for layer in layers}


# -- worked examples (arXiv 2202.02643's rules) ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "density, expected, eps",
    [
        (0.1, [0.079568, 0.230189, 1.0], 17.26415),
        (0.05, [0.038484, 0.111334, 0.918507], 8.350063),
        (0.5, [0.434099, 1.0, 1.0], None),
    ],
)
def test_erk_of_an_mlp(density, expected, eps):
    densities = make("erk").densities(MLP, density)
    assert list(densities.values()) == pytest.approx(expected, abs=6e-7)
    if eps is not None:
        assert densities["l0"] * 300 * 784 / 1084 == pytest.approx(eps, rel=1e-6)


def test_erk_of_two_layers():
    densities = make("erk").densities(layers_of((8, 8), (2, 8)), 0.5)
    assert list(densities.values()) == pytest.approx([5 / 13, 20 / 13 * 10 / 16], rel=1e-12)


def test_erk_of_resnet20():
    assert sum(layer.numel for layer in RESNET20) == 270_896
    erk = by_shape("erk", RESNET20, 0.1)
    expected = {
        (16, 3, 3, 3): 0.9830,
        (16, 16, 3, 3): 0.2802,
        (32, 32, 3, 3): 0.1290,
        (64, 64, 3, 3): 0.0617,
        (32, 16, 1, 1): 1.0,
        (64, 32, 1, 1): 0.8128,
        (10, 64): 1.0,
    }
    assert {shape: erk[shape] for shape in expected} == pytest.approx(expected, abs=6e-5)
    assert erk[64, 64, 3, 3] * 36864 / 134 == pytest.approx(16.98599, rel=1e-6)


@pytest.mark.parametrize(
    ("depth", "width", "weights"), [(20, 16, 270_896), (56, 16, 851_504), (20, 8, 67_992), (20, 24, 608_712)]
)
def test_resnets_with_convolutional_shortcuts_have_the_papers_sizes(depth, width, weights):
    """And layers of one shape have one density."""
    stages, shapes, inputs = (width, 2 * width, 4 * width), [(width, 3, 3, 3)], width
    for outputs in stages:
        for block in range((depth - 2) // 6):
            shapes += [(outputs, inputs, 3, 3), (outputs, outputs, 3, 3)]
            shapes += [(outputs, inputs, 1, 1)] if block == 0 and inputs != outputs else []
            inputs = outputs
    layers = layers_of(*shapes, (10, inputs))
    assert sum(layer.numel for layer in layers) == weights
    for name in ("er", "erk"):
        densities = make(name).densities(layers, 0.1)
        assert len({(layer.shape, densities[layer.name]) for layer in layers}) == len({layer.shape for layer in layers})
        assert sum(densities[x.name] * x.numel for x in layers) == pytest.approx(0.1 * weights, abs=1e-9 * weights)


def test_er_ignores_the_kernel():
    er = by_shape("er", RESNET20, 0.1)
    expected = {(16, 3, 3, 3): 0.8897, (64, 64, 3, 3): 0.0702, (10, 64): 0.2599}
    assert {shape: er[shape] for shape in expected} == pytest.approx(expected, abs=6e-5)


def test_all_layers_that_tie_for_the_maximum_become_dense_together():
    densities = make("erk").densities(layers_of((4, 4), (64, 64), (4, 4)), 0.1)
    assert densities["l0"] == densities["l2"] == 1.0
    assert densities["l1"] == pytest.approx((0.1 * 4128 - 32) / 4096, rel=1e-12)


def test_power_zero_is_uniform_and_one_is_erk():
    assert make("erk", power=0.0).densities(MLP, 0.1) == pytest.approx(make("uniform").densities(MLP, 0.1))
    assert make("erk", power=1.0).densities(MLP, 0.1) == make("erk").densities(MLP, 0.1)


def test_erk_plus_sets_the_last_layer_by_hand():
    densities = make("erk_plus", fc_density=0.5).densities(MLP, 0.1)
    rest = (0.1 * 266_200 - 0.5 * 1000) / 265_200
    assert densities["l2"] == 0.5
    assert {k: densities[k] for k in ("l0", "l1")} == pytest.approx(make("erk").densities(MLP[:2], rest), rel=1e-12)


def test_uniform_plus_above_80_percent():
    densities = make("uniform_plus").densities(RESNET20, 0.1)
    rest = (0.1 * 270_896 - 432 - 0.2 * 640) / 270_896
    assert densities["l0"] == 1.0 and densities["l20"] == densities["l1"] == pytest.approx(rest, rel=1e-12)
    assert densities[RESNET20[-1].name] == 0.2
    kept = make("uniform_plus").allocate(RESNET20, 0.1)
    assert kept["l0"] == 432 and kept[RESNET20[-1].name] == 128
    assert 0.099 < sum(kept.values()) / 270_896 < 0.1  # under by design


def test_uniform_plus_up_to_80_percent():
    densities = make("uniform_plus").densities(RESNET20, 0.2)
    assert densities["l0"] == 1.0 and set(list(densities.values())[1:]) == {0.2}
    assert sum(make("uniform_plus").allocate(RESNET20, 0.2).values()) > 0.2 * 270_896  # over by design


# -- totals ------------------------------------------------------------------------------------------------------------

shapes = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        st.tuples(st.integers(1, 16), st.integers(1, 16), st.sampled_from([1, 3]), st.sampled_from([1, 3])),
    ),
    min_size=1,
    max_size=8,
)


def head_only(shapes: list[tuple[int, ...]]) -> list[Layer]:
    return [
        Layer(f"l{i}", "conv", shape, 0, frozenset({"head"} if i == len(shapes) - 1 else ()))
        for i, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=80)
@given(shapes=shapes, sparsity=st.integers(0, 995))
def test_totals_are_exact_to_the_weight(name, shapes, sparsity):
    layers, density = head_only(shapes), Sparsity.parse(sparsity / 1000).density
    total = sum(layer.numel for layer in layers)
    try:
        kept = make(name).allocate(layers, density)
    except ConfigError as refused:
        assert all(len(str(issue)) <= WIDTH for issue in refused.issues)
        assert name == "erk_plus" or nearest_count(density, total) < len(layers)
        return
    assert sum(kept.values()) == nearest_count(density, total)
    assert all(1 <= kept[layer.name] <= layer.numel for layer in layers)
    densities = make(name).densities(layers, density)
    assert sum(densities[layer.name] * layer.numel for layer in layers) == pytest.approx(density * total, rel=1e-9)
    if nearest_count(density, total) > 20 * len(layers):
        assert all(abs(kept[layer.name] - densities[layer.name] * layer.numel) < len(layers) for layer in layers)
    for layer in layers:
        score = torch.rand(layer.shape)
        assert Pattern.of(Sparsity.parse(0.5)).mask(score, kept[layer.name] / layer.numel).sum() == kept[layer.name]


@settings(max_examples=80)
@given(shapes=shapes, density=st.floats(0.01, 0.99))
def test_erk_gives_wider_layers_less_and_equal_shapes_the_same(shapes, density):
    layers = head_only(shapes)
    densities = make("erk").densities(layers, density)
    raw = {layer.name: sum(layer.shape) / layer.numel for layer in layers}
    for a in layers:
        assert 0 < densities[a.name] <= 1
        for b in layers:
            if raw[a.name] >= raw[b.name]:
                assert densities[a.name] >= densities[b.name] - 1e-12


def test_n_of_m_gets_exactly_its_share_in_every_layer():
    layers = layers_of((9, 6), (3, 12), (5, 3))
    assert make("uniform").allocate(layers, Sparsity.parse("1:3").density) == {"l0": 18, "l1": 12, "l2": 5}


def test_largest_remainder_by_hand():
    layers = layers_of((1, 10), (1, 10), (1, 10))
    assert whole_numbers(layers, [0.23, 0.27, 0.25], 8, "here") == {"l0": 2, "l1": 3, "l2": 3}
    assert whole_numbers(layers, [0.01, 0.01, 0.98], 9, "here") == {"l0": 1, "l1": 1, "l2": 7}
    assert whole_numbers(layers, [0.25, 0.25, 0.25], 8, "here") == {"l0": 3, "l1": 3, "l2": 2}  # the earlier first
    assert whole_numbers(layers, [1.0, 1.0, 0.1], 25, "here") == {"l0": 10, "l1": 10, "l2": 5}


def test_fewer_weights_than_layers_is_refused():
    line = "distribution=uniform: 1 weights in all for 3 layers — ask for less sparsity or fewer layers"
    with pytest.raises(ConfigError, match=line):
        make("uniform").allocate(layers_of((1, 10), (1, 10), (1, 10)), 0.02)
    with pytest.raises(ConfigError, match="do not fit"):
        whole_numbers(layers_of((1, 2), (1, 2)), [1.0, 1.0], 5, "here")


# -- ranked ------------------------------------------------------------------------------------------------------------


def test_global_counts_the_top_scores_wherever_they_are():
    scores = {"a": torch.tensor([[5.0, 1], [4, 0]]), "b": torch.tensor([[3.0, 3, 2, 9]])}
    assert make("global").allocate_scored(scores, 0.5) == {"a": 2, "b": 2}
    assert make("global").allocate_scored(scores, 0.125) == {"a": 0, "b": 1}
    tied = {"a": torch.ones(2, 2), "b": torch.ones(2, 2)}
    assert make("global").allocate_scored(tied, 0.5) == {"a": 4, "b": 0}


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.floats(0.05, 0.95), st.sampled_from([torch.float32, torch.bfloat16]))
def test_global_counts_make_the_global_mask(seed, density, dtype):
    generator = torch.Generator().manual_seed(seed)
    scores = {
        n: torch.randn(s, generator=generator).to(dtype) for n, s in (("a", (5, 7)), ("b", (3, 4)), ("c", (8, 2)))
    }
    kept = make("global").allocate_scored(scores, density)
    assert sum(kept.values()) == nearest_count(density, 63)
    pattern = Pattern.of(Sparsity.parse(0.5))
    parts = [pattern.mask(s, kept[n] / s.numel()).flatten() for n, s in scores.items()]
    everything = torch.cat([s.flatten() for s in scores.values()])[None]
    assert torch.equal(torch.cat(parts), pattern.mask(everything, density)[0])


def test_global_refuses_nan_and_needs_scores():
    with pytest.raises(ValueError, match="NaN"):
        make("global").allocate_scored({"a": torch.tensor([[1.0, nan]])}, 0.5)
    with pytest.raises(NotImplementedError):
        make("global").allocate(MLP, 0.5)
    with pytest.raises(NotImplementedError):
        make("uniform").allocate_scored({}, 0.5)
    assert [n for n in DISTRIBUTIONS if DISTRIBUTIONS[n].needs_scores] == ["global", "lamp", "owl"]
    assert [n for n in DISTRIBUTIONS if "nm" in DISTRIBUTIONS[n].patterns] == ["uniform"]


# -- given -------------------------------------------------------------------------------------------------------------


def test_per_layer_takes_the_first_selector_that_matches():
    given = make("per_layer", layers={"l0": 0.9, "@head": 0.0, "l*": 0.5})
    assert given.densities(MLP, 0.2) == pytest.approx({"l0": 0.1, "l1": 0.5, "l2": 1.0})
    assert given.allocate(MLP, 0.2) == {"l0": 23_520, "l1": 15_000, "l2": 1000}
    assert make("per_layer", layers={"l0": 0.9}).densities(MLP, 0.2) == pytest.approx({"l0": 0.1, "l1": 0.2, "l2": 0.2})


def test_per_layer_names_the_selectors_that_match_nothing():
    with pytest.raises(ConfigError) as refused:
        make("per_layer", layers={"l9": 0.9, "@hed": 0.5}).densities(MLP, 0.2)
    assert [str(issue) for issue in refused.value.issues] == [
        "distribution.layers['l9']: 'l9' matches no layer — closest: 'l2'",
        "distribution.layers['@hed']: '@hed' matches no layer — did you mean \"@head\"?",
    ]


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, options, where",
    [
        ("erk", {"power": -1.0}, "distribution.power=-1.0"),
        ("erk_plus", {"fc_density": 0.0}, "distribution.fc_density=0.0"),
        ("per_layer", {"layers": {}}, "distribution.layers"),
        ("per_layer", {"layers": {"a": 1.0}}, "distribution.layers.a"),
        ("uniform", {"power": 1.0}, "distribution.power"),
    ],
)
def test_bad_options_are_one_line(name, options, where):
    with pytest.raises(ConfigError) as refused:
        make(name, **options)
    (issue,) = refused.value.issues
    assert str(issue).startswith(where) and len(str(issue)) <= WIDTH


def test_what_the_edges_alone_exceed_is_refused():
    edges = layers_of((64, 64), (8, 8), (64, 64))
    with pytest.raises(ConfigError, match=r"distribution=uniform_plus: .* exceed the request — sparsity below 0\.4"):
        make("uniform_plus").densities(edges, 0.1)
    with pytest.raises(ConfigError, match=r"distribution=erk_plus: l2 at density 1 leaves -"):
        make("erk_plus").densities(edges, 0.1)
    with pytest.raises(ConfigError, match=r"leaves 1\.2"):
        make("erk_plus", fc_density=0.1).densities(layers_of((2, 2), (2, 2)), 0.65)


def test_a_rule_without_its_layer_is_refused():
    bare = [Layer("a", "linear", (4, 4), 0)]
    for name in ("uniform_plus", "erk_plus"):
        with pytest.raises(ConfigError, match=r"needs one layer with role .* found 0"):
            make(name).densities(bare, 0.1)
