"""The plan of a training cell: every check that needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparselab.inputs.models.weights import compare_outline
from sparselab.running.engine import NOTHING
from sparselab.training.checks import combination, demands, lone_values, own_combinations, weights_files
from sparselab.training.layers import choose_layers, final_counts
from sparselab.training.optim.optim import OPTIMS
from sparselab.training.parts import Made, Parts, foresee_layers, make, match_sparsity
from sparselab.training.precision import unable
from sparselab.weights.capabilities import ChangesMoments, MeasuresFirst, ReadsFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sparselab.core.model_spec import Layer
    from sparselab.core.sparsity import Sparsity


def gather(
    config: dict[str, Any], invalid: frozenset[str] = frozenset(), dependencies: Mapping[str, str] = NOTHING
) -> Parts:
    """Build every part and check them against each other. Raises ConfigError with all faults at once.

    With ``lost`` top-level keys only what does not depend on them is checked; the caller has faults of its own.
    A weights file among ``needs`` is checked once it is there.
    """
    made = make(config, invalid, dependencies)
    _against_data(made)
    foresee_layers(made)
    match_sparsity(made)
    _against_each_other(made)
    if made.has("model") and "trainer" not in made.invalid:
        unable(made.parts["model"], made.cell.trainer, made.issues)
    layers, apart = _layers(made)
    parts = made.whole(layers, apart)
    if layers:
        parts.kept = final_counts(parts)
    return parts


def identified_parts(config: dict[str, Any], dependencies: Mapping[str, str] = NOTHING) -> Parts:
    """The parts as far as an id depends on them, which no check does: a cell that fails one has no record."""
    made = make(config, frozenset(), dependencies)
    if made.has("sparsity") and made.parts["sparsity"].matches_cost:
        foresee_layers(made)
        match_sparsity(made)
    return made.whole()


def _against_data(made: Made) -> None:
    """Check parts against the data, as far as both are known; likewise below."""
    parts, issues = made.parts, made.issues
    method = parts.get("method")
    if isinstance(method, MeasuresFirst) and made.has("data"):
        issues.found += method.issues(parts["data"])
    if isinstance(method, ChangesMoments) and made.has("optim") and not parts["optim"].blends:
        able = " or optim=".join(name for name in OPTIMS if OPTIMS[name].blends)
        problem = f"method={parts['method'].name} changes the optimiser's first moment, which this one does not allow"
        issues.add(f"optim={parts['optim'].name}", problem, f"write optim={able}")


def _against_each_other(made: Made) -> None:
    parts, issues, cell = made.parts, made.issues, made.cell
    if made.has("sparsity", "schedule"):
        parts["schedule"].sparsity = parts["sparsity"]
    if made.has("method", "sparsity", "schedule", "distribution"):
        method, sparsity, schedule = parts["method"], parts["sparsity"], parts["schedule"]
        combination(cell, method, sparsity, schedule, parts["distribution"], made.steps, issues)
        own_combinations(cell, made.own, sparsity, method, schedule, made.steps, issues)
    if made.has("model") and made.steps and made.model_spec is not None:
        issues.found += lone_values(cell.trainer, parts["model"], made.model_spec)
    for metric in made.metrics if made.has("data") else ():
        issues.found += metric.issues(parts["data"])
    edit = made.edit
    if edit is not None and made.has("data"):
        issues.found += edit.issues(parts["data"])
    if edit is not None and made.has("method") and parts["method"].keeps_master:
        problem = f"method={parts['method'].name} trains a master that the edit does not see"
        issues.add(f"edit={edit.name}", problem, "write method=dense or method=ticket")
    method = parts.get("method")
    if isinstance(method, ReadsFiles):
        weights_files("method", method.files(), made.model_spec, issues, made.dependencies)
    for term in made.terms:
        compare = parts["model"].compare if made.has("model") else compare_outline
        weights_files(f"term.{term.name}", term.files(), made.model_spec, issues, made.dependencies, compare)
        if made.has("model"):
            issues.found += demands(term, parts["model"], parts.get("data"))


def _layers(made: Made) -> tuple[list[Layer], dict[str, Sparsity]]:
    """The sparse layers and those of them with a pattern of their own; nothing where they are not known."""
    targets = made.cell.targets
    if made.model_spec is None or not made.has("sparsity") or "targets" in made.invalid:
        return [], {}
    if len(made.own) == len(targets.patterns):
        with made.issues.catch():
            return choose_layers(targets, made.parts["sparsity"], made.own, made.model_spec, made.parts.get("schedule"))
    return [], {}
