"""The plan of a training cell: every check that needs no torch."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from sparselab.core.data_types import Classes
from sparselab.core.errors import ConfigError, Issue
from sparselab.core.points import point_of, update_of
from sparselab.inputs.models.weights import compare_spec
from sparselab.running.engine import NOTHING
from sparselab.training import given_masks
from sparselab.training.checks import (
    combination,
    demands,
    demands_of_method,
    lone_values,
    no_spikes,
    one_value,
    other_masks,
    own_combinations,
    sanity_checks,
    scales,
    small_batches,
    weights_files,
    while_frozen,
)
from sparselab.training.layers import choose_layers, final_counts
from sparselab.training.optim.optim import OPTIMS
from sparselab.training.parts import Parts, UncheckedParts, foresee_layers, make, match_sparsity
from sparselab.training.precision import unable
from sparselab.training.scenarios.checks import against_parts, isolation
from sparselab.weights.capabilities import (
    ChangesMoments,
    DrawsMasks,
    FollowsSchedule,
    MeasuresFirst,
    ReadsFiles,
    ReadsMemory,
)
from sparselab.weights.targets import select

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sparselab.core.model_spec import Layer
    from sparselab.core.sparsity import Sparsity
    from sparselab.training.merges.merge import Merge


def gather(
    config: dict[str, Any], invalid: frozenset[str] = frozenset(), dependencies: Mapping[str, str] = NOTHING
) -> Parts:
    """Build every part and check them against each other. Raises ConfigError with all faults at once.

    With ``invalid`` top-level keys only what does not depend on them is checked; the caller has issues of its own.
    A weights file among ``dependencies`` is checked once it is there.
    """
    made = make(config, invalid, dependencies)
    _against_data(made)
    foresee_layers(made)
    match_sparsity(made)
    _against_each_other(made)
    if made.adapt is not None:
        _adapting(made)
    if "scenario" not in made.invalid:
        made.issues.found += against_parts(made)
    if "model" not in made.invalid:
        _merging(made)
    if "targets" not in made.invalid:
        made.issues.found += given_masks.combination(made)
    if "trainer" not in made.invalid and made.has("data"):
        made.issues.found += _points(made)
        made.issues.found += _reach(made)
    if made.has("model") and "trainer" not in made.invalid:
        unable(made.parts["model"], made.cell.trainer, made.issues)
    layers, apart = _layers(made)
    made.issues.found += isolation(made, layers)
    if not made.issues.found and "targets" not in made.invalid and made.model_spec is not None:
        for metric in made.metrics:
            made.issues.found += metric.against(layers, dependencies)
        for loss in made.losses:
            made.issues.found += loss.against(made.model_spec, dependencies)
        if made.has("optim") and (prox := made.parts["optim"].prox):
            targets = made.cell.targets
            made.issues.found += prox.issues(layers or select(made.model_spec, targets.include, targets.exclude))
        if made.has("method"):
            made.issues.found += scales(made.parts["method"], layers)
    parts = made.complete(layers, apart)
    if layers:
        parts.kept = final_counts(parts)
        if issues := given_masks.header_issues(parts, dependencies):
            raise ConfigError(issues)
    return parts


def identified_parts(config: dict[str, Any], dependencies: Mapping[str, str] = NOTHING) -> Parts:
    """The parts as far as an id depends on them, which no check does: a cell that fails one has no record."""
    made = make(config, frozenset(), dependencies)
    if made.has("sparsity") and made.parts["sparsity"].matches_cost:
        foresee_layers(made)
        match_sparsity(made)
    return made.complete()


def _against_data(made: UncheckedParts) -> None:
    """Check parts against the data, as far as both are known; likewise below."""
    parts, issues = made.parts, made.issues
    method = parts.get("method")
    if made.has("data"):
        files, model_spec = parts["dataset"].weights()
        weights_files("dataset", files, model_spec, issues, made.dependencies)
    if isinstance(method, MeasuresFirst) and made.has("data"):
        issues.found += method.issues(parts["data"])
    if isinstance(method, ChangesMoments) and made.has("optim") and not parts["optim"].blends:
        able = " or optim=".join(name for name in OPTIMS if OPTIMS[name].blends)
        problem = f"method={parts['method'].name} changes the optimiser's first moment, which this one does not allow"
        issues.add(f"optim={parts['optim'].name}", problem, f"write optim={able}")
    if isinstance(method, ReadsMemory) and method.reads_memory and made.has("optim") and not parts["optim"].remembers:
        problem = f"leaves no mean of gradients, which {method.reads_memory} looks at"
        issues.add("optim.momentum=0", problem, "write optim.momentum=0.9, or choose another option")


def _against_each_other(made: UncheckedParts) -> None:
    parts, issues, cell = made.parts, made.issues, made.cell
    if made.has("sparsity", "schedule"):
        parts["schedule"].sparsity = parts["sparsity"]
    if made.has("method", "sparsity", "schedule", "distribution"):
        method, sparsity, schedule = parts["method"], parts["sparsity"], parts["schedule"]
        combination(cell, method, sparsity, schedule, parts["distribution"], made.scheduled, issues)
        own_combinations(cell, made.own, sparsity, method, schedule, made.scheduled, issues)
        if "targets" not in made.invalid:
            issues.found += sanity_checks(cell.targets, method, [sparsity, *made.own.values()], schedule, made.steps)
        if isinstance(method, FollowsSchedule):
            method.schedule = schedule
        if isinstance(method, DrawsMasks) and sparsity.prunes and schedule.updates(made.steps)[:1] == [0]:
            problem = f"method={parts['method'].name} searches in the updates before its mask, and there are none"
            issues.add(f"schedule={schedule.name}", problem, "write schedule.at=1.0, and train for at least an update")
    if made.has("optim", "schedule", "sparsity", "data") and "trainer" not in made.invalid:
        masks = parts["schedule"].updates(made.steps) if parts["sparsity"].prunes else None
        issues.found += parts["optim"].issues(made.steps, masks)
    if made.has("model") and made.steps and made.model_spec is not None:
        issues.found += lone_values(cell.trainer, parts["model"], made.model_spec)
    if made.has("model", "task") and made.steps:
        issues.found += small_batches(cell.trainer, parts["model"], parts["task"])
    for metric in made.metrics if made.has("data") else ():
        issues.found += metric.issues(parts["data"])
    for metric in made.metrics if made.has("model") else ():
        if metric.needs_spikes and not parts["model"].spiking:
            issues.found.append(no_spikes(f"metric={metric.name}", parts["model"]))
    edit = made.edit
    if edit is not None and made.has("data"):
        issues.found += edit.issues(parts["data"])
    if edit is not None and made.has("method") and parts["method"].keeps_master:
        problem = f"method={parts['method'].name} trains a master that the edit does not see"
        issues.add(f"edit={edit.name}", problem, "write method=dense or method=ticket")
    method = parts.get("method")
    if isinstance(method, ReadsFiles):
        weights_files("method", method.files(), made.model_spec, issues, made.dependencies)
    for loss in made.losses:
        compare = parts["model"].compare if made.has("model") else compare_spec
        weights_files(f"loss.{loss.name}", loss.files(), made.model_spec, issues, made.dependencies, compare)
        if made.has("model"):
            issues.found += demands(loss, parts["model"], parts.get("data"))
        if method is not None:
            issues.found += demands_of_method(loss, method, cell.trainer if "trainer" not in made.invalid else None)


def _merging(made: UncheckedParts) -> None:
    """Several parents, and the rule that makes one network of them; as far as their files are there, they have to be alike."""
    issues, parents, merge = made.issues, made.parents, made.merge
    if len(parents) < 2 and merge is not None:
        issues.add(f"merge={merge.name}", "there are no several networks", "write model.weights=[{cell: …}, {cell: …}]")
    if parents and merge is None and "merge" not in made.invalid:
        issues.add(f"model.weights: {len(parents)} networks", "nothing makes one of them", "add merge=uniform")
    for number, path in enumerate(parents):
        if path in parents[:number]:
            first = f"is model.weights[{parents.index(path)}] again"
            issues.add(f"model.weights[{number}]", first, "name each network once")
    if merge is not None and made.has("data"):
        issues.found += merge.issues(made.parts["data"])
    if parents and any(loss.needs_trained_start for loss in made.losses):
        issues.add("model.weights", "a teacher that is the start is one network, not several", "name the teacher")
    if made.has("model"):
        files = {f"weights[{number}]": path for number, path in enumerate(parents) if number}
        weights_files("model", files, made.model_spec, issues, made.dependencies, made.parts["model"].compare)
        issues.found += other_masks(parents) if merge is None or merge.options.masks == "one" else []
    if merge is not None and made.batches_per_epoch and "trainer" not in made.invalid:
        issues.found += _measured_again(merge, made)
    for metric in made.metrics:
        if metric.needs_parents and len(parents) < 2:
            fix = "write model.weights=[{cell: …}, {cell: …}], or leave it out"
            issues.add(f"metric={metric.name}", "looks at the networks that are merged, and there are none", fix)


def _measured_again(merge: Merge, made: UncheckedParts) -> list[Issue]:
    """A fault for batches on which batch normalisation cannot measure again, or a network that has none."""
    o, train, batch_size = merge.options, made.parts["data"].train, made.cell.trainer.batch_size
    asked = o.recalibrate or o.recalibrate_share
    where = f"merge.recalibrate={o.recalibrate}" if o.recalibrate else f"merge.recalibrate_share={asked:g}"
    family = made.parts.get("model")
    if asked and family is not None and getattr(family.options, "batch_norm", True) is False:
        return [Issue(where, "the network has no batch normalisation", "write model.batch_norm=true, or leave it out")]
    if o.recalibrate > train:
        return [Issue(where, f"there are {train} training examples", f"write at most {train}")]
    if asked and not merge.batches(train, batch_size):
        least = ceil(1000 / made.batches_per_epoch) / 1000
        return [Issue(where, "is less than a batch", f"write at least {least:g}, or 0")]
    alone = asked and min(o.recalibrate or batch_size, batch_size) == 1
    if alone and family is not None and made.model_spec is not None and one_value(family, made.model_spec):
        problem = "batch normalisation sees one value a channel in each batch"
        return [Issue(where, problem, f"write {'2' if batch_size > 1 else 'trainer.batch_size=2'} or more")]
    return []


def _adapting(made: UncheckedParts) -> None:
    """Check what adapts a given network against the data, and against whatever else would change the network."""
    adapt, issues = made.adapt, made.issues
    assert adapt is not None
    where = f"adapt={adapt.name}"
    if made.has("data", "dataset"):
        issues.found += adapt.issues(made.parts["data"], made.parts["dataset"])
    for key, other in (("edit", made.edit), ("merge", made.merge)):
        if other is not None:
            problem = "changes the network that is given, in the same cell"
            issues.add(
                f"{key}={other.name}", problem, "write it in a cell of its own, and start from that (model.weights)"
            )
    if adapt.freezes:
        issues.found += while_frozen(where, made.parts, made.losses, made.steps)


def _points(made: UncheckedParts) -> list[Issue]:
    """A fault for each point at which weights are to be kept and that the run does not reach."""
    found = []
    for point in filter(None, map(point_of, made.cell.trainer.keep_at)):
        where = f"trainer.keep_at=[{point}]"
        if not point.isdigit() and not made.batches_per_epoch:
            found.append(Issue(where, "how long an epoch is is not known", "write updates, such as 100"))
        elif update_of(point, made.batches_per_epoch) > made.steps:
            found.append(Issue(where, f"after the end of the run ({made.steps:,} updates)", f"at most {made.steps}"))
    return found


def _reach(made: UncheckedParts) -> list[Issue]:
    """A fault of the score whose first update is to be told."""
    reach, data = made.cell.trainer.reach, made.parts["data"]
    if reach is None:
        return []
    where = f"trainer.reach={reach:g}"
    if data.train and not data.val:
        return [
            Issue(where, f"{data.name} has no validation data to look at", "write dataset.val=1000, or leave it out")
        ]
    if made.has("task") and made.parts["task"].better == "higher" and isinstance(data.targets, Classes) and reach > 1:
        return [Issue(where, "a share of right answers is at most 1", f"write trainer.reach={reach / 100:g}")]
    return []


def _layers(made: UncheckedParts) -> tuple[list[Layer], dict[str, Sparsity]]:
    """The sparse layers and those of them with a pattern of their own; nothing where they are not known."""
    targets = made.cell.targets
    if made.model_spec is None or not made.has("sparsity") or "targets" in made.invalid:
        return [], {}
    if len(made.own) == len(targets.patterns):
        with made.issues.collect():
            return choose_layers(targets, made.parts["sparsity"], made.own, made.model_spec, made.parts.get("schedule"))
    return [], {}
