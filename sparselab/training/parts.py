"""The parts of a training cell, made of its config [no torch]."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

from sparselab.config.schema import Cell
from sparselab.core.errors import ConfigError, Issue, Issues, refuse
from sparselab.core.memo import once
from sparselab.core.points import point_of, update_of
from sparselab.core.processor import gpus, uses_gpu
from sparselab.core.registry import build
from sparselab.core.sparsity import PATTERNS, Sparsity
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.local_copies import near_data
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.tokenizers import folder_of_copies
from sparselab.running.loggers.logger import LOGGERS
from sparselab.running.parts import pending, top_level, unwritable, without_pending
from sparselab.storage.ids import canonical
from sparselab.training.adapts.adapt import ADAPTS
from sparselab.training.edits.edit import EDITS
from sparselab.training.losses.extra_loss import LOSSES
from sparselab.training.merges.merge import MERGES
from sparselab.training.metrics.metric import METRICS
from sparselab.training.optim.optim import OPTIMS
from sparselab.training.removals.removal import REMOVALS, epoch_lengths
from sparselab.training.scenarios.scenario import SCENARIOS
from sparselab.training.searches.search import SEARCHES
from sparselab.training.tasks.task import TASKS
from sparselab.weights.capabilities import KnowsTasks
from sparselab.weights.distributions import DISTRIBUTIONS
from sparselab.weights.isoflop import WHERE as ISO
from sparselab.weights.isoflop import matched
from sparselab.weights.layer_patterns import WHERE as OWN
from sparselab.weights.layer_patterns import own_patterns, spelled
from sparselab.weights.method import METHODS
from sparselab.weights.schedules import SCHEDULES
from sparselab.weights.targets import select
from sparselab.weights.task_schedule import TaskSchedule
from sparselab.weights.uncovered import uncovered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sparselab.config.schema import TrainerOptions
    from sparselab.core.data_spec import DataSpec
    from sparselab.core.model_spec import Layer, Loose, ModelSpec
    from sparselab.inputs.data.dataset import Dataset
    from sparselab.inputs.models.family import Family
    from sparselab.running.loggers.logger import Logger
    from sparselab.training.adapts.adapt import Adapt
    from sparselab.training.edits.edit import Edit
    from sparselab.training.losses.extra_loss import ExtraLoss
    from sparselab.training.merges.merge import Merge
    from sparselab.training.metrics.metric import Metric
    from sparselab.training.optim.optim import Optim
    from sparselab.training.removals.removal import Removal
    from sparselab.training.scenarios.scenario import Scenario
    from sparselab.training.searches.search import Search
    from sparselab.training.tasks.task import Task
    from sparselab.weights.distributions import Distribution
    from sparselab.weights.method import Method
    from sparselab.weights.schedules import Schedule

PLUGINS = ("method", "schedule", "distribution", "dataset", "model", "optim", "logger")
NEEDED = (*PLUGINS, "sparsity", "data", "task")  # what has to be there before the parts are whole


@dataclass
class Parts:
    """The plug-ins of a training cell, built from their validated options.

    data: as the task has the network see it.
    sparsity: of all layers but those that selectors give one of their own (``own``), which are ``exceptions`` by name.
    """

    cell: Cell
    sparsity: Sparsity
    method: Method
    schedule: Schedule
    distribution: Distribution
    dataset: Dataset
    data: DataSpec
    task: Task
    family: Family
    optim: Optim
    logger: Logger
    losses: list[ExtraLoss] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    edit: Edit | None = None
    merge: Merge | None = None
    adapt: Adapt | None = None
    scenario: Scenario | None = None
    removal: Removal | None = None
    search: Search | None = None
    ends: tuple[int, ...] = ()  # the update after which each task of the scenario is over
    epochs: tuple[
        tuple[int, ...], ...
    ] = ()  # of each task (one without a scenario): the update of it that ends each epoch
    parents: list[str] = field(default_factory=list)  # weights files of several networks that are merged
    own: dict[str, Sparsity] = field(default_factory=dict)
    model_spec: ModelSpec | None = None
    layers: list[Layer] = field(default_factory=list)
    exceptions: dict[str, Sparsity] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    batches_per_epoch: int = 0
    dependencies: dict[str, str] = field(default_factory=dict)  # weights file to the id of the cell that makes it

    @property
    def asked(self) -> str:
        """The sparsity as asked for, with those of the exceptions."""
        return spelled(self.sparsity, self.own)

    @property
    def network_data(self) -> DataSpec:
        """The data as the network is made for: :attr:`data`, unless an adapt puts something between the two."""
        return self.data if self.adapt is None else self.adapt.network_sees(self.data)

    @property
    def frozen(self) -> bool:
        """True if only what the cell's adapt names trains."""
        return self.adapt is not None and self.adapt.freezes

    @property
    def begins(self) -> tuple[int, ...]:
        """The updates done when each task of a scenario begins; one task without it."""
        return (0, *self.ends[:-1])

    @property
    def epoch_begins(self) -> tuple[int, ...]:
        """The updates done when each epoch of the run begins."""
        return (0, *epochs_of_run(self.epochs)[:-1])

    @property
    def uncovered(self) -> list[Loose]:
        """Parameters of a sparse network that no mask can be put on and no exclusion names."""
        return uncovered(self.model_spec, self.cell.targets.exclude) if self.model_spec and self.layers else []

    @property
    def kept_at(self) -> dict[str, int]:
        """Update by spelled point at which the weights are kept."""
        points = filter(None, map(point_of, self.cell.trainer.keep_at))
        return {point: update_of(point, self.batches_per_epoch) for point in points}

    def pattern_of(self, layer: str) -> Sparsity:
        """Return the final sparsity of the layer of that name."""
        return self.exceptions.get(layer, self.sparsity)


