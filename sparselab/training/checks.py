"""Parts of a training cell, checked against each other [no torch]."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselab.core.data_types import Classes, NextTokens, spoken
from sparselab.core.errors import Issue, Issues, short, spell
from sparselab.core.memo import once
from sparselab.core.sparsity import PATTERNS
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.models.weights import compare_spec, place, read_header
from sparselab.running.parts import pending
from sparselab.storage.export import MASKS, MODEL
from sparselab.training.given_masks import whole_at_start
from sparselab.weights.capabilities import (
    Alternates,
    ChangesMoments,
    DrawsMasks,
    LearnsTensors,
    ReadsInputs,
    ReadsScales,
    Rewinds,
    by_chance,
    ranks_layers,
)
from sparselab.weights.distributions import DISTRIBUTIONS
from sparselab.weights.layer_patterns import WHERE as OWN
from sparselab.weights.method import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sparselab.config.schema import Cell, TargetOptions, TrainerOptions
    from sparselab.core.data_spec import DataSpec
    from sparselab.core.model_spec import Layer, ModelSpec
    from sparselab.core.sparsity import Sparsity
    from sparselab.inputs.models.family import Family
    from sparselab.inputs.models.weights import Entry
    from sparselab.training.losses.extra_loss import ExtraLoss
    from sparselab.training.tasks.task import Task
    from sparselab.weights.distributions import Distribution
    from sparselab.weights.method import Method
    from sparselab.weights.schedules import Schedule

MOVING = (Alternates, ChangesMoments, DrawsMasks, LearnsTensors, ReadsInputs, Rewinds)
"""Capabilities of methods that move weights, or solve for them anew."""
OTHER_MASK = "another mask than the first one's: merged, sparsity would be lost"
ONE_MASK = "name networks of one mask"


def combination(
    cell: Cell,
    method: Method,
    sparsity: Sparsity,
    schedule: Schedule,
    distribution: Distribution,
    steps: int,
    issues: Issues,
) -> None:
    """Method, pattern, schedule and distribution: does each admit the others?"""
    if sparsity.kind not in method.patterns:
        where = short(f"sparsity={spell(cell.sparsity)}")
        if not sparsity.prunes:
            issues.add(where, f"method={method.name} needs a sparsity", "use method=dense for the dense network")
        elif not any(PATTERNS[name].prunes for name in method.patterns):
            issues.add(where, f"method={method.name} has none", "leave sparsity out, or pick another method")
        else:
            fix = f"write sparsity={' or sparsity='.join(PATTERNS[name].example for name in method.patterns)}"
            issues.add(where, f"method={method.name} is not defined for {sparsity.form}", fix)
        return
    if not sparsity.prunes:
        return
    if not method.admits(type(schedule)):
        if method.schedules is not None:
            fix = f"write schedule={' or schedule='.join(method.schedules)}"
        else:
            fix = f"write method={' or method='.join(name for name in METHODS if METHODS[name].admits(type(schedule)))}"
        issues.add(f"schedule={schedule.name}", f"method={method.name} is not defined for it", fix)
        return
    if sparsity.grouped:
        _axis(cell, method, issues)
    if sparsity.kind not in schedule.patterns:
        problem = f"is not defined for {sparsity.form}{', which has no in-between' if sparsity.fixed_count else ''}"
        examples = [PATTERNS[name].example for name in schedule.patterns if name in method.patterns]
        issues.add(
            f"schedule={schedule.name}", problem, f"write schedule=one_shot, or a sparsity such as {examples[0]}"
        )
    if sparsity.kind not in distribution.patterns:
        problem = f"is not defined for {sparsity.form} (sparsity={sparsity})"
        issues.add(f"distribution={distribution.name}", problem, "write distribution=uniform")
    if by_chance(method) and not sparsity.free:
        _chance(short(f"sparsity={spell(cell.sparsity)}"), sparsity, method, issues)
    if ranks_layers(method) and not _takes_its_scores(distribution):
        able = " or distribution=".join(name for name in DISTRIBUTIONS if _takes_its_scores(DISTRIBUTIONS[name]))
        problem = f"with these options method={method.name} decides how many weights each layer keeps"
        issues.add(f"distribution={distribution.name}", problem, f"write distribution={able}")
    if isinstance(distribution, ReadsInputs) and method.every_step:
        problem = f"method={method.name} makes new masks at every update, and each would read inputs anew"
        fix = "choose another distribution, or a method that makes few masks"
        issues.add(f"distribution={distribution.name}", problem, fix)
    if steps or cell.trainer.max_steps == 0:
        issues.found += schedule.issues(steps)


def _takes_its_scores(distribution: Distribution | type[Distribution]) -> bool:
    """True if a method's scores decide how many weights each layer keeps."""
    return distribution.needs_scores and not distribution.own_scores


