"""The plan of a training cell: every check that needs no torch, and the figures that `sparselab check` prints."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.data.dataset import DATASETS
from sparselab.loggers.logger import LOGGERS
from sparselab.methods.method import METHODS
from sparselab.models.family import MODELS
from sparselab.optim.optim import OPTIMS
from sparselab.sparsity.distribution import DISTRIBUTIONS
from sparselab.sparsity.fit import misfit
from sparselab.sparsity.schedule import SCHEDULES
from sparselab.sparsity.targets import select
from sparselab.spec.faults import Faults, Refused, did_you_mean
from sparselab.spec.options import validate
from sparselab.spec.schema import Cell
from sparselab.spec.sparsity import Sparsity
from sparselab.terms.term import TERMS

if TYPE_CHECKING:
    from sparselab.data.dataset import Dataset
    from sparselab.loggers.logger import Logger
    from sparselab.methods.method import Method
    from sparselab.models.family import Family
    from sparselab.optim.optim import Optim
    from sparselab.sparsity.distribution import Distribution
    from sparselab.sparsity.schedule import Schedule
    from sparselab.spec.dataspec import DataSpec
    from sparselab.spec.outline import Layer, Outline
    from sparselab.spec.registry import Registry
    from sparselab.terms.term import Term

PARTS = 9  # what gather must have made before parts can be checked against each other
SHOWN = 3  # faults of one kind that are printed; the rest is counted


@dataclass
class Parts:
    """The plug-ins of a training cell, built from their validated options."""

    cell: Cell
    sparsity: Sparsity
    method: Method
    schedule: Schedule
    distribution: Distribution
    dataset: Dataset
    data: DataSpec
    family: Family
    optim: Optim
    logger: Logger
    terms: list[Term] = field(default_factory=list)
    outline: Outline | None = None
    layers: list[Layer] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    batches_per_epoch: int = 0


def build(registry: Registry, values: dict[str, Any], where: str, *arguments: Any) -> Any:
    """The registered class named by ``values['name']``, with its options validated. Raises Refused."""
    values = dict(values)
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise Refused([_fault(where, "has no name", did_you_mean("", registry))])
    cls = registry[name]
    fields = cls.Options.model_fields
    return cls(validate(cls.Options, {**({"name": name} if "name" in fields else {}), **values}, where), *arguments)


def _fault(where: str, problem: str, fix: str) -> Any:
    from sparselab.spec.faults import Fault

    return Fault(where, problem, fix)


def gather(config: dict[str, Any], lost: frozenset[str] = frozenset()) -> Parts:
    """Build every part and check them against each other. Raises Refused with all faults at once.

    With ``lost`` groups only what does not depend on them is checked; the caller has faults of its own to report.
    """
    faults = Faults()
    cell = validate(Cell, config, "")  # nothing else can be checked without the top level
    made: dict[str, Any] = {}
    for where, registry, extra in (
        ("method", METHODS, ()),
        ("schedule", SCHEDULES, ()),
        ("distribution", DISTRIBUTIONS, ()),
        ("dataset", DATASETS, (cell.data_dir,)),
        ("model", MODELS, ()),
        ("optim", OPTIMS, ()),
        ("logger", LOGGERS, ()),
    ):
        if where in lost:
            continue
        with faults.catch():
            made[where] = build(registry, getattr(cell, where), where, *extra)
    terms: list[Term] = []
    for name, values in cell.term.items():
        with faults.catch():
            terms.append(build(TERMS, {"name": name, **values}, f"term.{name}"))
    with faults.catch():
        made["sparsity"] = _sparsity(cell, made.get("method"))
    with faults.catch():
        if "dataset" in made:
            made["data"] = made["dataset"].spec()
    faults.found += _hardware(cell)
    if lost or len(made) < PARTS:
        raise Refused(faults.found)

    parts = Parts(
        cell=cell, sparsity=made["sparsity"], method=made["method"], schedule=made["schedule"],
        distribution=made["distribution"], dataset=made["dataset"], data=made["data"], family=made["model"],
        optim=made["optim"], logger=made["logger"], terms=terms,
    )  # fmt: skip
    with faults.catch():
        _length(parts)
    _combination(parts, faults)
    for term in parts.terms:
        _files(term, faults)
    model_faults = parts.family.faults(parts.data)
    faults.found += model_faults
    if not model_faults:
        parts.outline = parts.family.outline(parts.data)
    if parts.outline is not None:
        with faults.catch():
            place_masks(parts, parts.outline)
    faults.raise_if_any()
    return parts


def _sparsity(cell: Cell, method: Method | None) -> Sparsity:
    if cell.sparsity is None:
        if method is not None and "dense" not in method.patterns:
            raise Refused([_fault("sparsity", f"method={method.name} needs one", 'write sparsity=0.9 or sparsity="2:4"')])
        return Sparsity("dense", 1.0)
    return Sparsity.parse(cell.sparsity)


def _hardware(cell: Cell) -> list[Any]:
    faults = Faults()
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    trainer = cell.trainer
    if trainer.accelerator == "gpu" and not gpus:
        faults.add("trainer.accelerator=gpu", "there is no CUDA device here", "write trainer.accelerator=cpu or auto")
    elif trainer.devices > gpus and (trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and gpus)):
        faults.add(f"trainer.devices={trainer.devices}", f"{gpus} CUDA devices are here", f"at most {gpus}")
    share = trainer.devices * trainer.accumulate
    if trainer.batch_size % share:
        where = f"trainer.batch_size={trainer.batch_size}"
        fix = f"write {trainer.batch_size // share * share or share}"
        faults.add(where, f"is not a multiple of devices x accumulate = {share}", fix)
    runs = Path(cell.runs_dir)
    there = next(p for p in [runs, *runs.absolute().parents] if p.exists())
    if not there.is_dir() or (runs.exists() and not runs.is_dir()):
        faults.add(f"runs_dir={cell.runs_dir}", f"{there} is not a folder", "name a folder that can be made")
    elif not os.access(there, os.W_OK | os.X_OK):
        faults.add(f"runs_dir={cell.runs_dir}", "cannot be written", "choose another folder with runs_dir=…")
    return faults.found


def _length(parts: Parts) -> None:
    """Optimiser updates of the run: whichever of max_epochs and max_steps comes first."""
    trainer, data = parts.cell.trainer, parts.data
    if data.train and trainer.batch_size > data.train:
        where = f"trainer.batch_size={trainer.batch_size}"
        raise Refused([_fault(where, f"{data.name} has {data.train:,} training examples", f"at most {data.train}")])
    per_epoch = data.train // trainer.batch_size
    lengths = [trainer.max_steps] if trainer.max_steps else []
    if trainer.max_epochs:
        if not per_epoch and not lengths:
            raise Refused([_fault("trainer.max_epochs", f"the length of {data.name} is not known", "write trainer.max_steps=…")])
        lengths += [trainer.max_epochs * per_epoch] if per_epoch else []
    if not lengths:
        raise Refused([_fault("trainer", "has neither max_epochs nor max_steps", "write trainer.max_epochs=… ")])
    parts.steps = min(lengths)
    parts.batches_per_epoch = per_epoch


def _combination(parts: Parts, faults: Faults) -> None:
    """Method, pattern, schedule and distribution: does each admit the others?"""
    method, sparsity, schedule, distribution = parts.method, parts.sparsity, parts.schedule, parts.distribution
    kind = sparsity.kind
    if kind not in method.patterns:
        where = f"sparsity={sparsity}"
        if kind == "dense":
            faults.add(where, f"method={method.name} needs a sparsity", "use method=dense for the dense network")
        elif method.patterns == ("dense",):
            faults.add(where, f"method={method.name} has none", "drop sparsity, or pick another method")
        else:
            faults.add(where, f"method={method.name} is not defined for {kind}", f"it takes {', '.join(method.patterns)}")
        return
    if kind == "dense":
        return
    if method.schedules is not None and schedule.name not in method.schedules:
        fix = f"it takes schedule={' or '.join(method.schedules)}"
        faults.add(f"schedule={schedule.name}", f"method={method.name} is not defined for it", fix)
        return
    if kind not in schedule.patterns:
        fix = f"it takes {', '.join(schedule.patterns)}; for {sparsity} write schedule=one_shot"
        faults.add(f"schedule={schedule.name}", f"is not defined for {kind}", fix)
    if kind not in distribution.patterns:
        fix = "write distribution=uniform"
        faults.add(f"distribution={distribution.name}", f"is not defined for {kind} ({sparsity})", fix)
    if parts.steps:
        faults.found += schedule.faults(parts.steps)


def _files(term: Term, faults: Faults) -> None:
    from sparselab.models.weights import read_header

    for path in term.files().values():
        with faults.catch():
            read_header(path)


def place_masks(parts: Parts, outline: Outline) -> None:
    """Choose the layers and their counts. Also called by the engine once a traced outline is there."""
    parts.outline = outline
    if parts.sparsity.kind == "dense":
        return
    targets = parts.cell.targets
    layers = select(outline, targets.include, targets.exclude)
    faults = Faults()
    found = [fault for layer in layers if (fault := misfit(layer, parts.sparsity, targets.axis))]
    faults.found += found[:SHOWN]
    if len(found) > SHOWN:
        faults.add("targets", f"{len(found) - SHOWN} more layers do not fit either", "see targets.exclude")
    faults.raise_if_any()
    parts.layers = layers
    parts.kept = final_counts(parts)


def final_counts(parts: Parts) -> dict[str, int]:
    """Weights kept per layer at the end; for a ranked distribution its uniform stand-in (the total is the same)."""
    sparsity = parts.sparsity
    if sparsity.kind == "nm":
        return {layer.name: layer.numel // sparsity.m * sparsity.n for layer in parts.layers}
    distribution = parts.distribution
    if distribution.needs_scores:
        distribution = DISTRIBUTIONS["uniform"](DISTRIBUTIONS["uniform"].Options())
    return distribution.allocate(parts.layers, sparsity.density)
