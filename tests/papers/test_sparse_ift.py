"""The members of arXiv 2303.11525: sizes by hand, FLOPs equal to the dense network's, closed forms equal to networks."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import nn

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import WIDTH, ConfigError
from sparselab.core.model_spec import Layer
from sparselab.core.options import validate
from sparselab.inputs.models.enlarged import Branches, Doped, Factors
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.models.trace import trace
from sparselab.inputs.models.transform import TRANSFORMS, Transform, replaceable, wider
from sparselab.weights.cost import cost_of
from sparselab.weights.distributions import DISTRIBUTIONS
from sparselab.weights.isoflop import TOLERANCE, matched
from sparselab.weights.targets import select

torch.set_num_threads(1)
EXCLUDE = ["@stem", "@head", "@embedding", "@depthwise"]
LINEAR = Layer("l", "linear", (768, 768), 768 * 768)
CONV = Layer("c", "conv", (64, 64, 3, 3), 64 * 64 * 9 * 100)
SMALL = DataSpec("pictures", "image", (3, 32, 32), 10, 8, 8, 8, "0" * 64, "local")
TINY = DataSpec("pictures", "image", (1, 9, 8), 5, 8, 8, 8, "0" * 64, "local")
LARGE = DataSpec("pictures", "image", (3, 224, 224), 1000, 8, 8, 8, "0" * 64, "local")
WORDS = DataSpec("words", "text", (12,), 60, 8, 8, 8, "0" * 64, "local")


def transform(name: str, sparsity: float, **options: object) -> Transform:
    cls = TRANSFORMS[name]
    return cls(validate(cls.Options, {"sparsity": sparsity, **options}, "model.transform"))


def family(name: str, change: dict | None = None, **options: object):
    return MODELS[name](validate(MODELS[name].Options, {**options, "transform": change}, "model"))


def uniform():
    return DISTRIBUTIONS["uniform"](DISTRIBUTIONS["uniform"].Options())


def sparse_cost(model_spec, sparsity: float) -> int:
    return cost_of(model_spec, uniform().allocate(select(model_spec, ["*"], EXCLUDE), 1 - sparsity)).macs


# -- sizes, as printed or worked out by hand ---------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0.5, 0.75, 0.9])
def test_wide_keeps_the_weights_of_an_inner_layer_after_masking(s):
    density = transform("sparse_wide", s).density
    factor = 1 / density  # of both widths together
    assert 768**2 * factor * density == 768**2
    assert wider(64, factor) == {0.5: 90, 0.75: 128, 0.9: 202}[s]


def test_wide_widths_are_rounded_down_to_a_multiple():
    assert wider(96, Fraction(2)) == 135 and wider(96, Fraction(2), 4) == 132 and wider(7, Fraction(1)) == 7


@pytest.mark.parametrize(("s", "width"), [(0.5, 768), (0.75, 1536)])
def test_factorized_linear(s, width):
    assert transform("sparse_factorized", s).inner(LINEAR) == width


@pytest.mark.parametrize(("s", "both", "u"), [(0.5, 116, 105), (0.75, 231, 178), (0.9, 576, 304)])
def test_factorized_convolution(s, both, u):
    """At 0.9 the released code's 1 - 0.9 = 0.09999999999999998 gives 577; a tenth gives 576."""
    assert transform("sparse_factorized", s).inner(CONV) == both
    assert transform("sparse_factorized", s, sparse="u").inner(CONV) == u


@pytest.mark.parametrize(("s", "linear", "conv"), [(0.0, 0, 0), (0.5, 192, 28), (0.75, 288, 43), (0.9, 345, 51)])
def test_doped_rank(s, linear, conv):
    assert transform("sparse_doped", s).rank(LINEAR) == linear
    assert transform("sparse_doped", s).rank(CONV) == conv


@pytest.mark.parametrize("s", [0.5, 0.75, 0.8, 0.9])
def test_parallel_branches_times_density_is_one(s):
    member = transform("sparse_parallel", s)
    assert member.branches * member.density == 1 and member.branches.denominator == 1
    assert len(member.pieces(CONV).layers) == member.branches


@pytest.mark.parametrize("s", [0.5, 0.75])
def test_weights_before_and_after_masking(s):
    grown = Fraction(768 * 768) / (1 - Fraction(str(s)))
    for name in ("sparse_parallel", "sparse_factorized"):
        assert sum(layer.numel for layer in transform(name, s).pieces(LINEAR).layers) == grown
    doped = transform("sparse_doped", s)
    pieces, rank = doped.pieces(LINEAR), doped.rank(LINEAR)
    assert [layer.numel for layer in pieces.layers] == [768 * 768] and pieces.params == rank * 2 * 768
    assert 768 * 768 * (1 - s) + pieces.params == 768 * 768
    assert sum(pieces.fixed_macs.values()) == pieces.params


