"""The protein network of Sachs et al. (2005), a real data set with a graph that experts agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.problems.problem import PROBLEMS, Problem
from sparselab.spec.faults import refuse
from sparselab.spec.options import Options as AnyOptions

if TYPE_CHECKING:
    from pathlib import Path

    from sparselab.problems.graphs.sample import GraphSample

DATA, TARGET = "tabular/sachs_data.csv", "tabular/sachs_target.csv"
COLUMNS = ("praf", "pmek", "plcg", "PIP2", "PIP3", "p44/42", "pakts473", "PKA", "PKC", "P38", "pjnk")
POOLED = 7466
# The 17 edges that the papers of this line score against (kurowasan/GraN-DAG, data/sachs.zip: DAG1.npy). The 18 edges of
# the Causal Discovery Toolbox's file are others, and contain a cycle.
CONSENSUS = {
    "praf": "pmek", "pmek": "p44/42", "plcg": "PIP2 PIP3", "PIP3": "PIP2", "p44/42": "pakts473",
    "PKA": "praf pmek p44/42 pakts473 P38 pjnk", "PKC": "praf pmek PKA P38 pjnk",
}  # fmt: skip


@PROBLEMS.register("sachs")
class Sachs(Problem):
    """11 proteins in single cells, raw intensities; the first 853 rows (the observational ones) are the papers' data."""

    class Options(AnyOptions):
        samples: int = Field(ge=20, le=POOLED, description=f"the first rows of the file, 20 to {POOLED}")
        transform: Literal["raw", "log", "standard", "log_standard"] = Field(
            description="raw (the papers'), log, standard or log_standard"
        )

    draws = "graph"
    random = False
    options: Options

    def files(self) -> dict[str, str]:
        return {"data": str(self._path())}

    def size(self) -> int:
        return len(COLUMNS)

    def describe(self) -> str:
        return f"sachs, {len(COLUMNS)} proteins, {self.options.samples:,} samples, {self.options.transform}"

    def _path(self) -> Path:
        from sparselab.data.dataset import LocalCopies

        path = LocalCopies(self.data_dir).local(DATA)
        if path is None:
            refuse("problem=sachs", "no local copy", f"put {DATA} in data_dir, or set SPARSELAB_DATA")
        return path

    def draw(self, *place: object) -> GraphSample:
        import csv

        import numpy as np

        from sparselab.problems.graphs.sample import GraphSample

        path = self._path()
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != COLUMNS or len(rows) != POOLED:
            refuse("problem=sachs", f"{DATA} has other columns or rows than the pooled set", "copy the file again")
        data = np.array(rows[: self.options.samples], dtype=np.float64)
        if self.options.transform.startswith("log"):
            data = np.log(data)
        if self.options.transform.endswith("standard"):
            data = (data - data.mean(0)) / data.std(0)
        graph = np.zeros((len(COLUMNS), len(COLUMNS)))
        for cause, effects in CONSENSUS.items():
            for effect in effects.split():
                graph[COLUMNS.index(cause), COLUMNS.index(effect)] = 1
        return GraphSample(data, graph)
