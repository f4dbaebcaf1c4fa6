"""Engines whose cell runs in one process from start to end: no Lightning, no checkpoints [no torch].

What is lost by a stop is the cell under way; the sweep's other cells stand. Work that takes hours is a training cell, or
several cells that name each other.
"""

from __future__ import annotations

import hashlib
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from sparselab.config.schema import Common, HostOptions
from sparselab.core.errors import ConfigError, Issues
from sparselab.core.memo import once
from sparselab.core.registry import build
from sparselab.running.engine import NOTHING, Engine, Plan
from sparselab.running.identity import identified
from sparselab.running.loggers.logger import LOGGERS, Guarded
from sparselab.running.parts import top_level, unwritable
from sparselab.running.records import environment, keep
from sparselab.running.signals import StopFlag
from sparselab.storage import atomic
from sparselab.storage.ids import cell_id


@dataclass
class Job:
    """The result of :meth:`SingleProcessEngine.gather`: all that a cell's plan needs.

    parts:  whatever ``execute`` wants to find again.
    size, work, facts, notes, cost: as in :class:`~sparselab.running.engine.Plan`.
    extra:  what the id depends on beside the config: versions of plug-ins, fingerprints of data, content of files.
    spent:  dotted keys of the config that ``extra`` says better (a path whose content counts, a limit that is spent).
    """

    parts: Any
    size: str
    work: float
    facts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    spent: tuple[str, ...] = ()


def write_nothing(folder: Path) -> dict[str, Any]:
    """Write no file beside the record."""
    return {}


def write_files(files: Mapping[str, bytes], folder: Path) -> dict[str, Any]:
    """Write ``files``, by name, into the run's folder; what a record says of them."""
    for name, data in files.items():
        atomic.write_bytes(folder / name, data)
    return {name: {"sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}


@dataclass
class Outcome:
    """The result of :meth:`SingleProcessEngine.execute`.

    metrics:  plain finite numbers; the ones that a table reads begin with ``test.``.
    sparsity: where something is sparse: ``requested``, ``realised`` and, if it helps, ``layers``.
    cost:     counts (parameters, MACs); ``work`` is added.
    data:     ``name``, ``title``, ``fingerprint``, ``source`` of what was loaded.
    write:    writes further files into the run's folder (:mod:`sparselab.storage.atomic`); {name: {"sha256": …}}.
    """

    metrics: dict[str, float]
    sparsity: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    write: Callable[[Path], dict[str, Any]] = write_nothing


class SingleProcessEngine(Engine):
    """A subclass names its top level and its groups, and writes two methods: :meth:`gather` and :meth:`execute`.

    Top:     the schema of its config: :class:`~sparselab.config.schema.Common` and the groups that it reads.
    version: raise it when the engine itself gives other results.
    uses_torch: whether its cells compute with torch.
    repeatable: whether a cell gives the same numbers again; times do not.
    """

    Top: ClassVar[type[Common]] = Common
    version: ClassVar[int] = 1
    uses_torch: ClassVar[bool] = False
    repeatable: ClassVar[bool] = True

    @abstractmethod
    def gather(self, cell: Any, issues: Issues, invalid: frozenset[str], dependencies: Mapping[str, str]) -> Job | None:
        """Build the parts and check them against each other, without torch and in well under a second.

        Issues go to ``issues`` (all of them at once: ``with issues.collect()``); None where the parts could not be made.
        invalid: groups that are not what was asked for, and should not be looked at. dependencies: files that other cells make.
        """

    @abstractmethod
    def execute(self, plan: Plan, stop: StopFlag) -> Outcome:
        """Do the work of ``plan.parts``; look at ``stop`` often (``stop.check("between two draws")``)."""

    def plan(
        self,
        config: dict[str, Any],
        overrides: list[str],
        invalid: frozenset[str] = frozenset(),
        dependencies: Mapping[str, str] = NOTHING,
    ) -> Plan:
        issues = Issues()
        cell, found, invalid = top_level(self.Top, config, invalid)
        issues.found += found
        if "logger" not in invalid:
            with issues.collect():
                build(LOGGERS, cell.logger, "logger")
        if "runs_dir" not in invalid:
            issues.found += once(("folder", cell.runs_dir), lambda: unwritable(cell.runs_dir))
        job = None
        with issues.collect():
            job = self.gather(cell, issues, invalid, dependencies)
        issues.raise_if_any()
        if invalid:
            raise ConfigError([])  # the caller has the faults of what is invalid
        assert job is not None, f"{type(self).__name__}.gather found no fault and made nothing"
        identity = self._identify(config, job)
        id = cell_id(*identity)
        return Plan(
            config=config, overrides=overrides, id=id, folder=str(Path(cell.runs_dir) / id), size=job.size, work=job.work,
            cost=job.cost, facts=job.facts, notes=job.notes, parts=job.parts, dependencies=dict(dependencies),
            identity=identity,
        )  # fmt: skip

    def _identify(self, config: dict[str, Any], job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
        identity = identified(config, self.Top)
        for dotted in job.spent:
            *path, leaf = dotted.split(".")
            node = identity
            for key in path:
                node = node[key]
            node.pop(leaf)
        return identity, {"engine": self.version, **job.extra}

    def run(self, plan: Plan) -> dict[str, Any]:
        stop = StopFlag()
        with stop.listening():
            began = time.monotonic()
            self._prepare(plan)
            logger = Guarded(build(LOGGERS, plan.config["logger"], "logger"), plan)
            try:
                outcome = self.execute(plan, stop)
                logger.log({"step": 0, **outcome.metrics})
            finally:
                logger.close()
            trainer = plan.config["trainer"]
            host = HostOptions(**{key: trainer[key] for key in HostOptions.model_fields})
            body = {
                "id": plan.id,
                "status": "finished",
                "config": plan.recorded_config(),
                "overrides": plan.overrides,
                "metrics": outcome.metrics,
                "sparsity": outcome.sparsity,
                "account": {**outcome.cost, "work": plan.work},
                "seconds": round(time.monotonic() - began, 3),
                "environment": environment(host) | ({} if self.repeatable else {"promise": "D"}),
                "data": outcome.data,
            }
            return keep(Path(plan.folder), body, outcome.write)

    def _prepare(self, plan: Plan) -> None:
        """The folder, and as many threads as were asked for."""
        Path(plan.folder).mkdir(parents=True, exist_ok=True)
        threads = plan.config["trainer"]["threads"]
        if threads:
            from threadpoolctl import threadpool_limits

            threadpool_limits(threads)  # of the numerical libraries
            if self.uses_torch:
                import torch

                torch.set_num_threads(threads)
