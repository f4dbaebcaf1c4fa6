"""Random linear structural equation models: a graph, its weights, and samples of x = W^T x + z.

Follows the released generator of CoLiDE (arXiv 2310.02895, SAMiatto/colide utils.py: ``simulate_sem``) in distribution, not
in its random numbers; there the weights come from numpy's global state, here everything has its own generator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparselab.estimation.problems.graphs.order import topological_order

Rng = np.random.Generator


def erdos_renyi(nodes: int, degree: float, rng: Rng) -> np.ndarray:
    """(d, d) 0/1: ``degree`` * d edges in expectation, oriented along a random order of the nodes."""
    share = 2 * degree / (nodes - 1)
    forward = np.triu(rng.random((nodes, nodes)) < share, k=1)
    order = rng.permutation(nodes)
    graph = np.zeros((nodes, nodes))
    graph[np.ix_(order, order)] = forward
    return graph


def scale_free(nodes: int, degree: float, rng: Rng) -> np.ndarray:
    """(d, d) 0/1: Barabasi-Albert attachment of round(``degree``) edges a node, from later nodes to earlier ones.

    Starts from a star, as networkx does.
    """
    links = round(degree)
    graph = np.zeros((nodes, nodes))
    graph[1 : links + 1, 0] = 1
    ends = [0] * links + list(range(1, links + 1))
    for node in range(links + 1, nodes):
        chosen: dict[int, None] = {}
        while len(chosen) < links:
            chosen[ends[rng.integers(len(ends))]] = None
        graph[node, list(chosen)] = 1
        ends += [*chosen, *[node] * links]
    return graph


GRAPHS: dict[str, Callable[[int, float, Rng], np.ndarray]] = {"er": erdos_renyi, "sf": scale_free}


def weigh(graph: np.ndarray, low: float, high: float, rng: Rng) -> np.ndarray:
    """Draw a weight for each edge: uniform in [low, high], with a random sign.

    Args:
        graph: (d, d) bool
        low: smallest size of a weight
        high: largest
        rng: draws

    Returns:
        (d, d) float64, 0 where there is no edge.
    """
    size = rng.uniform(low, high, graph.shape)
    return graph * np.where(rng.integers(2, size=graph.shape) == 0, -size, size)


def _gumbel(rng: Rng, shape: tuple[int, int]) -> np.ndarray:
    return rng.gumbel(0.0, np.sqrt(6) / np.pi, shape)


# Noise of variance 1; the mean of exp and gumbel is not 0, which centring takes away.
NOISES: dict[str, Callable[[Rng, tuple[int, int]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exp": lambda rng, shape: rng.exponential(size=shape),
    "laplace": lambda rng, shape: rng.laplace(0.0, np.sqrt(0.5), shape),
    "gumbel": _gumbel,
}


def sample(weights: np.ndarray, scales: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """(n, d) samples of x = W^T x + scales * noise. weights: acyclic (d, d). noise: (n, d) of variance 1."""
    order = topological_order(weights)
    if order is None:
        raise ValueError("the graph has a cycle")
    data = np.empty_like(noise)
    for node in order:
        parents = np.flatnonzero(weights[:, node])
        data[:, node] = data[:, parents] @ weights[parents, node] + scales[node] * noise[:, node]
    return data
