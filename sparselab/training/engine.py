"""The `train` engine: one network, from its first update to its last, with Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparselab.core.errors import Issue
from sparselab.core.memo import once
from sparselab.inputs.models.traced_spec import traced_spec
from sparselab.inputs.tokenizers import choose_tokenizer
from sparselab.running.engine import ENGINES, NOTHING, Engine, Identity, Plan
from sparselab.running.signals import StopFlag
from sparselab.storage.ids import canonical, cell_id
from sparselab.training.cost import foresee
from sparselab.training.describe import facts, summary
from sparselab.training.identity import identify
from sparselab.training.layers import place_masks
from sparselab.training.neurons import within
from sparselab.training.pace import ENOUGH, guessed_seconds, precision_notes
from sparselab.training.parts import Parts
from sparselab.training.plan import gather, identified_parts
from sparselab.training.precision import said, settled
from sparselab.training.ranks import supervisor as ranks
from sparselab.weights.capabilities import by_chance

LATER = (
    "the layers of this model, and what no mask can be put on, are known once it is built; they are checked then, before"
    " training"
)


@ENGINES.register("train")
class Train(Engine):
    """Plans without torch; runs with it."""

    reads = (
        "method", "sparsity", "targets", "distribution", "schedule", "model", "dataset", "optim", "trainer", "loss",
        "metric", "edit", "merge", "task", "adapt", "neuron", "scenario", "removal", "search",
    )  # fmt: skip
    paced = ("model", "dataset")
    start = 8.0

    def plan(
        self,
        config: dict[str, Any],
        overrides: list[str],
        invalid: frozenset[str] = frozenset(),
        dependencies: Mapping[str, str] = NOTHING,
    ) -> Plan:
        asked, config = config, within(settled(config))
        parts = gather(config, invalid, dependencies)
        identity = identify(config, parts)
        cell = cell_id(*identity)
        plan = Plan(
            config=config,
            overrides=overrides,
            id=cell,
            folder=str(Path(parts.cell.runs_dir) / cell),
            steps=parts.steps,
            size=f"{parts.steps:,} updates",
            cost=once(_costing(config, parts), lambda: foresee(parts)),
            parts=parts,
            dependencies=parts.dependencies,
            identity=identity,
        )
        plan.work = float(plan.cost.get("flops_train_dense") or 0)
        plan.facts = facts(plan, said(asked["trainer"]["precision"], parts.cell.trainer))
        if parts.model_spec is None:
            plan.notes.append(LATER)
        if by_chance(parts.method):
            plan.notes.append(
                "each weight is kept by a draw of its own: the numbers of weights, MACs and FLOPs are means"
            )
        plan.notes += precision_notes(parts.cell.trainer, parts.model_spec)
        return plan

    @classmethod
    def trace(cls, plan: Plan) -> None:
        parts: Parts = plan.parts
        if parts.model_spec is not None:
            return
        model_spec = traced_spec(parts.family, parts.network_data)
        if model_spec is None:
            return
        place_masks(parts, model_spec)
        plan.cost = foresee(parts)
        plan.work = float(plan.cost["flops_train_dense"])
        plan.facts = facts(plan, dict(plan.facts)["precision"])
        plan.notes = [note for note in plan.notes if note != LATER] + precision_notes(parts.cell.trainer, model_spec)

    def complete(self, config: dict[str, Any], invalid: frozenset[str]) -> dict[str, list[Issue]]:
        wrong = choose_tokenizer(config, invalid)
        return {"dataset": wrong} if wrong else {}

    def identity(self, config: dict[str, Any], dependencies: Mapping[str, str] = NOTHING) -> Identity:
        config = within(settled(config))
        return identify(config, identified_parts(config, dependencies))

    def run(self, plan: Plan) -> dict[str, Any]:
        from sparselab.storage import record as records

        flag = StopFlag()
        with flag.listening():  # from here on, before seconds of imports, a signal ends the run as it should
            if parallel(plan) and not ranks.launched():
                ranks.supervise(plan, flag)
                return records.read(plan.folder, plan.id)
            return self.train(plan, flag)

    def train(self, plan: Plan, flag: StopFlag) -> dict[str, Any]:
        """The run itself, in this process (one of several ranks, where there are several). Returns the record."""
        from sparselab.training.record import make_record
        from sparselab.training.runner import close, execute

        record = make_record(plan, execute(plan, flag))
        close(plan)
        return record

    @classmethod
    def summary(cls, record: dict[str, Any]) -> list[tuple[str, str]]:
        return summary(record)

    @classmethod
    def alike(cls, record: dict[str, Any], plan: Plan) -> bool:
        """The same network on the same kind of input, in the same precision."""
        same = record["config"]["trainer"]["precision"] == plan.config["trainer"]["precision"]
        return same and super().alike(record, plan) and record["account"]["macs_dense"] == plan.cost["macs_dense"]

    @classmethod
    def pace_of(cls, record: dict[str, Any]) -> tuple[float, float] | None:
        """As the updates after the first one went, if they were enough."""
        times = record.get("times") or {}
        if "updating" not in times:  # an older record
            return super().pace_of(record)
        if times["updates"] < ENOUGH or not cls.work_of(record):
            return None
        each = times["updating"] / times["updates"]
        return record["seconds"] - times["updating"], each * times["steps"] / cls.work_of(record)

    @classmethod
    def guessed(cls, plan: Plan) -> float:
        return cls.start + guessed_seconds(plan.config["trainer"], plan.steps, plan.work)

    @staticmethod
    def work_of(record: dict[str, Any]) -> float:
        return float(record["account"]["flops_train_dense"])


def _costing(config: dict[str, Any], parts: Parts) -> tuple[Any, ...]:
    """All that the cost of a cell depends on, so that those of a table that differ in seed or rate share one."""
    groups = (
        "method", "sparsity", "targets", "distribution", "schedule", "model", "loss", "edit", "task", "adapt", "scenario",
        "removal", "search",
    )  # fmt: skip
    deciding = canonical([*(config.get(key) for key in groups), list(parts.own)])  # the order of selectors counts
    return "cost", deciding, parts.data, parts.cell.trainer.batch_size, parts.steps


def parallel(plan: Plan) -> bool:
    """True if the cell is trained by several processes."""
    return plan.config["trainer"]["devices"] > 1
