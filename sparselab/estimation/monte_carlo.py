"""Engines whose cell is many draws of a problem: one record, with the mean and the spread over draws [no torch].

A draw is decided by the cell's seed and its own number, never by what is done with it: all estimators (or solvers) of a
seed meet the same draws.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from pydantic import Field

from sparselab.config.schema import Common
from sparselab.core.errors import Issue, Issues, RunFailed
from sparselab.core.options import Options
from sparselab.core.registry import Registry, build
from sparselab.estimation.problems.problem import PROBLEMS, Problem
from sparselab.running.engine import Plan
from sparselab.running.identity import content
from sparselab.running.signals import StopFlag
from sparselab.running.single_process import Job, Outcome, SingleProcessEngine, write_files


class DrawOptions(Options):
    """How often a cell draws."""

    draws: int = Field(ge=1, description="draws of the problem, at least 1")


class MonteCarloEngine(SingleProcessEngine):
    """Base: a subclass names the group of procedures that meet the draws, and says in :meth:`scores` how they do."""

    Options: ClassVar[type[DrawOptions]] = DrawOptions
    options: DrawOptions
    group: ClassVar[str]
    registry: ClassVar[Registry[Any]]
    guess = 0.0

    def gather(
        self, cell: Common, issues: Issues, invalid: frozenset[str], dependencies: Mapping[str, str]
    ) -> Job | None:
        problem: Problem | None = None
        member: Any = None
        files: dict[str, str] = {}
        if "problem" not in invalid:
            with issues.collect():
                problem = build(PROBLEMS, cell.problem, "problem", cell.data_dir)  # type: ignore[attr-defined]
                issues.found += problem.issues()
        if self.group not in invalid:
            with issues.collect():
                member = build(self.registry, getattr(cell, self.group), self.group)
        if problem is not None and "data_dir" not in invalid:
            with issues.collect():
                files = problem.files()
        if problem is None or member is None or issues.found:
            return None
        if problem.draws not in member.takes:
            takes = " or ".join(member.takes)
            fits = [name for name in PROBLEMS if PROBLEMS[name].draws in member.takes]
            where = f"problem={problem.name} {self.group}={member.name}"
            issues.add(
                where, f"it takes a {takes}, and this is a {problem.draws}", f"write problem={' or '.join(fits)}"
            )
            return None
        issues.found += member.issues(problem)
        if self.options.draws > 1 and not problem.random:
            issues.found.append(
                Issue(f"engine.draws={self.options.draws}", f"{problem.name} is always the same", "write 1")
            )
        draws = self.options.draws
        hashes = {name: content(path, dependencies, f"problem.{name}") for name, path in files.items()}
        return Job(
            parts=(cell, problem, member, hashes),
            size=f"{draws:,} draw{'s' if draws > 1 else ''}",
            work=float(draws) * member.work(problem),
            facts=[("problem", problem.describe()), (self.group, member.name), ("draws", f"{draws:,}")],
            extra={"problem": problem.version, self.group: member.version, "files": hashes},
            spent=tuple(f"problem.{option}" for option in problem.places()),
        )

    @abstractmethod
    def scores(
        self, problem: Any, member: Any, seed: int, numbers: range
    ) -> tuple[list[dict[str, float]], dict[str, bytes]]:
        """Draw, run the procedure and score it: ``member.together`` draws, or what is left of them.

        Returns the scores of each draw, and PNG files to lie beside the record (by name; the last ones given are kept).
        Raises ValueError, in one line, for draws that the procedure cannot work on.
        """

    def execute(self, plan: Plan, stop: StopFlag) -> Outcome:
        cell, problem, member, hashes = plan.parts
        rows: list[dict[str, float]] = []
        pictures: dict[str, bytes] = {}
        for start in range(0, self.options.draws, member.together):
            stop.check(f"after {start} of {self.options.draws} draws")
            numbers = range(start, min(start + member.together, self.options.draws))
            try:
                scored, drawn = self.scores(problem, member, cell.seed, numbers)
            except ValueError as error:
                several = f"s {numbers.start} to {numbers.stop - 1}" if len(numbers) > 1 else f" {start}"
                raise RunFailed(f"draw{several}: {error}") from None
            rows += scored
            pictures |= drawn
        outcome = self.conclude(problem, hashes, rows)
        if pictures:
            outcome.write = partial(write_files, pictures)
        return outcome

    def conclude(self, problem: Problem, hashes: Mapping[str, str], rows: Sequence[Mapping[str, float]]) -> Outcome:
        """The outcome of a cell from the scores of its draws."""
        metrics = {f"test.{name}": value for name, value in over_draws(rows).items()}
        metrics["test.n"] = float(len(rows))
        sparsity = {}
        if "test.sparsity" in metrics:
            sparsity = {"requested": "as found", "realised": metrics["test.sparsity"]}
        data = {
            "name": problem.name,
            "title": problem.name,
            "described": problem.describe(),
            "source": "local" if hashes else "drawn",
        }
        return Outcome(metrics, sparsity, data={**data, "fingerprint": "-".join(hashes.values())})

    @classmethod
    def summary(cls, record: dict[str, Any]) -> list[tuple[str, str]]:
        metrics = record["metrics"]
        rows = [("draws", f"{metrics['test.n']:,.0f} of {record['data']['described']}")]
        for name, value in metrics.items():
            if name.endswith(("_sd", "_max")) or name == "test.n":
                continue
            spread = f" ± {metrics[f'{name}_sd']:.4g}" if f"{name}_sd" in metrics else ""
            rows.append((name, f"{value:.6g}{spread}"))
        return rows


def over_draws(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean, standard deviation (``_sd``) and largest value (``_max``) of every score that all draws have.

    One draw has neither spread nor maximum.
    """
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    found: dict[str, float] = {}
    for name in shared:
        values = [row[name] for row in rows]
        mean = math.fsum(values) / len(values)
        found[name] = mean
        if len(values) > 1:
            found[f"{name}_sd"] = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
            found[f"{name}_max"] = max(values)
    return found
