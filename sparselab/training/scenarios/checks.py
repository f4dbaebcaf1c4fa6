"""A scenario against the other parts of its cell, before anything runs [no torch]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.core.errors import Issue
from sparselab.weights.capabilities import KnowsTasks

if TYPE_CHECKING:
    from sparselab.core.model_spec import Layer
    from sparselab.training.parts import UncheckedParts


def against_parts(made: UncheckedParts) -> list[Issue]:
    """The issues of a scenario with whatever would score, change or label the network otherwise."""
    scenario, cell, found = made.scenario, made.cell, []
    if scenario is None:
        return [loss.without_scenario() for loss in made.losses if loss.needs_scenario]
    where = f"scenario={scenario.name}"
    for key, other in (("edit", made.edit), ("merge", made.merge), ("adapt", made.adapt)):
        if other is not None:
            found.append(Issue(f"{key}={other.name}", f"is for one task, and {where} has several", "leave it out"))
    several = f"scores one test split, and {where} has several"
    found += [Issue(f"metric={metric.name}", several, "leave it out") for metric in made.metrics]
    if "targets" not in made.invalid and cell.targets.masks is not None:
        found.append(Issue("targets.masks", f"are of one task, and {where} has several", "leave it out"))
    if "trainer" not in made.invalid:
        for key in ("ema", "reach"):
            if (value := getattr(cell.trainer, key)) is not None:
                problem = f"is scored on one split, and {where} has several"
                found.append(Issue(f"trainer.{key}={value:g}", problem, f"write trainer.{key}=null"))
    if made.has("optim") and (smoothing := made.parts["optim"].options.label_smoothing):
        problem = "spreads over outputs of other tasks, which the loss does not see"
        found.append(Issue(f"optim.label_smoothing={smoothing:g}", problem, "write optim.label_smoothing=0.0"))
    if made.has("dataset") and (mixup := getattr(made.parts["dataset"].options.augment, "mixup", 0.0)):
        problem = "mixes examples, which scenarios number one by one"
        found.append(Issue(f"dataset.augment.mixup={mixup:g}", problem, "write dataset.augment={}"))
    for loss in made.losses:
        if loss.needs_scenario and "trainer" not in made.invalid:
            found += loss.in_scenario(scenario.examples, cell.trainer.devices)
    return found


def isolation(made: UncheckedParts, layers: list[Layer]) -> list[Issue]:
    """The issues of a method that promises that what was learnt for a task never changes."""
    scenario, method = made.scenario, made.parts.get("method")
    if scenario is None or not (isinstance(method, KnowsTasks) and method.isolates) or not layers:
        return []
    found, promise = [], f"method={method.name} isolates tasks"
    if not scenario.knows_task:
        problem = f"{promise}, and needs to be told which one an example is of"
        found.append(Issue(f"scenario={scenario.name}", problem, "write scenario=task_incremental"))
    if not scenario.options.fresh_optimizer:
        problem = f"{promise}, and what an optimiser remembers of one would move its weights in the next"
        found.append(Issue("scenario.fresh_optimizer=false", problem, "write scenario.fresh_optimizer=true"))
    if made.has("optim") and (decay := made.parts["optim"].options.weight_decay):
        problem = f"{promise}, and decay would move their weights"
        found.append(Issue(f"optim.weight_decay={decay:g}", problem, "write optim.weight_decay=0.0"))
    if made.has("optim") and made.parts["optim"].prox:
        problem = f"{promise}, and a step on whole groups would move their weights"
        found.append(Issue("optim.prox", problem, "write optim.prox=null"))
    spec = made.model_spec
    if spec is not None and (outside := spec.params - sum(layer.numel for layer in layers)):
        problem = f"{promise}, and {outside:,} biases, norms and others would be shared"
        fix = 'write model.bare=true targets.exclude=[] targets.include=["*"]'
        found.append(Issue(f"model={made.parts['model'].name}", problem, fix))
    return found