def own_combinations(
    cell: Cell,
    own: Mapping[str, Sparsity],
    sparsity: Sparsity,
    method: Method,
    schedule: Schedule,
    steps: int,
    issues: Issues,
) -> None:
    """The same for patterns of some layers, in which the distribution has no part."""
    if own and not sparsity.prunes:
        issues.add(OWN, "the others have no sparsity", "write theirs, as in sparsity=0.9, or leave it out")
        return
    if own and ranks_layers(method):
        problem = f"with these options method={method.name} decides how many weights each layer keeps"
        issues.add(OWN, problem, "leave it out")
        return
    for selector, pattern in own.items():
        where = f"{OWN}.{selector}={pattern}"
        for plugin, names in (
            (f"method={method.name}", method.patterns),
            (f"schedule={schedule.name}", schedule.patterns),
        ):
            if pattern.kind not in names:
                example = next((PATTERNS[name].example for name in names if PATTERNS[name].prunes), None)
                fix = f"write one such as {example}" if example else "leave it out"
                issues.add(where, f"{plugin} is not defined for {pattern.form}", fix)
        if pattern.grouped and not sparsity.grouped:
            _axis(cell, method, issues)
        if by_chance(method) and not pattern.free:
            _chance(where, pattern, method, issues)
        if steps and pattern.kind in schedule.patterns:
            found = schedule.for_target(pattern).issues(steps)
            issues.found += [issue for issue in found if issue not in issues.found]


def _chance(where: str, sparsity: Sparsity, method: Method, issues: Issues) -> None:
    problem = f"with these options method={method.name} keeps each weight by itself, not by {sparsity.form}"
    issues.add(where, problem, f"write {by_chance(method)}")


def _axis(cell: Cell, method: Method, issues: Issues) -> None:
    axes = method.axes if isinstance(method, ReadsInputs) else None
    if axes is not None and cell.targets.axis not in axes:
        where, fix = f"targets.axis={cell.targets.axis}", f"write targets.axis={' or targets.axis='.join(axes)}"
        issues.add(where, f"method={method.name} is not defined for it", fix)


def weights_files(
    where: str,
    files: dict[str, str],
    model_spec: ModelSpec | None,
    issues: Issues,
    dependencies: Mapping[str, str],
    compare: Callable[[Mapping[str, Entry], ModelSpec, str], list[Issue]] = compare_spec,
) -> None:
    """Weights files of the network that a plug-in reads: are they there, and do they fit?"""
    for option, path in files.items():
        if pending(path, dependencies):
            continue
        key = f"{where}.{option}"
        with issues.collect():
            entries = read_header(path, key)
            if model_spec is not None:
                issues.found += compare(entries, model_spec, place(path, key))


def other_masks(paths: Sequence[str]) -> list[Issue]:
    """A fault for each network whose mask differs from the first one's, as far as their mask files are there."""
    beside = [Path(path).parent / MASKS for path in paths]
    if not beside or not all(
        Path(path).name == MODEL and file.is_file() for path, file in zip(paths, beside, strict=True)
    ):
        return []
    masks = [once(("masks", str(file)), file.read_bytes) for file in beside]  # equal masks are equal bytes
    return [
        Issue(place(path), OTHER_MASK, ONE_MASK) for path, mask in zip(paths, masks, strict=True) if mask != masks[0]
    ]