def test_nothing_changes_at_sparsity_zero():
    plain = family("cifar_resnet", depth=8, width=4).model_spec(TINY)
    for name in ("sparse_wide", "sparse_parallel", "sparse_doped"):
        same = family("cifar_resnet", {"name": name, "sparsity": 0.0}, depth=8, width=4).model_spec(TINY)
        assert (same.layers, same.params, same.fixed_macs) == (plain.layers, plain.params, plain.fixed_macs)
        assert same.plain_macs == plain.macs == same.macs


# -- equal FLOPs, whole networks, without torch ------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0.5, 0.75, 0.9])
@pytest.mark.parametrize(
    ("depth", "data", "macs"),
    [(18, SMALL, 555_422_720), (18, LARGE, 1_814_073_344), (34, LARGE, 3_663_761_408)],
)
def test_wide_resnets_cost_what_the_dense_one_does(depth, data, macs, s):
    model_spec = family("resnet", {"name": "sparse_wide", "sparsity": s}, depth=depth).model_spec(data)
    assert model_spec.plain_macs == macs == family("resnet", depth=depth).model_spec(data).macs
    found = matched(model_spec, select(model_spec, ["*"], EXCLUDE), uniform())
    assert abs(sparse_cost(model_spec, found.sparsity) - macs) <= TOLERANCE * macs
    assert abs(found.sparsity - s) < 0.02  # the stem and the classifier are all that grows in one direction only


