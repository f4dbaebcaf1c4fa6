"""Weights that are multiplied with past their module, in stacks, or only after something was made of them."""

from __future__ import annotations

import pytest
import torch
from data_specs import image_data
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from sparselab.core.products import Products
from sparselab.inputs.models.trace import trace

VECTOR = image_data((1, 1, 8), 3)
IMAGE = image_data((2, 6, 6), 3)


class Net(nn.Module):
    """One module or parameter under test, and what is done with it."""

    def __init__(self, part, use) -> None:
        super().__init__()
        self.part, self.use = part, use

    def forward(self, x):
        return self.use(self.part, x)


def layers(model, data=VECTOR):
    return [(layer.tensor, layer.kind, layer.shape, layer.macs, layer.groups) for layer in trace(model, data).layers]


def loose(model, data=VECTOR):
    return [(one.name, one.use) for one in trace(model, data).loose]


@pytest.mark.parametrize(
    ("part", "use", "found"),
    [
        (nn.Linear(8, 6), lambda m, x: F.linear(x, m.weight), ("part.weight", "linear", (6, 8), 48, 1)),
        (nn.Parameter(torch.ones(8, 6)), lambda p, x: x @ p, ("part", "conv1d", (8, 6), 48, 1)),
        (nn.Parameter(torch.ones(6, 8)), lambda p, x: x @ p.t(), ("part", "linear", (6, 8), 48, 1)),
        (nn.Parameter(torch.ones(6, 8)), lambda p, x: p @ x.mT, ("part", "linear", (6, 8), 48, 1)),
        (nn.Parameter(torch.ones(8, 8)), lambda p, x: x @ p, ("part", "conv1d", (8, 8), 64, 1)),
        (nn.Parameter(torch.ones(6, 8)), lambda p, x: torch.einsum("...i,oi->...o", x, p),
         ("part", "linear", (6, 8), 48, 1)),
        (nn.Linear(8, 1), lambda m, x: m(x), ("part.weight", "linear", (1, 8), 8, 1)),
    ],
)  # fmt: skip
def test_a_weight_is_a_layer_whoever_multiplies_with_it(part, use, found) -> None:
    assert layers(Net(part, use)) == [found]
    assert loose(Net(part, use)) == []


def test_torchs_attention_has_four_matrices_in_two_layers() -> None:
    model = Net(nn.MultiheadAttention(8, 2, batch_first=True), lambda m, x: m(x[:, 0], x[:, 0], x[:, 0])[0])
    found = layers(model)
    assert [(name, kind, shape, macs) for name, kind, shape, macs, _ in found] == [
        ("part.in_proj_weight", "linear", (24, 8), 192),
        ("part.out_proj.weight", "linear", (8, 8), 64),
    ]
    assert set(trace(model, VECTOR).layers[0].roles) == {"qkv"}
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_cell_of_a_recurrent_network_has_two_matrices() -> None:
    model = Net(nn.GRUCell(8, 5), lambda m, x: m(x[:, 0, 0]))
    assert layers(model) == [
        ("part.weight_ih", "linear", (15, 8), 120, 1),
        ("part.weight_hh", "linear", (15, 5), 75, 1),
    ]


# -- experts -------------------------------------------------------------------------------------------------------------


def one_by_one(stack, x):
    """Two of four experts each get some of the tokens."""
    rows = x.reshape(-1, 2)
    return torch.cat([F.linear(rows[:3], stack[torch.tensor(1)]), F.linear(rows[3:], stack[3])])


def grouped(stack, x):
    """Rows of 16 bytes, as the kernel wants them."""
    offs = torch.tensor([0, 1, 1, 2], dtype=torch.int32)
    return F.grouped_mm(x.reshape(-1, 4), stack.transpose(1, 2), offs=offs)


def all_of_them(stack, x):
    return torch.bmm(x.reshape(1, -1, 2).expand(4, -1, -1), stack)


@pytest.mark.parametrize(
    ("shape", "use", "kind", "macs"),
    [
        ((4, 8, 2), one_by_one, "experts", 4 * 16),
        ((4, 8, 4), grouped, "experts", 2 * 32),
        ((4, 4, 8), lambda p, x: grouped(p.mT, x), "experts1d", 2 * 32),
        ((4, 2, 8), all_of_them, "experts1d", 4 * 4 * 16),
    ],
)
def test_experts_are_charged_for_the_tokens_that_reach_them(shape, use, kind, macs) -> None:
    assert layers(Net(nn.Parameter(torch.ones(shape)), use)) == [("part", kind, shape, macs, 4)]


