"""Graphs, their distances, and the generator: what can be said exactly."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sparselab.estimation.problems.graphs import generate
from sparselab.estimation.problems.graphs.compare import compare, hamming
from sparselab.estimation.problems.graphs.cpdag import cpdag
from sparselab.estimation.problems.graphs.intervention import intervention_distance
from sparselab.estimation.problems.graphs.order import is_acyclic, topological_order
from sparselab.estimation.problems.problem import PROBLEMS


def edges(d, *pairs):
    graph = np.zeros((d, d))
    for i, j in pairs:
        graph[i, j] = 1
    return graph


def random_dag(rng, d, share=0.5):
    order = rng.permutation(d)
    graph = np.zeros((d, d))
    graph[np.ix_(order, order)] = np.triu(rng.random((d, d)) < share, k=1)
    return graph


def test_a_reversed_edge_counts_one_and_nothing_found_counts_every_edge():
    true = edges(4, (0, 1), (1, 2), (0, 3))
    assert hamming(true, edges(4, (1, 0), (1, 2), (0, 3))) == 1
    assert hamming(true, np.zeros((4, 4))) == 3
    assert hamming(true, true) == 0
    assert hamming(true, edges(4, (0, 1), (1, 2), (2, 3))) == 2  # one missing, one extra


def test_rates_by_hand():
    true = edges(4, (0, 1), (1, 2), (0, 3))
    scores = compare(true, edges(4, (0, 1), (2, 1), (2, 3), (1, 3)))  # right, reversed, two false
    assert scores["fdr"] == 3 / 4 and scores["tpr"] == 1 / 3 and scores["fpr"] == 3 / 3
    assert scores["shd"] == 2 + 1 + 1 and scores["edges"] == 4


def test_a_cycle_is_refused():
    with pytest.raises(ValueError, match="cycle"):
        compare(edges(3, (0, 1)), edges(3, (0, 1), (1, 0)))
    assert not is_acyclic(edges(2, (0, 0)))
    assert topological_order(edges(3, (2, 0), (0, 1))) == [2, 0, 1]


def test_the_class_of_a_graph_is_what_all_its_members_share():
    """Every acyclic graph of four nodes, against the definition: same skeleton and same colliders."""
    pairs = [(i, j) for i in range(4) for j in range(4) if i < j]
    classes: dict[object, list[np.ndarray]] = {}
    for kinds in product((0, 1, 2), repeat=len(pairs)):
        graph = edges(4, *[(i, j) if kind == 1 else (j, i) for (i, j), kind in zip(pairs, kinds, strict=True) if kind])
        if not is_acyclic(graph):
            continue
        joined = (graph + graph.T) > 0
        colliders = frozenset(
            (a, c, b) for c in range(4) for a in range(4) for b in range(a)
            if graph[a, c] and graph[b, c] and not joined[a, b]
        )  # fmt: skip
        classes.setdefault((joined.tobytes(), colliders), []).append(graph != 0)
    assert sum(map(len, classes.values())) == 543
    for members in classes.values():
        shared = np.any(members, axis=0)  # both directions where the members differ
        assert all((cpdag(member) == shared).all() for member in members)


def test_intervention_distance_by_hand():
    true = edges(2, (0, 1))
    assert intervention_distance(true, true) == 0
    assert intervention_distance(true, edges(2)) == 1  # adjusting for nothing is wrong for 1 on 0
    assert intervention_distance(true, edges(2, (1, 0))) == 2


def test_more_edges_along_the_order_infer_every_intervention():
    rng = np.random.default_rng(0)
    for _ in range(20):
        true = random_dag(rng, 6, 0.4)
        order = topological_order(true)
        full = np.zeros((6, 6))
        full[np.ix_(order, order)] = np.triu(np.ones((6, 6)), k=1)
        assert intervention_distance(true, full) == 0


def test_intervention_distance_counts_the_wrong_effects_of_a_linear_model():
    """With generic weights an adjustment is right exactly where it gives the true total effect."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        true, found = random_dag(rng, 5), random_dag(rng, 5)
        weights = true * rng.uniform(0.5, 2, true.shape)
        total = np.linalg.inv(np.eye(5) - weights)
        covariance = total.T @ np.diag(rng.uniform(0.5, 2, 5)) @ total
        wrong = 0
        for i in range(5):
            parents = np.flatnonzero(found[:, i])
            for j in set(range(5)) - {i}:
                given = [i, *parents]
                slope = (
                    0.0 if j in parents else np.linalg.solve(covariance[np.ix_(given, given)], covariance[given, j])[0]
                )
                wrong += abs(slope - total[i, j]) > 1e-9
        assert intervention_distance(true, found) == wrong


def sem(**options):
    usual = {"graph": "er", "nodes": 10, "degree": 2.0, "samples": 50, "noise": "normal", "variance": 1.0}
    cls = PROBLEMS["sem"]
    return cls(cls.Options(**{**usual, "weights": [0.5, 2.0], **options}))


@pytest.mark.parametrize("graph", ["er", "sf"])
def test_a_draw_is_acyclic_with_weights_in_range_and_its_own_noise(graph):
    problem = sem(graph=graph, samples=20_000, variance=[0.5, 10.0])
    drawn = problem.draw(3, 1)
    sizes = np.abs(drawn.graph[drawn.graph != 0])
    assert is_acyclic(drawn.graph) and sizes.min() >= 0.5 and sizes.max() <= 2
    noise = drawn.X - drawn.X @ drawn.graph  # x = W^T x + z, a sample a row
    assert np.allclose(noise.std(0), drawn.scales, rtol=0.05)
    assert (problem.draw(3, 1).X == drawn.X).all() and not (problem.draw(3, 2).X == drawn.X).any()


def test_er4_has_four_edges_a_node_and_sf4_attaches_four():
    drawn = [sem(nodes=20, degree=4.0, samples=2).draw(0, k).graph for k in range(200)]
    assert np.mean([(graph != 0).sum() for graph in drawn]) == pytest.approx(80, rel=0.03)
    graph = generate.scale_free(20, 4, np.random.default_rng(0))
    assert graph.sum() == 4 + 4 * 15 and (np.triu(graph) == 0).all()


def test_noise_has_the_variance_that_is_asked_for():
    rng = np.random.default_rng(0)
    for make in generate.NOISES.values():
        assert make(rng, (200_000, 1)).var() == pytest.approx(1, rel=0.03)


def test_draws_that_differ_in_variance_share_graph_and_standard_noise():
    one, ten = sem().draw(0, 0), sem(variance=10.0).draw(0, 0)
    assert (one.graph == ten.graph).all()
    assert np.allclose(ten.X, np.sqrt(10) * one.X)


def test_more_edges_than_there_is_room_for_are_refused():
    assert sem(nodes=8, degree=4.0).issues()[0].fix == "write at most 3.5"
    assert sem(nodes=9, degree=4.0).issues() == []
    assert sem(graph="sf", degree=0.2).issues()