@dataclass
class UncheckedParts:
    """The parts made of a config, with the issues of those that could not be made.

    parts: of :data:`NEEDED`, those that could be made. invalid: top-level keys that are not what was asked for.
    """

    cell: Cell
    invalid: frozenset[str]
    dependencies: Mapping[str, str]
    issues: Issues
    parts: dict[str, Any] = field(default_factory=dict)
    losses: list[ExtraLoss] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    edit: Edit | None = None
    merge: Merge | None = None
    adapt: Adapt | None = None
    scenario: Scenario | None = None
    removal: Removal | None = None
    search: Search | None = None
    ends: tuple[int, ...] = ()
    epochs: tuple[tuple[int, ...], ...] = ()
    parents: list[str] = field(default_factory=list)
    own: dict[str, Sparsity] = field(default_factory=dict)
    steps: int = 0
    batches_per_epoch: int = 0
    model_spec: ModelSpec | None = None

    def has(self, *names: str) -> bool:
        return self.parts.keys() >= set(names)

    @property
    def scheduled(self) -> int:
        """Updates that a schedule of masks has: those of the run, or of its shortest task where it begins anew with each."""
        return self.shortest[-1] if self.anew else self.steps

    @property
    def shortest(self) -> tuple[int, ...]:
        """The updates that end the epochs of what is divided the least: the run, or its shortest task."""
        return min(self.epochs, key=lambda epochs: epochs[-1], default=())

    @property
    def anew(self) -> bool:
        """True if masks begin anew with each task."""
        return bool(self.ends) and isinstance(self.parts.get("method"), KnowsTasks)

    def complete(self, layers: list[Layer] | None = None, exceptions: dict[str, Sparsity] | None = None) -> Parts:
        """The parts; ConfigError with every fault where one is missing or invalid."""
        if self.issues.found or self.invalid or not self.has(*NEEDED):
            raise ConfigError(self.issues.found)
        found = self.parts
        schedule = TaskSchedule(found["schedule"], self.ends, self.epochs) if self.anew else found["schedule"]
        return Parts(
            cell=self.cell, sparsity=found["sparsity"], method=found["method"], schedule=schedule,
            distribution=found["distribution"], dataset=found["dataset"], data=found["data"], task=found["task"],
            family=found["model"],
            optim=found["optim"], logger=found["logger"], losses=self.losses, metrics=self.metrics, edit=self.edit,
            merge=self.merge, adapt=self.adapt, scenario=self.scenario, removal=self.removal, search=self.search,
            ends=self.ends, epochs=self.epochs, parents=self.parents, own=self.own, model_spec=self.model_spec,
            layers=layers or [], exceptions=exceptions or {}, steps=self.steps,
            batches_per_epoch=self.batches_per_epoch, dependencies=dict(self.dependencies),
        )  # fmt: skip