# -- what is no layer ----------------------------------------------------------------------------------------------------


class Standardised(nn.Conv2d):
    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, self.weight - mean, self.bias, self.stride, self.padding)


class Rounded(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight.round(), self.bias)


class Mixed(nn.Module):
    """A convolution with a mixture of its two filters."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.ones(2, 3, 2, 3, 3))

    def forward(self, x):
        return F.conv2d(x, (x.mean() * self.filters).sum(0))


CONV = nn.Conv2d(2, 3, 3)


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (Standardised(2, 3, 3), ["part.weight"]),
        (Mixed(), ["part.filters"]),
        (parametrizations.weight_norm(nn.Conv2d(2, 3, 3)),
         ["part.parametrizations.weight.original0", "part.parametrizations.weight.original1"]),
        (parametrizations.spectral_norm(nn.Conv2d(2, 3, 3)), ["part.parametrizations.weight.original"]),
    ],
)  # fmt: skip
def test_what_is_made_of_a_weight_before_it_convolves_is_told(part, names) -> None:
    model = Net(part, lambda m, x: m(x))
    assert layers(model, IMAGE) == []
    assert loose(model, IMAGE) == [(name, "function") for name in names]
    assert sum(trace(model, IMAGE).fixed_macs.values()) == 3 * 18 * 16


def test_a_linear_layer_that_rounds_its_weight_is_told() -> None:
    assert loose(Net(Rounded(8, 6), lambda m, x: m(x))) == [("part.weight", "function")]


@pytest.mark.parametrize(
    ("shape", "use", "said"),
    [
        ((1, 8), lambda p, x: x + p, "added"),
        ((5, 8), lambda p, x: x + p[torch.tensor([2])], "added"),
        ((4, 8, 2), lambda p, x: torch.bmm(x.reshape(1, 1, 8), p[torch.tensor([2])]), "product"),
        ((2, 2, 2, 6), lambda p, x: torch.einsum("ni,io->no", x.reshape(-1, 8), p.reshape(8, 6)), "product"),
        ((5, 8), lambda p, x: x, "unseen"),
    ],
)
def test_what_is_known_of_other_parameters(shape, use, said) -> None:
    assert loose(Net(nn.Parameter(torch.ones(shape)), use)) == [("part", said)]


def test_a_convolution_that_is_transposed_is_multiplied_with_and_no_layer() -> None:
    model = Net(nn.ConvTranspose2d(2, 3, 3), lambda m, x: m(x))
    assert layers(model, IMAGE) == [] and loose(model, IMAGE) == [("part.weight", "product")]


# -- what a weight is multiplied with -----------------------------------------------------------------------------------


def rows_of(module, x):
    """What the module's weight was multiplied with: (groups, positions, inputs)."""
    seen = []
    with torch.no_grad(), Products({"w": module.weight}, lambda uses, _: seen.extend(uses or ())):
        module(x)
    ((_, rows),) = seen[0].rows()
    return rows if rows.ndim == 3 else rows[None]


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (nn.Conv2d(4, 6, 3, padding=1, stride=2), (5, 7)),
        (nn.Conv2d(4, 6, (3, 1), padding="same", dilation=2, groups=2), (6, 5)),
        (nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"), (5, 5)),
        (nn.Conv1d(4, 6, 3, padding=2, dilation=2, groups=2), (9,)),
        (nn.Conv1d(4, 6, 3, stride=2), (9,)),
        (nn.Conv3d(4, 6, (2, 1, 3), groups=2), (3, 4, 5)),
    ],
)
def test_patches_times_filters_is_the_convolution(module, size) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, *size)
    rows, out = rows_of(module, x), module(x)
    filters = module.weight.detach().flatten(1).reshape(len(rows), -1, rows.shape[2])
    again = (rows @ filters.mT).transpose(0, 1).flatten(1)  # (positions, outputs)
    expected = out.detach() - module.bias.detach().view(1, -1, *[1] * len(size))
    assert torch.allclose(again, expected.flatten(2).transpose(1, 2).flatten(0, 1), atol=1e-5)
