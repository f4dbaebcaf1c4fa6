"""Cells small enough for every method and trait: the real plan and run of about a thousand weights and a dozen updates.

Rows come from the registries, so a method that is registered has rows; nothing here knows one by name.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch

from sparselab.config.compose import compose
from sparselab.core.sparsity import in_order
from sparselab.running.planning import engine_of, part_of
from sparselab.training import assemble
from sparselab.training.loop.loop import Loop
from sparselab.training.parts import Parts
from sparselab.training.runner import Finished, execute
from sparselab.weights.capabilities import ChangesMoments, ReadsScales, by_chance, finds_counts
from sparselab.weights.method import METHODS
from sparselab.weights.schedules import SCHEDULES
from sparselab.weights.slot import Slot

UPDATES = 12
SPARSITIES: dict[str, Any] = {
    **{pattern.name: pattern.example for pattern in in_order() if not pattern.matches_cost},
    "dense": None, "unstructured": 0.75, "block": "block:4x2:0.5",
}  # fmt: skip
MOMENTS = {
    "at": 0.5,
    "begin": 0.0,
    "end": 0.75,
    "every": 2,
    "stop": 0.9,
    "k_max": 2,
}  # so that a dozen updates reach all of them


@functools.cache
def _composed(*overrides: str) -> dict[str, Any]:
    composed = compose(list(overrides))
    assert not composed.issues, composed.issues
    return composed.config


def composed(*overrides: str) -> dict[str, Any]:
    """The resolved config of ``overrides``, to be changed at will."""
    config = copy.deepcopy(_composed(*overrides))
    return part_of(engine_of(config), config)


ANYWHERE = [name for name in METHODS if not issubclass(METHODS[name], ReadsScales)]
"""Methods for networks of any kind. Those that need norms behind their layers have traits in tests of their own."""


@dataclass(frozen=True)
class Row:
    """A method with one of its kinds of pattern and one of its schedules."""

    method: str
    kind: str
    schedule: str

    def __str__(self) -> str:
        return f"{self.method}-{self.kind}-{self.schedule}"


def rows(method: str) -> Iterator[Row]:
    """Every combination that the method declares and that the schedules admit."""
    cls = METHODS[method]
    for kind in () if issubclass(cls, ReadsScales) else cls.patterns:
        for schedule in SCHEDULES:
            if cls.admits(SCHEDULES[schedule]) and kind in SCHEDULES[schedule].patterns:
                yield Row(method, kind, schedule)


def first_rows(method: str) -> list[Row]:
    """One row per kind of pattern, with its first schedule."""
    found: dict[str, Row] = {}
    for row in rows(method):
        found.setdefault(row.kind, row)
    return list(found.values())


def rows_by_chance() -> Iterator[tuple[Row, dict[str, str]]]:
    """Each combination that makes masks of independent draws, with the one option that asks for them."""
    for method in METHODS:
        cls = METHODS[method]
        for name, field_ in cls.Options.model_fields.items():
            for value in get_args(field_.annotation) if get_origin(field_.annotation) is Literal else ():
                if by_chance(cls(cls.Options(**{name: value}))):
                    yield from ((row, {name: value}) for row in rows(method) if row.kind == "unstructured")


def config_of(row: Row, folder: Path, *overrides: str, **groups: dict[str, Any]) -> dict[str, Any]:
    """The config of a tiny cell. ``groups`` are changes of keys by group, such as ``trainer={"clip": 0.1}``."""
    if issubclass(METHODS[row.method], ChangesMoments):  # it has an optimiser of its own: no other is for it
        overrides = tuple(override for override in overrides if not override.startswith("optim="))
        groups.pop("optim", None)
    made_for = [f"method={row.method}"] if row.method in configured_methods() else []
    config = composed(*made_for, "model=mlp", *overrides)
    if not made_for:
        config["method"] = {"name": row.method, **METHODS[row.method].Options().model_dump()}
    schedule = SCHEDULES[row.schedule].Options().model_dump()
    config["schedule"] = {"name": row.schedule, **schedule, **{k: v for k, v in MOMENTS.items() if k in schedule}}
    config["sparsity"] = SPARSITIES[row.kind]
    if row.kind != "unstructured":
        config["distribution"] = {"name": "uniform"}
    if config["model"]["name"] == "mlp":
        config["model"]["hidden"] = [16, 8]
    config["trainer"] |= {
        "max_epochs": None, "max_steps": UPDATES, "batch_size": 8, "evals": 1, "progress": "none",
        "precision": "32", "accelerator": "cpu", "clip": None, "threads": 1,
    }  # fmt: skip
    config["runs_dir"] = str(folder)
    for group, changes in groups.items():
        config[group] |= changes
    return config


def later(cases: Iterable[Any]) -> list[Any]:
    """Cases that are for the slow run."""
    each = (case if isinstance(case, tuple) else (case,) for case in cases)
    return [pytest.param(*case, marks=pytest.mark.slow) for case in each]


@functools.cache
def configured_methods() -> frozenset[str]:
    return frozenset(path.stem for path in (Path(__file__).parents[2] / "configs" / "method").glob("*.yaml"))


@dataclass
class Watch:
    """What a run is asked to do to itself, and what it saw.

    skip:    micro-batches whose gradients are made infinite, so that a loss scaler skips the update.
    before:  called with each micro-batch before it is used. gradients: after each backward.
    pulled:  around the pull-back: called before it, and what that returned is called after it.
    after:   called after each micro-batch, when the invariant was checked.
    """

    skip: frozenset[int] = frozenset()
    before: Callable[[Watched, Any], None] = lambda loop, batch: None
    gradients: Callable[[Watched], None] = lambda loop: None
    pulled: Callable[[Watched], Callable[[], None]] = lambda loop: lambda: None
    after: Callable[[Watched], None] = lambda loop: None
    taken: list[int] = field(default_factory=list)  # numbers of the updates that were not skipped
    checks: int = 0
    masks: list[dict[str, torch.Tensor]] = field(default_factory=list)  # after each update


class Watched(Loop):
    """The loop of every run, checked after every batch."""

    watch: Watch
    parts: Parts

    def on_train_start(self, trainer: Any, task: Any) -> None:
        super().on_train_start(trainer, task)
        check(self)

    def on_train_batch_start(self, trainer: Any, task: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, task, batch, batch_idx)
        self.watch.before(self, batch)

    def on_after_backward(self, trainer: Any, task: Any) -> None:
        if self.batches in self.watch.skip:
            next(task.network.parameters()).grad.fill_(float("inf"))
        self.watch.gradients(self)

    def on_before_optimizer_step(self, trainer: Any, task: Any, optimizer: Any) -> None:
        then = self.watch.pulled(self)
        super().on_before_optimizer_step(trainer, task, optimizer)
        then()

    def _after_raw_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        super()._after_raw_step(optimizer, args, kwargs)
        self.watch.taken.append(self.trainer.global_step + 1)

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, task, outputs, batch, batch_idx)
        check(self)
        self.watch.after(self)
        self.watch.masks.append({name: mask.clone() for name, mask in self.sparsifier.masks().items()})


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's bits: unlike ``torch.equal`` on numbers, this tells 0 from -0 and knows NaN."""
    return tensor.contiguous().view(torch.uint8)


