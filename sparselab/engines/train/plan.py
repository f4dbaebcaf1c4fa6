"""The plan of a training cell: every check that needs no torch, and the figures that `sparselab check` prints."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.data.dataset import DATASETS
from sparselab.edits.edit import EDITS
from sparselab.engines.engine import NOTHING
from sparselab.engines.parts import build, pending, top_level, unwritable, without_pending
from sparselab.loggers.logger import LOGGERS
from sparselab.methods.method import METHODS
from sparselab.metrics.metric import METRICS
from sparselab.models.family import MODELS
from sparselab.models.weights import compare_outline, place, read_header
from sparselab.optim.optim import OPTIMS
from sparselab.sparsity.count import keep_count
from sparselab.sparsity.distribution import DISTRIBUTIONS
from sparselab.sparsity.fit import misfit
from sparselab.sparsity.isoflop import WHERE as ISO
from sparselab.sparsity.isoflop import matched
from sparselab.sparsity.layout import n_of_m
from sparselab.sparsity.requests import WHERE as OWN
from sparselab.sparsity.requests import exceptions, own_patterns, spelled
from sparselab.sparsity.schedule import SCHEDULES
from sparselab.sparsity.targets import select
from sparselab.spec.faults import Fault, Faults, Refused, refuse, short, spell
from sparselab.spec.memo import once
from sparselab.spec.schema import Cell
from sparselab.spec.sparsity import Sparsity
from sparselab.store.ids import canonical
from sparselab.terms.term import TERMS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sparselab.data.dataset import Dataset
    from sparselab.edits.edit import Edit
    from sparselab.loggers.logger import Logger
    from sparselab.methods.method import Method
    from sparselab.metrics.metric import Metric
    from sparselab.models.family import Family
    from sparselab.models.weights import Entry
    from sparselab.optim.optim import Optim
    from sparselab.sparsity.distribution import Distribution
    from sparselab.sparsity.schedule import Schedule
    from sparselab.spec.dataspec import DataSpec
    from sparselab.spec.outline import Layer, Outline
    from sparselab.spec.schema import TargetOptions, TrainerOptions
    from sparselab.terms.term import Term

PARTS = 9  # what gather must have made before parts can be checked against each other
SHOWN = 3  # faults of one kind that are printed; the rest is counted
FORMS = {"dense": "dense", "unstructured": "a fraction", "nm": "N:M", "block": "block", "channel": "channel",
         "in_channel": "in_channel"}  # fmt: skip
EXAMPLES = {"dense": "dense", "unstructured": "0.9", "nm": "2:4", "block": "block:4x1:0.8", "channel": "channel:0.5",
            "in_channel": "in_channel:0.5"}  # fmt: skip


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


def gather(config: dict[str, Any], lost: frozenset[str] = frozenset(), needs: Mapping[str, str] = NOTHING) -> Parts:
    """Build every part and check them against each other. Raises Refused with all faults at once.

    With ``lost`` top-level keys only what does not depend on them is checked; the caller has faults of its own.
    A weights file among ``needs`` is checked once it is there.
    """
    faults = Faults()
    cell, top, lost = top_level(Cell, config, lost)
    faults.found += top
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
        if where not in lost:
            with faults.catch():
                made[where] = build(registry, getattr(cell, where), where, *extra)
    terms: list[Term] = []
    for name, values in cell.term.items() if "term" not in lost else ():
        with faults.catch():
            terms.append(build(TERMS, {"name": name, **values}, f"term.{name}"))
    edit: Edit | None = None
    with faults.catch():
        if cell.edit is not None and "edit" not in lost:
            edit = build(EDITS, cell.edit, "edit")
    metrics: list[Metric] = []
    for name, values in cell.metric.items() if not lost & {"metric", "data_dir"} else ():
        with faults.catch():
            metrics.append(build(METRICS, {"name": name, **values}, f"metric.{name}", cell.data_dir))
    with faults.catch():
        if "sparsity" not in lost and ("method" in made or cell.sparsity is not None):
            made["sparsity"] = _sparsity(cell, made.get("method"))
    own: dict[str, Sparsity] = {}
    with faults.catch():
        if "targets" not in lost:
            own = own_patterns(cell.targets.patterns)
            if own and "sparsity" in made and made["sparsity"].kind == "iso":
                refuse(ISO, "is one sparsity for all layers", f"write sparsity=0.9, or leave {OWN} out")
    with faults.catch():
        if "dataset" in made and "data_dir" not in lost:
            made["data"] = once(("data", cell.data_dir, canonical(cell.dataset)), made["dataset"].spec)
    faults.found += _hardware(cell) if "trainer" not in lost else []
    faults.found += once(("folder", cell.runs_dir), lambda: unwritable(cell.runs_dir)) if "runs_dir" not in lost else []

    # From here on things are checked against each other, as far as both sides are there.
    steps = per_epoch = 0
    with faults.catch():
        if "data" in made and "trainer" not in lost:
            steps, per_epoch = _length(cell.trainer, made["data"])
    if {"method", "data"} <= made.keys():
        faults.found += made["method"].faults(made["data"])
    if {"method", "optim"} <= made.keys() and made["method"].blends and not made["optim"].blends:
        able = " or optim=".join(name for name in OPTIMS if OPTIMS[name].blends)
        problem = f"method={made['method'].name} works inside the optimiser, and this one lets nobody in"
        faults.add(f"optim={made['optim'].name}", problem, f"write optim={able}")
    outline = None
    if {"model", "data"} <= made.keys():
        model, data = without_pending(cell.model, needs), made["data"]
        family = made["model"] if model is cell.model else build(MODELS, model, "model")
        model_faults, outline = once(("outline", canonical(model), data), lambda: _outline(family, data))
        faults.found += model_faults
    if "sparsity" in made and made["sparsity"].kind == "iso":
        made.pop("sparsity")
        with faults.catch():
            if not faults.found and not lost:  # it follows from all the other parts
                chosen = select(outline, cell.targets.include, cell.targets.exclude) if outline else []
                made["sparsity"] = matched(outline, chosen, made["distribution"])
    if {"sparsity", "schedule"} <= made.keys():
        made["schedule"].sparsity = made["sparsity"]
    if {"method", "sparsity", "schedule", "distribution"} <= made.keys():
        _combination(cell, made["method"], made["sparsity"], made["schedule"], made["distribution"], steps, faults)
        _own_combinations(cell, own, made["sparsity"], made["method"], made["schedule"], steps, faults)
    for metric in metrics if "data" in made else ():
        faults.found += metric.faults(made["data"])
    if edit is not None and "data" in made:
        faults.found += edit.faults(made["data"])
    if edit is not None and "method" in made and made["method"].keeps_master:
        problem = f"method={made['method'].name} trains a master that the edit does not see"
        faults.add(f"edit={edit.name}", problem, "write method=dense or method=ticket")
    if "method" in made:
        _files("method", made["method"].files(), outline, faults, needs)
    for term in terms:
        compare = made["model"].compare if "model" in made else compare_outline
        _files(f"term.{term.name}", term.files(), outline, faults, needs, compare)
        if "model" in made:
            faults.found += _demands(term, made["model"])
    layers: list[Layer] = []
    apart: dict[str, Sparsity] = {}
    if outline is not None and "sparsity" in made and "targets" not in lost and len(own) == len(cell.targets.patterns):
        with faults.catch():
            layers, apart = choose_layers(cell.targets, made["sparsity"], own, outline, made.get("schedule"))
    if faults.found or lost or len(made) < PARTS:
        raise Refused(faults.found)

    parts = Parts(
        cell=cell, sparsity=made["sparsity"], method=made["method"], schedule=made["schedule"],
        distribution=made["distribution"], dataset=made["dataset"], data=made["data"], family=made["model"],
        optim=made["optim"], logger=made["logger"], terms=terms, metrics=metrics, edit=edit, own=own, outline=outline,
        layers=layers, exceptions=apart, steps=steps, batches_per_epoch=per_epoch, needs=dict(needs),
    )  # fmt: skip
    if layers:
        parts.kept = final_counts(parts)
    return parts


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


def _combination(
    cell: Cell,
    method: Method,
    sparsity: Sparsity,
    schedule: Schedule,
    distribution: Distribution,
    steps: int,
    faults: Faults,
) -> None:
    """Method, pattern, schedule and distribution: does each admit the others?"""
    kind = sparsity.kind
    if kind not in method.patterns:
        where = short(f"sparsity={spell(cell.sparsity)}")
        if kind == "dense":
            faults.add(where, f"method={method.name} needs a sparsity", "use method=dense for the dense network")
        elif method.patterns == ("dense",):
            faults.add(where, f"method={method.name} has none", "leave sparsity out, or pick another method")
        else:
            fix = f"write sparsity={' or sparsity='.join(EXAMPLES[pattern] for pattern in method.patterns)}"
            faults.add(where, f"method={method.name} is not defined for {FORMS[kind]}", fix)
        return
    if kind == "dense":
        return
    if not method.admits(type(schedule)):
        if method.schedules is not None:
            fix = f"write schedule={' or schedule='.join(method.schedules)}"
        else:
            fix = f"write method={' or method='.join(name for name in METHODS if METHODS[name].admits(type(schedule)))}"
        faults.add(f"schedule={schedule.name}", f"method={method.name} is not defined for it", fix)
        return
    if kind == "nm":
        _axis(cell, method, faults)
    if kind not in schedule.patterns:
        problem = f"is not defined for {FORMS[kind]}{', which has no in-between' if kind == 'nm' else ''}"
        examples = [EXAMPLES[pattern] for pattern in schedule.patterns if pattern in method.patterns]
        faults.add(
            f"schedule={schedule.name}", problem, f"write schedule=one_shot, or a sparsity such as {examples[0]}"
        )
    if kind not in distribution.patterns:
        problem = f"is not defined for {FORMS[kind]} (sparsity={sparsity})"
        faults.add(f"distribution={distribution.name}", problem, "write distribution=uniform")
    if method.by_chance and kind != "unstructured":
        _chance(short(f"sparsity={spell(cell.sparsity)}"), kind, method, faults)
    if method.ranks_layers and not distribution.needs_scores:
        able = " or distribution=".join(name for name in DISTRIBUTIONS if DISTRIBUTIONS[name].needs_scores)
        problem = f"with these options method={method.name} decides how many weights each layer keeps"
        faults.add(f"distribution={distribution.name}", problem, f"write distribution={able}")
    if steps or cell.trainer.max_steps == 0:
        faults.found += schedule.faults(steps)


def _own_combinations(
    cell: Cell,
    own: Mapping[str, Sparsity],
    sparsity: Sparsity,
    method: Method,
    schedule: Schedule,
    steps: int,
    faults: Faults,
) -> None:
    """The same for patterns of some layers, in which the distribution has no part."""
    if own and sparsity.kind == "dense":
        faults.add(OWN, "the others have no sparsity", "write theirs, as in sparsity=0.9, or leave it out")
        return
    if own and method.ranks_layers:
        problem = f"with these options method={method.name} decides how many weights each layer keeps"
        faults.add(OWN, problem, "leave it out")
        return
    for selector, pattern in own.items():
        where = f"{OWN}.{selector}={pattern}"
        for plugin, kinds in (
            (f"method={method.name}", method.patterns),
            (f"schedule={schedule.name}", schedule.patterns),
        ):
            if pattern.kind not in kinds:
                fix = f"write one such as {next(EXAMPLES[kind] for kind in kinds if kind != 'dense')}"
                faults.add(where, f"{plugin} is not defined for {FORMS[pattern.kind]}", fix)
        if pattern.kind == "nm" and sparsity.kind != "nm":
            _axis(cell, method, faults)
        if method.by_chance and pattern.kind != "unstructured":
            _chance(where, pattern.kind, method, faults)
        if steps and pattern.kind in schedule.patterns:
            found = schedule.towards(pattern).faults(steps)
            faults.found += [fault for fault in found if fault not in faults.found]


def _chance(where: str, kind: str, method: Method, faults: Faults) -> None:
    problem = f"with these options method={method.name} keeps each weight by itself, not by {FORMS[kind]}"
    faults.add(where, problem, f"write {method.by_chance}")


def _axis(cell: Cell, method: Method, faults: Faults) -> None:
    if method.axes is not None and cell.targets.axis not in method.axes:
        where, fix = f"targets.axis={cell.targets.axis}", f"write targets.axis={' or targets.axis='.join(method.axes)}"
        faults.add(where, f"method={method.name} is not defined for it", fix)


def _outline(family: Family, data: DataSpec) -> tuple[list[Fault], Outline | None]:
    faults = family.faults(data)
    return faults, None if faults else family.outline(data)


def _files(
    where: str,
    files: dict[str, str],
    outline: Outline | None,
    faults: Faults,
    needs: Mapping[str, str],
    compare: Callable[[Mapping[str, Entry], Outline, str], list[Fault]] = compare_outline,
) -> None:
    """Weights files of the network that a plug-in reads: are they there, and do they fit?"""
    for option, path in files.items():
        if pending(path, needs):
            continue
        key = f"{where}.{option}"
        with faults.catch():
            entries = read_header(path, key)
            if outline is not None:
                faults.found += compare(entries, outline, place(path, key))


def _demands(term: Term, family: Family) -> list[Fault]:
    """What a term asks of the model."""
    found = []
    if term.needs_states and not family.has_blocks:
        problem = f"compares hidden states, and model={family.name} has no known blocks"
        found.append(Fault(f"term.{term.name}", problem, "choose another model, or term=[distill]"))
    if term.taught_by is not None and family.carries:
        problem = "its teacher reads each window from nothing, and the model goes on from the one before"
        found.append(Fault(f"term.{term.name}", problem, "write model.carry=false"))
    if term.needs_trained_start and not family.starts_trained:
        problem = "training starts from random weights, which teach nothing"
        found.append(Fault(f"term.{term.name}.teacher=start", problem, "set model.weights, or name a teacher"))
    return found


def choose_layers(
    targets: TargetOptions,
    sparsity: Sparsity,
    own: Mapping[str, Sparsity],
    outline: Outline,
    schedule: Schedule | None = None,
) -> tuple[list[Layer], dict[str, Sparsity]]:
    """The layers that ``targets`` selects, none for a dense cell; and those with a pattern of their own, by name.

    Refused where a pattern, or a structure that ``schedule`` has on the way to it, does not fit its layer.
    """
    if sparsity.kind == "dense":
        return [], {}
    layers = select(outline, targets.include, targets.exclude)
    apart = exceptions(layers, sparsity, own)
    found = []
    for layer in layers:
        fault = misfit(layer, apart.get(layer.name, sparsity), targets.axis)
        found += (
            [replace(fault, where=f"{OWN}: {apart[layer.name]}") if layer.name in apart else fault] if fault else []
        )
    if schedule is not None and not found:
        ways = {pattern: schedule.towards(pattern) for pattern in {sparsity, *apart.values()}}
        tried = (_misfit_on_the_way(x, ways[apart.get(x.name, sparsity)], targets.axis) for x in layers)
        found = [fault for fault in tried if fault]
    if len(found) > SHOWN:
        found[SHOWN:] = [Fault("targets", f"{len(found) - SHOWN} more layers do not fit either", "see targets.exclude")]
    if found:
        raise Refused(found)
    return layers, apart


def _misfit_on_the_way(layer: Layer, schedule: Schedule, axis: str) -> Fault | None:
    """Why the first structure that does not fit ``layer`` does not; None if all do."""
    faults = (misfit(layer, structure, axis) for structure in schedule.structures())
    fault = next((fault for fault in faults if fault), None)
    return fault and Fault(
        f"schedule={schedule.name}", f"{fault.where.removeprefix('sparsity=')}: {fault.problem}", fault.fix
    )


def place_masks(parts: Parts, outline: Outline) -> None:
    """Choose the layers and their counts once an outline is there that could not be foreseen."""
    parts.outline = outline
    chosen = choose_layers(parts.cell.targets, parts.sparsity, parts.own, outline, parts.schedule)
    parts.layers, parts.exceptions = chosen
    if parts.layers:
        parts.kept = final_counts(parts)


def final_counts(parts: Parts) -> dict[str, int]:
    """Weights kept per layer at the end; for a ranked distribution its uniform stand-in (the total is the same).

    Exceptions keep what their pattern says; the distribution deals with the other layers alone.
    """
    fixed = {layer.name: _own_count(layer, parts.exceptions[layer.name]) for layer in parts.layers
             if layer.name in parts.exceptions}  # fmt: skip
    others = [layer for layer in parts.layers if layer.name not in fixed]
    if parts.sparsity.kind == "nm":
        return {**fixed, **{layer.name: _own_count(layer, parts.sparsity) for layer in others}}
    distribution = parts.distribution
    if distribution.needs_scores:
        distribution = DISTRIBUTIONS["uniform"](DISTRIBUTIONS["uniform"].Options())
    return {**fixed, **distribution.allocate(others, parts.sparsity.density)}


def _own_count(layer: Layer, sparsity: Sparsity) -> int:
    if sparsity.kind == "nm":
        n, m = n_of_m(sparsity)
        return layer.numel // m * n
    return keep_count(layer.numel, sparsity.density)
