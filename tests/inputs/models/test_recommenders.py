"""Graph, auto-encoder and NeuMF against their equations on hand-made interactions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Taken, Users
from sparselab.inputs.models.families import recommenders as families
from sparselab.inputs.models.recommenders import Graph, LightGCN, MultVAE, NeuMF

TOOK = np.array([[0, 0, 1, 2], [0, 1, 1, 3]])
USERS, ITEMS = 3, 5  # item 2 and 4 were taken by nobody


def adjacency():
    whole = torch.zeros(USERS + ITEMS, USERS + ITEMS)
    for user, item in TOOK.T:
        whole[user, USERS + item] = whole[USERS + item, user] = 1
    degree = whole.sum(0)
    scale = torch.where(degree > 0, degree**-0.5, 0.0)
    return scale[:, None] * whole * scale


def test_the_adjacency_of_a_single_edge_is_one():
    """Dossier: normalised adjacency of a single user-item edge = 1."""
    graph = Graph(np.array([[0], [0]]), 1, 1)
    assert torch.equal(graph(torch.eye(2)), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


def test_the_product_and_its_gradient_are_those_of_the_dense_matrix():
    graph, table = Graph(TOOK, USERS, ITEMS), torch.randn(USERS + ITEMS, 4, requires_grad=True)
    dense, out = adjacency(), graph(table)
    assert torch.allclose(out, dense @ table, atol=1e-6)
    assert (out[[USERS + 2, USERS + 4]] == 0).all(), "an item that nobody took has no neighbours"
    weight = torch.randn_like(out)
    (gradient,) = torch.autograd.grad((out * weight).sum(), table)
    assert torch.allclose(gradient, dense.T @ weight, atol=1e-6)
    assert not list(graph.state_dict())


def test_lightgcn_is_the_mean_over_propagations():
    torch.manual_seed(0)
    network = LightGCN(TOOK, USERS, ITEMS, 4, 2)
    table, dense = network.embedding.weight, adjacency()
    vectors = (table + dense @ table + dense @ dense @ table) / 3
    users = torch.tensor([[2], [0]])
    expected = vectors[users[:, 0]] @ vectors[USERS:].T
    assert torch.allclose(network(users), expected, atol=1e-6)
    pairs = torch.tensor([[2, 3, 1], [0, 4, 0]])
    assert torch.allclose(network(pairs), expected.gather(1, pairs[:, 1:]), atol=1e-6)
    ego = network.looked_up(pairs)
    assert torch.equal(ego, table[torch.tensor([[2, 6, 4], [0, 7, 3]])])


def test_without_layers_it_is_matrix_factorisation():
    """Dossier: LightGCN with 0 layers = plain MF."""
    network = LightGCN(TOOK, USERS, ITEMS, 4, 0)
    table = network.embedding.weight
    assert torch.equal(network(torch.arange(USERS)[:, None]), table[:USERS] @ table[USERS:].T)
    network(torch.tensor([[1, 2]])).sum().backward()
    touched = table.grad.abs().sum(1) > 0
    assert touched.nonzero().flatten().tolist() == [1, USERS + 2], "a look-up has a gradient at its rows alone"


def test_through_the_graph_neighbours_have_a_gradient_too():
    network = LightGCN(TOOK, USERS, ITEMS, 4, 1)
    network(torch.tensor([[0, 3]])).sum().backward()
    touched = (network.embedding.weight.grad.abs().sum(1) > 0).nonzero().flatten().tolist()
    assert touched == [0, 2, USERS, USERS + 1, USERS + 3]


def test_multvae_can_be_copied_in_the_middle_of_training():
    network = MultVAE(TOOK, USERS, ITEMS, [6, 2], 0.5).train()
    network(torch.zeros(2, 1, dtype=torch.int64))
    twin = copy.deepcopy(network)
    assert float(twin.divergence) == 0.0 and network.divergence.requires_grad
    assert all(
        torch.equal(a, b) for a, b in zip(twin.state_dict().values(), network.state_dict().values(), strict=True)
    )


def test_multvae_reads_rows_at_unit_length():
    torch.manual_seed(0)
    network = MultVAE(TOOK, USERS, ITEMS, [6, 2], 0.5).eval()
    rows = network.rows(torch.tensor([0, 2, 1]))
    assert rows.tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0]]
    q, p = network.q_layers, network.p_layers
    mean, log_variance = q[1](q[0](F.normalize(rows)).tanh()).split(2, 1)
    users = torch.tensor([[0], [2], [1]])
    assert torch.allclose(network(users), p[1](p[0](mean).tanh()), atol=1e-6)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    assert torch.allclose(network.divergence, kl.sum(1).mean(), atol=1e-6)
    some = torch.tensor([[0, 4, 1]])
    assert torch.allclose(network(some)[0], network(some[:, :1])[0, [4, 1]])
    network.train()
    assert not torch.equal(network(users), network(users))


def test_a_user_of_whom_nothing_is_known_has_an_empty_row():
    network = MultVAE(TOOK, USERS + 1, ITEMS, [2], 0.0).eval()
    assert network.rows(torch.tensor([3])).sum() == 0 and network(torch.tensor([[3]])).isfinite().all()


def test_neumf_is_products_beside_a_perceptron(monkeypatch):
    torch.manual_seed(0)
    network = NeuMF(USERS, ITEMS, 4, [6, 3], 0.2).eval()
    monkeypatch.setattr("sparselab.inputs.models.recommenders.AT_ONCE", 6)  # a user at once
    scores = network(torch.arange(USERS)[:, None])
    for user in range(USERS):
        for item in range(ITEMS):
            u, i = torch.tensor(user), torch.tensor(item)
            hidden = torch.cat([network.u_emb(u), network.v_emb(i)])
            for layer in (network.linear[0], network.linear[3]):
                hidden = layer(hidden).relu()
            both = torch.cat([network.gmf.u_emb(u) * network.gmf.v_emb(i), hidden])
            assert torch.allclose(network.predict(both)[0], scores[user, item], atol=1e-6)
    pairs = torch.tensor([[1, 4, 0], [2, 2, 2]])
    assert torch.allclose(network(pairs), scores[pairs[:, :1], pairs[:, 1:]], atol=1e-6)


def data(candidates=0):
    inputs = Users(USERS, ITEMS, TOOK.shape[1], candidates, lambda: TOOK)
    return DataSpec("set", inputs, Taken(candidates or ITEMS, ITEMS), 4, 1, 1, "", "local")


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (families.LightGCN, {"width": 4, "depth": 2}),
        (families.LightGCN, {"width": 4, "depth": 0}),
        (families.MultVAE, {"hidden": [6, 2], "dropout": 0.5}),
        (families.NeuMF, {"width": 4, "hidden": [6, 3], "dropout": 0.0}),
    ],
)
def test_the_closed_form_is_the_network(family, options):
    made = family(family.Options(**options))
    spec, network = made.model_spec(data()), made.build(data())
    assert spec.params == sum(p.numel() for p in network.parameters())
    for layer in spec.layers:
        assert network.get_parameter(layer.tensor).shape == layer.shape
    assert not {name for name, p in network.named_parameters() if p.ndim > 1} - {layer.tensor for layer in spec.layers}


def test_the_cost_of_a_user():
    def spec(family, **options):
        return family(family.Options(**options)).model_spec(data())

    edges = 2 * TOOK.shape[1]
    graph = spec(families.LightGCN, width=3, depth=2)
    hop = -(-edges * 3 // USERS)
    assert graph["embedding"].macs == hop, "the first propagation reads the sparse table"
    assert graph.fixed_macs == {"scores": ITEMS * 3, "graph": hop}, "what comes after it is dense"
    plain = spec(families.LightGCN, width=3, depth=0)
    assert plain["embedding"].macs == ITEMS * 3 and not plain.fixed_macs
    neumf = spec(families.NeuMF, width=4, hidden=[6, 3], dropout=0.0)
    assert neumf.macs == ITEMS * (8 * 6 + 6 * 3 + 7)