def check(loop: Watched) -> None:
    """The invariant between two updates: the parameters are the sparse model, bit for bit, of the density that is due."""
    watch, sparsifier, parts = loop.watch, loop.sparsifier, loop.parts
    watch.checks += 1
    taken = watch.taken[-1] if watch.taken else 0
    assert not sparsifier.swapped
    for slot in sparsifier.slots:
        pattern = parts.pattern_of(slot.layer.name)
        way = parts.schedule.for_target(pattern)
        level, structure = way.level(taken, parts.steps), way.structure(taken, parts.steps)
        want = expected_counts(parts, level)
        assert loop.task.network.get_parameter(slot.name) is slot.param
        check_slot(slot, sparsifier.method, level)
        assert slot.pattern.sparsity == (structure or pattern) or not level
        assert slot.soft_coefficient == (parts.schedule.soft_coefficient(taken, parts.steps) if level else 0)
        assert int(slot.mask.sum()) == slot.kept
        mean = want.get(slot.layer.name)
        if mean is not None and by_chance(sparsifier.method):
            assert abs(slot.kept - mean) <= chance(slot.mask.numel(), mean)
        elif mean is not None and not finds_counts(sparsifier.method):
            assert slot.kept == slot.pattern.kept(slot.mask.shape, mean / slot.mask.numel()) or level == 0
        assert level or slot.kept == slot.mask.numel()
    level = parts.schedule.level(taken, parts.steps)
    shared = [slot for slot in sparsifier.slots if slot.layer.name not in parts.exceptions]
    total, kept = sum(slot.mask.numel() for slot in shared), sum(slot.kept for slot in shared)
    density = 1 - level * (1 - parts.sparsity.density)
    if by_chance(sparsifier.method):
        assert abs(kept - density * total) <= 0.5 + chance(total, density * total)
        return
    if finds_counts(sparsifier.method):
        return
    if parts.distribution.needs_scores:
        assert abs(kept - density * total) <= 0.5
    fine = all(parts.pattern_of(slot.layer.name).single for slot in sparsifier.slots)
    if level and fine and taken == parts.steps:
        assert sum(slot.kept for slot in sparsifier.slots) == sum(parts.kept.values())


