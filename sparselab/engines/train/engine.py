"""The `train` engine: one network, from its first update to its last, with Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparselab.engines.engine import ENGINES, NOTHING, Engine, Identity, Plan
from sparselab.engines.signals import StopFlag
from sparselab.engines.train import ranks
from sparselab.engines.train.describe import facts, summary
from sparselab.engines.train.identity import identify
from sparselab.engines.train.layers import in_whole_tiles
from sparselab.engines.train.pace import ENOUGH, guessed_seconds, precision_notes
from sparselab.engines.train.parts import Parts
from sparselab.engines.train.plan import gather, identified_parts
from sparselab.spec.memo import once
from sparselab.store.ids import canonical, cell_id


@ENGINES.register("train")
class Train(Engine):
    """Plans without torch; runs with it."""

    reads = (
        "method", "sparsity", "targets", "distribution", "schedule", "model", "dataset", "optim", "trainer", "term",
        "metric", "edit",
    )  # fmt: skip
    paced = ("model", "dataset")
    start = 8.0

    def plan(
        self,
        config: dict[str, Any],
        overrides: list[str],
        lost: frozenset[str] = frozenset(),
        needs: Mapping[str, str] = NOTHING,
    ) -> Plan:
        parts = gather(config, lost, needs)
        identity = identify(config, parts)
        cell = cell_id(*identity)
        plan = Plan(
            config=config,
            overrides=overrides,
            id=cell,
            folder=str(Path(parts.cell.runs_dir) / cell),
            steps=parts.steps,
            size=f"{parts.steps:,} updates",
            account=once(_costing(config, parts), lambda: foresee(parts)),
            parts=parts,
            needs=parts.needs,
            identity=identity,
        )
        plan.work = float(plan.account.get("flops_train_dense") or 0)
        plan.facts = facts(plan)
        if parts.outline is None:
            plan.notes.append(
                "the layers of this model are known once it is built; they are checked then, before training"
            )
        if parts.method.by_chance:
            plan.notes.append(
                "each weight is kept by a draw of its own: the numbers of weights, MACs and FLOPs are means"
            )
        plan.notes += precision_notes(parts.cell.trainer, parts.outline)
        return plan

    def identity(self, config: dict[str, Any], needs: Mapping[str, str] = NOTHING) -> Identity:
        return identify(config, identified_parts(config, needs))

    def run(self, plan: Plan) -> dict[str, Any]:
        from sparselab.store import record as records

        flag = StopFlag()
        with flag.listening():  # from here on, before seconds of imports, a signal ends the run as it should
            if parallel(plan) and not ranks.launched():
                ranks.supervise(plan, flag)
                return records.read(plan.folder, plan.id)
            return self.train(plan, flag)

    def train(self, plan: Plan, flag: StopFlag) -> dict[str, Any]:
        """The run itself, in this process (one of several ranks, where there are several). Returns the record."""
        from sparselab.engines.train.record import make_record
        from sparselab.engines.train.runner import close, execute

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
        return same and super().alike(record, plan) and record["account"]["macs_dense"] == plan.account["macs_dense"]

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
    """All that the account of a cell depends on, so that those of a table that differ in seed or rate share one."""
    groups = ("method", "sparsity", "targets", "distribution", "schedule", "model", "term", "edit")
    deciding = canonical([*(config.get(key) for key in groups), list(parts.own)])  # the order of selectors counts
    return "account", deciding, parts.data, parts.cell.trainer.batch_size, parts.steps


def parallel(plan: Plan) -> bool:
    """Whether the cell is trained by several processes."""
    return plan.config["trainer"]["devices"] > 1


def foresee(parts: Parts) -> dict[str, Any]:
    """The account of the finished network, and of training as the schedule foresees it."""
    from sparselab.sparsity.account import account, plain_cost, train_flops, train_flops_dense

    if parts.outline is None:
        return {}
    batch = parts.cell.trainer.batch_size
    ledger: list[tuple[int, dict[str, int]]] = [(0, {})]
    patterns = {layer.name: parts.pattern_of(layer.name) for layer in parts.layers}
    ways = {pattern: parts.schedule.towards(pattern) for pattern in set(patterns.values())}
    for step in sorted({step for way in ways.values() for step in way.updates(parts.steps)}):
        levels = {pattern: way.costing(step, parts.steps) for pattern, way in ways.items()}
        kept = {}
        for layer in parts.layers:
            pattern = patterns[layer.name]
            asked = layer.numel - round(levels[pattern] * (layer.numel - parts.kept[layer.name]))
            kept[layer.name] = in_whole_tiles(layer, pattern, asked)
        if ledger and ledger[-1][0] == step:
            ledger.pop()
        ledger.append((step, kept))
    final = {layer.name: in_whole_tiles(layer, patterns[layer.name], parts.kept[layer.name]) for layer in parts.layers}
    numbers = account(parts.outline, final).record()
    return {
        **{key: value for key, value in numbers.items() if key != "layers"},
        **plain_cost(parts.outline),
        "flops_train": train_flops(
            parts.outline, ledger, batch, parts.method.weight_grad,
            steps=parts.steps, dense_steps=dense_steps(parts),
        ),
        "flops_train_dense": train_flops_dense(parts.outline, batch, parts.steps),
        "flops_teacher": teacher_flops(parts),
    }  # fmt: skip


def teacher_flops(parts: Parts) -> int:
    """FLOPs of the teachers' forward passes, each teacher's once a batch however many terms learn from it."""
    from sparselab.sparsity.account import FLOPS_PER_MAC

    teachers = {term.taught_by for term in parts.terms if term.options.weight} - {None}
    samples = parts.cell.trainer.batch_size * parts.steps
    return FLOPS_PER_MAC * parts.outline.macs * samples * len(teachers)


def dense_steps(parts: Parts) -> list[int]:
    """Updates at which a method asks for the dense gradient: for a mask that is due, or for what it learns."""
    due = parts.schedule.updates(parts.steps) if parts.method.needs_dense_grad else []
    if not parts.method.learns:
        return due
    turn, total = parts.method.turn, parts.steps
    key = "learned", type(parts.method), canonical(parts.method.options.model_dump()), total
    return [*due, *once(key, lambda: [step for step in range(1, total + 1) if turn(step, total).learned])]