def make(config: dict[str, Any], invalid: frozenset[str], dependencies: Mapping[str, str]) -> UncheckedParts:
    """Build every part, as far as it can be, and nothing of what follows from several but the length of the run."""
    issues = Issues()
    cell, top, invalid = top_level(Cell, config, invalid)
    if not {"model", "data_dir"} & invalid:
        cell = cell.model_copy(update={"model": near_data(cell.model, folder_of_copies(cell.data_dir))})
    issues.found += top
    made = UncheckedParts(cell, invalid, dependencies, issues)
    _several(made)
    cell = made.cell
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
        if where not in invalid:
            with issues.collect():
                parts[where] = build(registry, getattr(cell, where), where, *extra)
    for name, values in cell.loss.items() if "loss" not in invalid else ():
        with issues.collect():
            made.losses.append(build(LOSSES, {"name": name, **values}, f"loss.{name}"))
    with issues.collect():
        if cell.edit is not None and "edit" not in invalid:
            made.edit = build(EDITS, cell.edit, "edit")
    with issues.collect():
        if cell.merge is not None and "merge" not in invalid:
            made.merge = build(MERGES, cell.merge, "merge")
    if cell.neuron is not None and "model" not in invalid:
        problem = f"model={cell.model.get('name')} has none"
        able = " or model=".join(name for name in MODELS if MODELS[name].spiking)
        issues.add(f"neuron={cell.neuron.get('name')}", problem, f"write model={able}, or leave it out")
    with issues.collect():
        if cell.adapt is not None and "adapt" not in invalid:
            made.adapt = build(ADAPTS, cell.adapt, "adapt")
            if "model" in parts:
                parts["model"].fresh_head = made.adapt.fresh_head
    for name, values in cell.metric.items() if not invalid & {"metric", "data_dir"} else ():
        with issues.collect():
            made.metrics.append(build(METRICS, {"name": name, **values}, f"metric.{name}", cell.data_dir))
    with issues.collect():
        if "sparsity" not in invalid and ("method" in parts or cell.sparsity is not None):
            parts["sparsity"] = _sparsity(cell, parts.get("method"))
    with issues.collect():
        if "targets" not in invalid:
            made.own = own_patterns(cell.targets.patterns)
            if made.own and "sparsity" in parts and parts["sparsity"].matches_cost:
                refuse(ISO, "is one sparsity for all layers", f"write sparsity=0.9, or leave {OWN} out")
    with issues.collect():
        if "dataset" in parts and "data_dir" not in invalid:
            parts["data"] = once(("data", cell.data_dir, canonical(cell.dataset)), parts["dataset"].spec)
    with issues.collect():
        if "dataset" in parts and "task" not in invalid:
            parts["task"] = build(TASKS, cell.task or {"name": parts["dataset"].task}, "task")
        if "task" in parts and "data" in parts:
            parts["data"] = parts["task"].sees(parts["data"])
            issues.found += parts["task"].issues(parts["data"])
    with issues.collect():
        if cell.scenario is not None and "scenario" not in invalid:
            made.scenario = build(SCENARIOS, cell.scenario, "scenario")
            if "data" in parts:
                found = made.scenario.issues(parts["data"])
                issues.found += found
                if not found:
                    made.scenario.look(parts["data"])
                    parts["data"] = made.scenario.sees(parts["data"])
    with issues.collect():
        if cell.removal is not None and "removal" not in invalid:
            made.removal = build(REMOVALS, cell.removal, "removal")
    with issues.collect():
        if cell.search is not None and "search" not in invalid:
            made.search = build(SEARCHES, cell.search, "search")
    issues.found += _hardware(cell) if "trainer" not in invalid else []
    issues.found += (
        once(("folder", cell.runs_dir), lambda: unwritable(cell.runs_dir)) if "runs_dir" not in invalid else []
    )
    with issues.collect():
        if "data" in parts and "trainer" not in invalid and not (made.scenario and not made.scenario.groups):
            made.steps, made.batches_per_epoch = _lengths(made, cell.trainer, parts["data"])
    if "schedule" in parts:
        parts["schedule"].epochs = made.shortest if made.anew else epochs_of_run(made.epochs)
    if "optim" in parts:
        parts["optim"].look_back(made.batches_per_epoch)
    return made