@pytest.mark.parametrize("s", [0.5, 0.75, 0.9])
def test_parallel_costs_exactly_the_same(s):
    model_spec = family("resnet", {"name": "sparse_parallel", "sparsity": s}).model_spec(SMALL)
    positions = sum(layer.macs // layer.numel for layer in model_spec.layers)  # one weight more or less in each layer
    assert abs(sparse_cost(model_spec, s) - model_spec.plain_macs) <= positions


@pytest.mark.parametrize("s", [0.5, 0.75, 0.9])
def test_factorized_and_doped_cost_the_same_up_to_one_channel(s):
    """Inner widths are rounded up (factorized) or ranks down (doped): by less than a channel of each layer."""
    plain = family("resnet").model_spec(SMALL)
    channel = sum(x.macs / x.numel * (x.numel // x.outputs + x.outputs) for x in replaceable(plain))
    for name, sign in (("sparse_factorized", 1 - s), ("sparse_doped", -1)):
        model_spec = family("resnet", {"name": name, "sparsity": s}).model_spec(SMALL)
        over = (sparse_cost(model_spec, s) - plain.macs) / (sign * channel)
        assert -1e-3 < over <= 1


def test_masks_on_the_factors_cost_less_than_the_dense_network():
    """The released code's reading."""
    model_spec = family("resnet", {"name": "sparse_doped", "sparsity": 0.75, "dense_factors": False}).model_spec(SMALL)
    assert sparse_cost(model_spec, 0.75) < 0.5 * model_spec.plain_macs


@pytest.mark.parametrize(
    ("name", "options", "data"),
    [
        ("mlp", {"hidden": [32, 32]}, SMALL),
        ("cifar_resnet", {"depth": 8, "width": 8}, SMALL),
        ("gpt", {"width": 32}, WORDS),
    ],
)
def test_iso_finds_the_sparsity_of_small_networks_too(name, options, data):
    model_spec = family(name, {"name": "sparse_wide", "sparsity": 0.75}, **options).model_spec(data)
    found = matched(model_spec, select(model_spec, ["*"], EXCLUDE), uniform())
    assert abs(sparse_cost(model_spec, found.sparsity) / model_spec.plain_macs - 1) <= TOLERANCE


def test_iso_is_refused_where_it_means_nothing():
    plain = family("mlp").model_spec(SMALL)
    wide = family("mlp", {"name": "sparse_wide", "sparsity": 0.75}).model_spec(SMALL)
    ranked = DISTRIBUTIONS["global"](DISTRIBUTIONS["global"].Options())
    few = [layer for layer in wide.layers if layer.name == "layers.1"]
    for model_spec, layers, distribution, word in (
        (plain, list(plain.layers), uniform(), "no network whose cost"),
        (None, [], uniform(), "no network whose cost"),
        (wide, list(wide.layers), ranked, "only in training"),
        (wide, few, uniform(), "the nearest is 1."),
    ):
        with pytest.raises(ConfigError) as refused:
            matched(model_spec, layers, distribution)
        (issue,) = refused.value.issues
        assert word in str(issue) and len(str(issue)) <= WIDTH


# -- the networks are what the closed forms say ------------------------------------------------------------------------

CASES = [
    ("mlp", {"hidden": [12, 8], "batch_norm": True}, TINY, {"name": "sparse_wide", "sparsity": 0.6}),
    ("mlp", {"hidden": [12, 8], "batch_norm": True}, TINY, {"name": "sparse_parallel", "sparsity": 0.75}),
    ("mlp", {"hidden": [12, 8], "batch_norm": True}, TINY, {"name": "sparse_factorized", "sparsity": 0.5}),
    ("mlp", {"hidden": [12, 8]}, TINY, {"name": "sparse_factorized", "sparsity": 0.5, "uv": "linear", "sparse": "u"}),
    ("mlp", {"hidden": [12, 8]}, TINY, {"name": "sparse_doped", "sparsity": 0.9, "dense_factors": False}),
    ("cifar_resnet", {"depth": 8, "width": 4}, TINY, {"name": "sparse_wide", "sparsity": 0.75}),
    ("cifar_resnet", {"depth": 8, "width": 4}, TINY, {"name": "sparse_parallel", "sparsity": 0.5, "branch_relu": True}),
    ("cifar_resnet", {"depth": 8, "width": 4}, TINY, {"name": "sparse_factorized", "sparsity": 0.75}),
    ("cifar_resnet", {"depth": 8, "width": 4}, TINY, {"name": "sparse_doped", "sparsity": 0.75}),
    ("resnet", {}, TINY, {"name": "sparse_wide", "sparsity": 0.5}),
    ("resnet", {}, TINY, {"name": "sparse_parallel", "sparsity": 0.5}),
    ("resnet", {"depth": 50}, DataSpec("p", "image", (3, 72, 72), 5, 8, 8, 8, "0", "local"),
     {"name": "sparse_wide", "sparsity": 0.2}),
    ("gpt", {"width": 16, "depth": 1}, WORDS, {"name": "sparse_wide", "sparsity": 0.75}),
    ("gpt", {"width": 16, "depth": 1, "tie": False}, WORDS, {"name": "sparse_factorized", "sparsity": 0.5, "uv": "linear"}),
    ("gpt", {"width": 16, "depth": 1}, WORDS, {"name": "sparse_doped", "sparsity": 0.5}),
    ("vit", {"width": 12, "depth": 1, "heads": 3, "patch": 1}, TINY, {"name": "sparse_wide", "sparsity": 0.75}),
    ("vit", {"width": 12, "depth": 1, "heads": 3, "patch": 1}, TINY,
     {"name": "sparse_factorized", "sparsity": 0.5, "uv": "linear"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "data", "change"), CASES, ids=lambda value: str(value)[:60])
def test_closed_form_equals_trace(name, options, data, change):
    member = family(name, change, **options)
    model_spec, model = member.model_spec(data), member.build(data)
    traced = trace(model, data, name)
    factors = {layer.name: layer.macs for layer in traced.layers} | traced.fixed_macs
    assert {layer.name: layer.macs for layer in model_spec.layers} | model_spec.fixed_macs == factors
    assert (model_spec.params, model_spec.macs) == (traced.params, traced.macs)
    shapes = {layer.name: (layer.kind, layer.shape) for layer in traced.layers}
    assert all(shapes[layer.name] == (layer.kind, layer.shape) for layer in model_spec.layers)
    batch = torch.randn(2, *data.shape) if data.task == "image" else torch.randint(60, (2, 12))
    assert member.logits(model, batch).shape[-1] == data.classes


def conv(bias=False, stride=1):
    torch.manual_seed(0)
    return nn.Conv2d(4, 6, 3, stride, padding=1, bias=bias)


SHAPE = Layer("c", "conv", (6, 4, 3, 3), 6 * 4 * 9 * 25)
BATCH = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(1))


def test_one_branch_is_the_layer_and_its_normalisation():
    layer, norm = conv(), nn.BatchNorm2d(6)
    assert torch.equal(Branches(SHAPE, layer, norm, 1, relu=False)(BATCH), norm(layer(BATCH)))


@pytest.mark.parametrize("relu", [False, True])
def test_branches_are_summed(relu):
    made = Branches(SHAPE, conv(stride=2), nn.BatchNorm2d(6), 3, relu)
    parts = [branch.norm(branch.layer(BATCH)) for branch in made.branches]
    torch.testing.assert_close(made(BATCH), sum(part.relu() if relu else part for part in parts))
    assert len({id(branch.norm) for branch in made.branches}) == 3


@pytest.mark.parametrize("gone", ["u", "v"])
def test_doped_without_a_factor_is_the_sparse_layer(gone):
    made = Doped(SHAPE, conv(bias=True, stride=2), 2)
    assert not torch.equal(made(BATCH), made.sparse(BATCH))
    nn.init.zeros_(getattr(made, gone).weight)
    assert torch.equal(made(BATCH), made.sparse(BATCH))


def test_linear_factors_are_their_product():
    made = Factors(SHAPE, conv(bias=True), 5, bn_relu=False)
    folded = made.folded().view(6, 4, 3, 3)
    direct = nn.functional.conv2d(BATCH, folded, made.v.bias, padding=1)
    torch.testing.assert_close(made(BATCH), direct, rtol=1e-4, atol=1e-5)


def test_decay_of_the_folded_product():
    """Half of |V U|^2 over the layers that have one; its gradient in V U is V U itself, as a weight decay's is."""
    from types import SimpleNamespace

    from sparselab.training.losses.extra_loss import LOSSES

    cls = LOSSES["folded_decay"]
    extra, made = cls(cls.Options()), Factors(SHAPE, conv(), 5, bn_relu=False)
    between = Factors(SHAPE, conv(), 5, bn_relu=True)
    extra.prepare(SimpleNamespace(network=nn.ModuleList([made, between, nn.Linear(2, 2)])))
    loss = extra.loss(None, (), None)
    folded = made.folded().detach()
    assert loss.item() == pytest.approx(0.5 * float((folded**2).sum()), rel=1e-6)
    (slope,) = torch.autograd.grad(loss, made.v.weight)
    torch.testing.assert_close(slope.flatten(1), folded @ made.u.weight.flatten(1).T)
    assert between.folded() is None
    with pytest.raises(ConfigError) as refused:
        extra.prepare(SimpleNamespace(network=between))
    assert str(refused.value) == (
        "loss.folded_decay: no layer is a product of linear factors — "
        "write model.transform={name: sparse_factorized, sparsity: 0.5, uv: linear}"
    )


# -- what cannot be transformed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "data", "change", "line"),
    [
        ("mlp", {}, TINY, {"name": "sparse_parallel", "sparsity": 0.5},
         "model.transform.name=sparse_parallel: no batch normalisation follows layers.0, and every branch ends in one — "
         "use another member, or a model that has them"),
        ("resnet", {}, TINY, {"name": "sparse_parallel", "sparsity": 0.6},
         "model.transform.sparsity=0.6: makes 2.5 branches, and their number is whole — write 0.5, 0.75, 0.8 or 0.9"),
        ("timm", {"arch": "vit_tiny_patch16_224"}, LARGE, {"name": "sparse_wide", "sparsity": 0.5},
         "model.transform.name=sparse_wide: needs the layers beforehand, and model=timm tells them once it is built — "
         "choose another model"),
        ("gpt", {}, WORDS, {"name": "sparse_factorized", "sparsity": 0.5},
         "model.transform.uv=bn_relu: transformer.h.0.attn.c_attn works on many tokens, which batch normalisation cannot "
         "tell apart — write uv: linear"),
    ],
)  # fmt: skip
def test_misfits(name, options, data, change, line):
    with pytest.raises(ConfigError) as refused:
        family(name, change, **options).build(data)
    assert str(refused.value).startswith(line[: WIDTH - 60]) and line.rpartition("— ")[2] in str(refused.value)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"sparsity": 0.5}, "model.transform: has no name — one of: sparse_doped, sparse_factorized, sparse_parallel, "
                            "sparse_wide, split_qkv"),
        ({"name": "sparse_wyde", "sparsity": 0.5}, 'transform=sparse_wyde: no such transform — did you mean "sparse_wide"?'),
        ({"name": "sparse_wide"}, "model.transform.sparsity: is required and has no value — write model.transform.sparsity=…"),
        ({"name": "sparse_wide", "sparsity": 0.5, "uv": "linear"}, "model.transform.uv: no such key — one of: sparsity"),
    ],
)  # fmt: skip
def test_bad_options_are_one_line(change, line):
    with pytest.raises(ConfigError) as refused:
        family("mlp", change)
    assert str(refused.value) == line