def one_value(family: Family, model_spec: ModelSpec) -> bool:
    """True where a sample gives a batch normalisation one value a channel."""
    positions = [layer.macs // layer.numel for layer in model_spec.layers if "head" not in layer.roles]
    return bool(model_spec.lone_norm or (family.batch_norm and min(positions, default=2) <= 1))


def lone_values(trainer: TrainerOptions, family: Family, model_spec: ModelSpec) -> list[Issue]:
    """A fault where batch normalisation would see one value a channel, which has no variance."""
    if trainer.batch_size > trainer.accumulate or not one_value(family, model_spec):
        return []
    problem = "batch normalisation sees one value a channel in each micro-batch"
    if trainer.batch_size == 1:
        return [Issue("trainer.batch_size=1", problem, "write trainer.batch_size=2 or more")]
    less = next(n for n in range(trainer.batch_size // 2, 0, -1) if trainer.batch_size % n == 0)
    return [Issue(f"trainer.accumulate={trainer.accumulate}", problem, f"write at most {less}")]


def small_batches(trainer: TrainerOptions, family: Family, task: Task) -> list[Issue]:
    """A fault where a micro-batch is too small for the network, or a process's share of it for the loss."""
    found = []
    for where, least, parts in (
        (family.where, family.least_batch(), trainer.accumulate),
        (f"task={task.name}", task.least_batch, trainer.accumulate * max(trainer.devices, 1)),
    ):
        if trainer.batch_size < least * parts:
            problem = f"{where} needs {least:,} examples together"
            problem += f", and a batch is divided into {parts}" if parts > 1 else ""
            fix = f"write trainer.batch_size={least * parts} or more"
            found.append(Issue(f"trainer.batch_size={trainer.batch_size}", problem, fix))
    return found


def sanity_checks(
    targets: TargetOptions, method: Method, patterns: Sequence[Sparsity], schedule: Schedule, steps: int
) -> list[Issue]:
    """Issues of ``targets.keep`` and ``targets.shuffle``, which ask of a mask what it is worth."""
    found = []
    smallest, shuffle = "targets.keep=smallest", "targets.shuffle=true"
    asked = [where for where, on in ((smallest, targets.keep == "smallest"), (shuffle, targets.shuffle)) if on]
    if asked and not patterns[0].prunes:
        return [Issue(asked[0], "a dense cell has no masks", "write a sparsity, or leave it out")]
    if smallest in asked and targets.masks is not None:
        found.append(Issue(smallest, "a mask of a file has no scores", "write it in the cell that makes this mask"))
    elif smallest in asked and not method.by_score:
        fix = "choose a method that ranks scores, such as magnitude"
        found.append(Issue(smallest, f"method={method.name} does not keep what scores best", fix))
    if shuffle in asked:
        if fixed := next((pattern for pattern in patterns if not pattern.free), None):
            found.append(Issue(shuffle, f"{fixed} says where weights may lie", "write a sparsity such as 0.9"))
        if method.every_step or (steps and len(schedule.updates(steps)) > 1):
            problem = f"method={method.name} with schedule={schedule.name} makes more than one mask"
            found.append(Issue(shuffle, problem, "write it in a cell that takes the last one (targets.masks)"))
    return found


def scales(method: Method, layers: Sequence[Layer]) -> list[Issue]:
    """A fault for the first sparse layer without a norm, where ``method`` ranks units by the scales of norms."""
    bare = next((layer.name for layer in layers if not layer.norm), None)
    if not isinstance(method, ReadsScales) or bare is None:
        return []
    problem = f"there is no norm behind {bare} whose scales method={method.name} could rank"
    return [Issue("targets", problem, "exclude it (targets.exclude), or write method=magnitude")]


def demands_of_method(loss: ExtraLoss, method: Method, trainer: TrainerOptions | None) -> list[Issue]:
    """Return the issues of an extra loss that takes the place of the task's, or looks at the network without its masks."""
    where = f"loss.{loss.name}"
    if not (loss.options.weight or loss.share_of_task_loss()):
        fix = f"write {where}.task_share=1.0, or another weight"
        return [Issue(f"{where}.weight=0", "and a task_share of 0 leave no loss to train with", fix)]
    if loss.needs_drawn_masks and not isinstance(method, DrawsMasks):
        able = " or method=".join(name for name in METHODS if issubclass(METHODS[name], DrawsMasks))
        return [Issue(where, f"method={method.name} draws no masks that it could move", f"write method={able}")]
    if loss.needs_dense_weights and not method.keeps_master:
        problem = f"method={method.name} keeps no dense weights to compare with"
        return [Issue(where, problem, "leave it out, or choose a method that keeps them")]
    if loss.needs_drawn_masks and trainer is not None and trainer.compile:
        return [Issue(where, "asks for second derivatives, which compile has not", "write trainer.compile=false")]
    return []


def while_frozen(where: str, parts: Mapping[str, Any], losses: Sequence[ExtraLoss], steps: int) -> list[Issue]:
    """Return the issues of ``where``, which freezes weights, with what would move them or look at their gradients."""
    found = []
    method, schedule, sparsity = (parts.get(name) for name in ("method", "schedule", "sparsity"))
    if method is not None and schedule is not None and sparsity is not None and sparsity.prunes:
        if method.keeps_master or isinstance(method, MOVING):
            problem = f"trains weights that {where} freezes"
            found.append(Issue(f"method={method.name}", problem, "write method=ticket, with the masks of another cell"))
        elif method.every_step or not whole_at_start(schedule, steps) or len(schedule.updates(steps)) > 1:
            problem = f"masks would move while {where} freezes the weights"
            found.append(Issue(f"schedule={schedule.name}", problem, "write method=ticket, or schedule.at=0"))
    if (optim := parts.get("optim")) is not None and optim.prox:
        found.append(Issue("optim.prox", f"shrinks weights that {where} freezes", "leave it out"))
    if losses:
        problem = f"is computed from the network's own inputs and weights, which {where} puts aside"
        found.append(Issue(f"loss.{losses[0].name}", problem, "leave it out"))
    return found


def demands(loss: ExtraLoss, family: Family, data: DataSpec | None) -> list[Issue]:
    """Return the issues of an extra loss with the model and the data."""
    found = []
    if loss.needs_pair is not None and data is not None and data.pair != loss.needs_pair:
        problem = f"is for {spoken(loss.needs_pair)}, and dataset {data.name} is {spoken(data.pair)}"
        return [Issue(f"loss.{loss.name}", problem, "leave it out")]
    if loss.needs_classes and data is not None and not isinstance(data.targets, (Classes, NextTokens)):
        problem = f"compares probabilities of classes, and targets of dataset {data.name} are {data.targets.noun}"
        found.append(Issue(f"loss.{loss.name}", problem, "leave it out"))
    given = not_given(f"loss.{loss.name}", loss.needs_given, family)
    found += given
    if data is not None and not given:
        found += loss.misfits(family, data)
    if loss.needs_spikes and not family.spiking:
        found.append(no_spikes(f"loss.{loss.name}", family))
    elif loss.needs_states and not family.has_blocks:
        problem = f"compares hidden states, and model={family.name} has no known blocks"
        found.append(Issue(f"loss.{loss.name}", problem, "choose another model, or loss=[distill]"))
    if loss.taught_by is not None and family.carries and not loss.needs_dense_weights:
        problem = "its teacher reads each window from nothing, and the model goes on from the one before"
        found.append(Issue(f"loss.{loss.name}", problem, "write model.carry=false"))
    if loss.needs_trained_start and not family.starts_trained:
        problem = "training starts from random weights, which teach nothing"
        found.append(Issue(f"loss.{loss.name}.teacher=start", problem, "set model.weights, or name a teacher"))
    return found


def not_given(where: str, what: str | None, family: Family) -> list[Issue]:
    """The fault of a part ``where`` that reads of a network ``what`` this one does not keep."""
    if what is None or what in family.gives:
        return []
    able = " or model=".join(name for name in MODELS if what in MODELS[name].gives)
    return [Issue(where, f"reads what model={family.name} has not", f"write model={able}, or leave it out")]


def no_spikes(where: str, family: Family) -> Issue:
    """The fault of a part ``where`` that is about spikes, beside a network that has none."""
    able = " or model=".join(name for name in MODELS if MODELS[name].spiking)
    return Issue(where, f"is about spikes, and model={family.name} has none", f"write model={able}, or leave it out")
