"""The parts of a training cell, made of its config. [no torch]"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.data.dataset import DATASETS
from sparselab.edits.edit import EDITS
from sparselab.engines.parts import build, near_data, top_level, unwritable, without_pending
from sparselab.engines.tokenizers import folder_of_copies
from sparselab.loggers.logger import LOGGERS
from sparselab.methods.method import METHODS
from sparselab.metrics.metric import METRICS
from sparselab.models.family import MODELS
from sparselab.optim.optim import OPTIMS
from sparselab.sparsity.distribution import DISTRIBUTIONS
from sparselab.sparsity.isoflop import WHERE as ISO
from sparselab.sparsity.isoflop import matched
from sparselab.sparsity.requests import WHERE as OWN
from sparselab.sparsity.requests import own_patterns, spelled
from sparselab.sparsity.schedule import SCHEDULES
from sparselab.sparsity.targets import select
from sparselab.spec.faults import Fault, Faults, Refused, refuse
from sparselab.spec.memo import once
from sparselab.spec.schema import Cell
from sparselab.spec.sparsity import Sparsity
from sparselab.store.ids import canonical
from sparselab.terms.term import TERMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sparselab.data.dataset import Dataset
    from sparselab.edits.edit import Edit
    from sparselab.loggers.logger import Logger
    from sparselab.methods.method import Method
    from sparselab.metrics.metric import Metric
    from sparselab.models.family import Family
    from sparselab.optim.optim import Optim
    from sparselab.sparsity.distribution import Distribution
    from sparselab.sparsity.schedule import Schedule
    from sparselab.spec.dataspec import DataSpec
    from sparselab.spec.outline import Layer, Outline
    from sparselab.spec.schema import TrainerOptions
    from sparselab.terms.term import Term

PLUGINS = ("method", "schedule", "distribution", "dataset", "model", "optim", "logger")
NEEDED = (*PLUGINS, "sparsity", "data")  # what has to be there before the parts are whole


@dataclass
class Parts:
    """The plug-ins of a training cell, built from their validated options.

    sparsity: of all layers but those that selectors give one of their own (``own``), which are ``exceptions`` by name.
    """

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
    metrics: list[Metric] = field(default_factory=list)
    edit: Edit | None = None
    own: dict[str, Sparsity] = field(default_factory=dict)
    outline: Outline | None = None
    layers: list[Layer] = field(default_factory=list)
    exceptions: dict[str, Sparsity] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    batches_per_epoch: int = 0
    needs: dict[str, str] = field(default_factory=dict)  # weights file to the id of the cell that makes it

    @property
    def asked(self) -> str:
        """The sparsity as asked for, with those of the exceptions."""
        return spelled(self.sparsity, self.own)

    def pattern_of(self, layer: str) -> Sparsity:
        """What the sparse layer of that name is to have in the end."""
        return self.exceptions.get(layer, self.sparsity)


@dataclass
class Made:
    """What could be made of a config, with the faults of what could not.

    parts: of :data:`NEEDED`, those that could be made. lost: top-level keys that are not what was asked for.
    """

    cell: Cell
    lost: frozenset[str]
    needs: Mapping[str, str]
    faults: Faults
    parts: dict[str, Any] = field(default_factory=dict)
    terms: list[Term] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    edit: Edit | None = None
    own: dict[str, Sparsity] = field(default_factory=dict)
    steps: int = 0
    batches_per_epoch: int = 0
    outline: Outline | None = None

    def has(self, *names: str) -> bool:
        return self.parts.keys() >= set(names)

    def whole(self, layers: list[Layer] | None = None, exceptions: dict[str, Sparsity] | None = None) -> Parts:
        """The parts; Refused with every fault where one is missing or lost."""
        if self.faults.found or self.lost or not self.has(*NEEDED):
            raise Refused(self.faults.found)
        found = self.parts
        return Parts(
            cell=self.cell, sparsity=found["sparsity"], method=found["method"], schedule=found["schedule"],
            distribution=found["distribution"], dataset=found["dataset"], data=found["data"], family=found["model"],
            optim=found["optim"], logger=found["logger"], terms=self.terms, metrics=self.metrics, edit=self.edit,
            own=self.own, outline=self.outline, layers=layers or [], exceptions=exceptions or {}, steps=self.steps,
            batches_per_epoch=self.batches_per_epoch, needs=dict(self.needs),
        )  # fmt: skip


def make(config: dict[str, Any], lost: frozenset[str], needs: Mapping[str, str]) -> Made:
    """Build every part, as far as it can be, and nothing of what follows from several but the length of the run."""
    faults = Faults()
    cell, top, lost = top_level(Cell, config, lost)
    if not {"model", "data_dir"} & lost:
        cell = cell.model_copy(update={"model": near_data(cell.model, folder_of_copies(cell.data_dir))})
    faults.found += top
    made = Made(cell, lost, needs, faults)
    parts = made.parts
    for where, registry, extra in (
        ("method", METHODS, ()),
        ("schedule", SCHEDULES, ()),
        ("distribution", DISTRIBUTIONS, ()),
        ("dataset", DATASETS, (cell.data_dir,)),
        ("model", MODELS, ()),
        ("optim", OPTIMS, ()),
        ("logger", LOGGERS, ()),
    ):
        if where not in lost:
            with faults.catch():
                parts[where] = build(registry, getattr(cell, where), where, *extra)
    for name, values in cell.term.items() if "term" not in lost else ():
        with faults.catch():
            made.terms.append(build(TERMS, {"name": name, **values}, f"term.{name}"))
    with faults.catch():
        if cell.edit is not None and "edit" not in lost:
            made.edit = build(EDITS, cell.edit, "edit")
    for name, values in cell.metric.items() if not lost & {"metric", "data_dir"} else ():
        with faults.catch():
            made.metrics.append(build(METRICS, {"name": name, **values}, f"metric.{name}", cell.data_dir))
    with faults.catch():
        if "sparsity" not in lost and ("method" in parts or cell.sparsity is not None):
            parts["sparsity"] = _sparsity(cell, parts.get("method"))
    with faults.catch():
        if "targets" not in lost:
            made.own = own_patterns(cell.targets.patterns)
            if made.own and "sparsity" in parts and parts["sparsity"].kind == "iso":
                refuse(ISO, "is one sparsity for all layers", f"write sparsity=0.9, or leave {OWN} out")
    with faults.catch():
        if "dataset" in parts and "data_dir" not in lost:
            parts["data"] = once(("data", cell.data_dir, canonical(cell.dataset)), parts["dataset"].spec)
    faults.found += _hardware(cell) if "trainer" not in lost else []
    faults.found += once(("folder", cell.runs_dir), lambda: unwritable(cell.runs_dir)) if "runs_dir" not in lost else []
    with faults.catch():
        if "data" in parts and "trainer" not in lost:
            made.steps, made.batches_per_epoch = _length(cell.trainer, parts["data"])
    return made


def foresee_layers(made: Made) -> None:
    """The outline of the network, with what the model says against the data, where both are there."""
    if made.has("model", "data"):
        model, data = without_pending(made.cell.model, made.needs), made.parts["data"]
        family = made.parts["model"] if model is made.cell.model else build(MODELS, model, "model")
        found, made.outline = once(("outline", canonical(model), data), lambda: _outline(family, data))
        made.faults.found += found


def match_sparsity(made: Made) -> None:
    """The sparsity that was asked for as the cost of another network: it follows from all the other parts."""
    if "sparsity" in made.parts and made.parts["sparsity"].kind == "iso":
        made.parts.pop("sparsity")
        outline, targets = made.outline, made.cell.targets
        with made.faults.catch():
            if not made.faults.found and not made.lost:
                chosen = select(outline, targets.include, targets.exclude) if outline else []
                made.parts["sparsity"] = matched(outline, chosen, made.parts["distribution"])


def _sparsity(cell: Cell, method: Method | None) -> Sparsity:
    if cell.sparsity is None:
        if method is not None and "dense" not in method.patterns:
            raise Refused(
                [Fault("sparsity", f"method={method.name} needs one", 'write sparsity=0.9 or sparsity="2:4"')]
            )
        return Sparsity("dense", 1.0)
    return Sparsity.parse(cell.sparsity)


def _hardware(cell: Cell) -> list[Fault]:
    faults = Faults()
    gpus = once("gpus", lambda: len(list(Path("/dev").glob("nvidia[0-9]*"))))
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
    return faults.found


def _length(trainer: TrainerOptions, data: DataSpec) -> tuple[int, int]:
    """(optimiser updates of the run, batches per epoch): whichever of max_epochs and max_steps comes first."""
    if data.train and trainer.batch_size > data.train:
        where = f"trainer.batch_size={trainer.batch_size}"
        raise Refused(
            [Fault(where, f"{data.name} has {data.train:,} training examples", f"write at most {data.train}")]
        )
    per_epoch = data.train // trainer.batch_size
    lengths = [trainer.max_steps] if trainer.max_steps is not None else []
    if trainer.max_epochs:
        if not per_epoch and not lengths:
            raise Refused(
                [Fault("trainer.max_epochs", f"the length of {data.name} is not known", "write trainer.max_steps=…")]
            )
        lengths += [trainer.max_epochs * per_epoch] if per_epoch else []
    if not lengths:
        raise Refused([Fault("trainer", "both max_epochs and max_steps are null", "write trainer.max_epochs=…")])
    return min(lengths), per_epoch


def _outline(family: Family, data: DataSpec) -> tuple[list[Fault], Outline | None]:
    faults = family.faults(data)
    return faults, None if faults else family.outline(data)
