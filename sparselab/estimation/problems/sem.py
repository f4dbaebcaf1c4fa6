"""Random linear structural equation models (CoLiDE, arXiv 2310.02895)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from sparselab.core.errors import Issue
from sparselab.core.options import Options as AnyOptions
from sparselab.core.seeds import derive_seed
from sparselab.estimation.problems.problem import PROBLEMS, Problem

if TYPE_CHECKING:
    from sparselab.estimation.problems.graphs.sample import GraphSample


@PROBLEMS.register("sem")
class Sem(Problem):
    """Samples of x = W^T x + z over a random acyclic graph; the true graph is kept beside them.

    Graph, signs and sizes of weights, and noise of variance 1 depend on the draw alone, so draws that differ in
    ``variance`` only have the same graph and the same standardised noise.
    """

    class Options(AnyOptions):
        graph: Literal["er", "sf"] = Field(description="er (Erdős-Rényi) or sf (scale-free)")
        nodes: int = Field(ge=2, le=2000, description="2 to 2000")
        degree: float = Field(gt=0, description="edges per node (ER4: 4), above 0")
        samples: int = Field(ge=2, description="at least 2")
        noise: Literal["normal", "exp", "laplace", "gumbel"] = Field(description="normal, exp, laplace or gumbel")
        variance: float | list[float] = Field(
            description="one number for all nodes, or [low, high]: uniform, a node each; above 0"
        )
        weights: list[float] = Field(min_length=2, max_length=2, description="[low, high] of |weight|, above 0")

        @field_validator("variance", "weights")
        @classmethod
        def _ordered(cls, value: float | list[float]) -> float | list[float]:
            ends = value if isinstance(value, list) else [value]
            if len(ends) > 2 or not ends or min(ends) <= 0 or list(ends) != sorted(ends):
                raise ValueError("is no number above 0 and no range of such")
            return value

    draws = "graph"
    options: Options

    def issues(self) -> list[Issue]:
        o = self.options
        most = o.nodes - 1 if o.graph == "sf" else (o.nodes - 1) / 2
        where = f"problem.degree={o.degree:g}"
        if o.degree > most:
            return [Issue(where, f"{o.nodes} nodes have room for {most:g} edges a node", f"write at most {most:g}")]
        if o.graph == "sf" and round(o.degree) < 1:
            return [Issue(where, "a new node of a scale-free graph needs an edge", "write at least 1")]
        return []

    def size(self) -> int:
        return self.options.nodes

    def describe(self) -> str:
        o = self.options
        return f"{o.graph.upper()}{o.degree:g}, {o.nodes} nodes, {o.samples:,} samples, {o.noise} noise"

    def draw(self, *place: object) -> GraphSample:
        import numpy as np

        from sparselab.estimation.problems.graphs import generate
        from sparselab.estimation.problems.graphs.sample import GraphSample

        o = self.options

        def rng(what: str) -> Any:
            return np.random.default_rng(derive_seed("sem", what, *place))

        graph = generate.GRAPHS[o.graph](o.nodes, o.degree, rng("graph"))
        low, high = o.weights
        weights = generate.weigh(graph, low, high, rng("weights"))
        ends = o.variance if isinstance(o.variance, list) else [o.variance, o.variance]
        scales = np.sqrt(rng("variance").uniform(ends[0], ends[-1], o.nodes))
        noise = generate.NOISES[o.noise](rng("noise"), (o.samples, o.nodes))
        return GraphSample(generate.sample(weights, scales, noise), weights, scales)