def epochs_of_run(tasks: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The update of the run that ends each epoch, from those of each task."""
    found: list[int] = []
    for epochs in tasks:
        begun = found[-1] if found else 0
        found += [begun + end for end in epochs]
    return tuple(found)


def _several(made: UncheckedParts) -> None:
    """Several parents: the first stands for all where a network is looked at, for they have to be alike."""
    paths = made.cell.model.get("weights")
    if "model" in made.invalid or not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        return
    made.parents = paths
    model = {**made.cell.model, "weights": paths[0] if paths else None}
    made.cell = made.cell.model_copy(update={"model": model})


def foresee_layers(made: UncheckedParts) -> None:
    """The model spec of the network, with what the model says against the data, where both are there."""
    if made.has("model", "data") and not _awaits(made.parts["model"], made.dependencies):
        model, data = without_pending(made.cell.model, made.dependencies), made.parts["data"]
        family = made.parts["model"] if model is made.cell.model else build(MODELS, model, "model")
        if made.adapt is not None:
            data, family.fresh_head = made.adapt.network_sees(data), made.adapt.fresh_head
        key = "model spec", canonical(model), data, family.fresh_head
        found, made.model_spec = once(key, lambda: _spec_of(family, data))
        made.issues.found += found


def _awaits(family: Family, dependencies: Mapping[str, str]) -> bool:
    """True if another cell has yet to make a file that says which layers the network has."""
    files = family.files()
    return any(pending(path, dependencies) for option in family.shaped_by for path in files.get(option, ()))


def match_sparsity(made: UncheckedParts) -> None:
    """The sparsity that was asked for as the cost of another network: it follows from all the other parts."""
    if "sparsity" in made.parts and made.parts["sparsity"].matches_cost:
        made.parts.pop("sparsity")
        model_spec, targets = made.model_spec, made.cell.targets
        with made.issues.collect():
            if not made.issues.found and not made.invalid:
                chosen = select(model_spec, targets.include, targets.exclude) if model_spec else []
                made.parts["sparsity"] = matched(model_spec, chosen, made.parts["distribution"])


def _sparsity(cell: Cell, method: Method | None) -> Sparsity:
    if cell.sparsity is None:
        if method is not None and all(PATTERNS[name].prunes for name in method.patterns):
            raise ConfigError(
                [
                    Issue(
                        "sparsity",
                        f"method={method.name} needs one",
                        'write sparsity=0.9, sparsity="2:4" or method=dense',
                    )
                ]
            )
        return Sparsity.parse("dense")
    return Sparsity.parse(cell.sparsity)


def _hardware(cell: Cell) -> list[Issue]:
    issues = Issues()
    trainer, devices = cell.trainer, gpus()
    if trainer.accelerator == "gpu" and not devices:
        issues.add("trainer.accelerator=gpu", "there is no CUDA device here", "write trainer.accelerator=cpu or auto")
    elif trainer.devices > devices and uses_gpu(trainer.accelerator):
        issues.add(f"trainer.devices={trainer.devices}", f"{devices} CUDA devices are here", f"at most {devices}")
    share = trainer.devices * trainer.accumulate
    if trainer.batch_size % share:
        where = f"trainer.batch_size={trainer.batch_size}"
        fix = f"write {trainer.batch_size // share * share or share}"
        issues.add(where, f"is not a multiple of devices x accumulate = {share}", fix)
    return issues.found


def _lengths(made: UncheckedParts, trainer: TrainerOptions, data: DataSpec) -> tuple[int, int]:
    """(updates of the run, batches per epoch); of a scenario each task is as long as ``trainer`` says, in epochs of its own."""
    if made.scenario is None:
        updates, per_epoch, ends = _length(trainer, data, made.removal)
        made.epochs = (ends,)
        return updates, per_epoch
    sizes = made.scenario.sizes
    lengths = [
        _length(trainer, replace(data, name=f"task {i} of {data.name}", train=size), made.removal)
        for i, size in enumerate(sizes)
    ]
    made.ends = tuple(accumulate(updates for updates, _, _ in lengths))
    made.epochs = tuple(ends for _, _, ends in lengths)
    if not made.ends[0]:
        raise ConfigError([Issue("trainer.max_steps=0", "a scenario trains on each task", "write at least 1")])
    return made.ends[-1], lengths[0][1]


def _length(trainer: TrainerOptions, data: DataSpec, removal: Removal | None) -> tuple[int, int, tuple[int, ...]]:
    """(optimiser updates of the run, batches per epoch, the update after which each epoch is over, the last one cut short).

    Whichever of max_epochs and max_steps comes first; a removal makes later epochs shorter.
    """
    if data.train and trainer.batch_size > data.train:
        where = f"trainer.batch_size={trainer.batch_size}"
        raise ConfigError(
            [Issue(where, f"{data.name} has {data.train:,} training examples", f"write at most {data.train}")]
        )
    per_epoch = data.train // trainer.batch_size
    lengths = [trainer.max_steps] if trainer.max_steps is not None else []
    if trainer.max_epochs:
        if not per_epoch:
            where = f"trainer.max_epochs={trainer.max_epochs}"
            fix = "write trainer.max_epochs=null trainer.max_steps=…"
            raise ConfigError([Issue(where, f"the length of {data.name} is known once it is read", fix)])
        lengths += [sum(islice(epoch_lengths(data.train, trainer.batch_size, removal), trainer.max_epochs))]
    if not lengths:
        raise ConfigError([Issue("trainer", "both max_epochs and max_steps are null", "write trainer.max_epochs=…")])
    steps, ends = min(lengths), [0]
    for batches in epoch_lengths(data.train, trainer.batch_size, removal):
        if not batches or ends[-1] >= steps:
            break
        ends.append(min(ends[-1] + batches, steps))
    if removal and data.train and (found := removal.issues(data.name, data.train, trainer.batch_size, len(ends) - 1)):
        raise ConfigError(found)
    return steps, per_epoch, tuple(ends[1:]) or (steps,)


def _spec_of(family: Family, data: DataSpec) -> tuple[list[Issue], ModelSpec | None]:
    issues = family.issues(data)
    return issues, None if issues else family.model_spec(data)