def chance(size: int, mean: float) -> float:
    """Five standard deviations of the number of ``size`` weights that independent draws keep."""
    return 5 * sqrt(mean * (1 - mean / size))


def expected_counts(parts: Parts, level: float) -> dict[str, int]:
    """Weights kept at ``level`` by the layers of which a ranking of scores does not decide."""
    ranks = parts.distribution.needs_scores
    layers = [x for x in parts.layers if not ranks or x.name in parts.exceptions]
    return {x.name: x.numel - round(level * (x.numel - parts.kept[x.name])) for x in layers}


def check_slot(slot: Slot, method: Any, level: float = 1.0) -> None:
    """Effective weights, zeros and pattern of one slot."""
    again = torch.full_like(slot.param.data, float("nan")) if slot.master is not None else slot.param.data.clone()
    with torch.no_grad():
        method.effective(slot, out=again)
    assert torch.equal(bits(again), bits(slot.param.data)), f"{slot.name} is not what its mask gives"
    left = slot.soft_coefficient * slot.dense[~slot.mask] if slot.soft_coefficient else torch.zeros(())
    assert torch.equal(slot.param.data[~slot.mask], left.expand_as(slot.param.data[~slot.mask])), (
        f"{slot.name}: pruned weights live"
    )
    assert torch.isfinite(slot.dense).all()
    if level:
        assert slot.pattern.holds(slot.mask)
        assert slot.soft_coefficient or slot.pattern.holds(slot.param.data != 0) or not slot.pattern.sparsity.single


def fit(
    config: dict[str, Any],
    monkeypatch: Any,
    watch: Watch | None = None,
    change: Callable[[Parts], None] = lambda parts: None,
) -> Finished:
    """Plan and run the cell of ``config``, checking the invariant after every batch. Nothing is stubbed.

    change: what no request can ask for (a mask of ones), done to the parts of the plan.
    """
    plan = engine_of(config).plan(config, [])
    change(plan.parts)
    plan.parts.schedule.sparsity = plan.parts.sparsity
    watched(plan, monkeypatch, watch := watch or Watch())
    finished = execute(plan)
    micro = config["trainer"]["accumulate"] * plan.steps
    assert watch.checks == micro + 1
    assert watch.taken == [k for k in range(1, plan.steps + 1) if not _skipped(k, watch, config)]
    for slot in finished.sparsifier.slots:
        assert torch.count_nonzero(finished.state[slot.name][~slot.mask]) == 0
    return finished


def _skipped(update: int, watch: Watch, config: dict[str, Any]) -> bool:
    k = config["trainer"]["accumulate"]
    return any((update - 1) * k <= micro < update * k for micro in watch.skip)


def watched(plan: Any, monkeypatch: Any, watch: Watch) -> None:
    """Let the next run of ``plan`` use a loop that watches itself."""
    cls = type("WatchedLoop", (Watched,), {"watch": watch, "parts": plan.parts})
    monkeypatch.setattr(assemble, "Loop", cls)
