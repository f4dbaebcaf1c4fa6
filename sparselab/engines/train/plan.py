"""The plan of a training cell: every check that needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparselab.engines.engine import NOTHING
from sparselab.engines.train.checks import combination, demands, lone_values, own_combinations, weights_files
from sparselab.engines.train.layers import choose_layers, final_counts
from sparselab.engines.train.parts import Made, Parts, foresee_layers, make, match_sparsity
from sparselab.models.weights import compare_outline
from sparselab.optim.optim import OPTIMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sparselab.spec.outline import Layer
    from sparselab.spec.sparsity import Sparsity


def gather(config: dict[str, Any], lost: frozenset[str] = frozenset(), needs: Mapping[str, str] = NOTHING) -> Parts:
    """Build every part and check them against each other. Raises Refused with all faults at once.

    With ``lost`` top-level keys only what does not depend on them is checked; the caller has faults of its own.
    A weights file among ``needs`` is checked once it is there.
    """
    made = make(config, lost, needs)
    _against_data(made)
    foresee_layers(made)
    match_sparsity(made)
    _against_each_other(made)
    layers, apart = _layers(made)
    parts = made.whole(layers, apart)
    if layers:
        parts.kept = final_counts(parts)
    return parts


def identified_parts(config: dict[str, Any], needs: Mapping[str, str] = NOTHING) -> Parts:
    """The parts as far as an id depends on them, which no check does: a cell that fails one has no record."""
    made = make(config, frozenset(), needs)
    if made.has("sparsity") and made.parts["sparsity"].kind == "iso":
        foresee_layers(made)
        match_sparsity(made)
    return made.whole()


def _against_data(made: Made) -> None:
    """As far as both sides are there: so it is with all that follows."""
    parts, faults = made.parts, made.faults
    if made.has("method", "data"):
        faults.found += parts["method"].faults(parts["data"])
    if made.has("method", "optim") and parts["method"].blends and not parts["optim"].blends:
        able = " or optim=".join(name for name in OPTIMS if OPTIMS[name].blends)
        problem = f"method={parts['method'].name} works inside the optimiser, and this one lets nobody in"
        faults.add(f"optim={parts['optim'].name}", problem, f"write optim={able}")


def _against_each_other(made: Made) -> None:
    parts, faults, cell = made.parts, made.faults, made.cell
    if made.has("sparsity", "schedule"):
        parts["schedule"].sparsity = parts["sparsity"]
    if made.has("method", "sparsity", "schedule", "distribution"):
        method, sparsity, schedule = parts["method"], parts["sparsity"], parts["schedule"]
        combination(cell, method, sparsity, schedule, parts["distribution"], made.steps, faults)
        own_combinations(cell, made.own, sparsity, method, schedule, made.steps, faults)
    if made.has("model") and made.steps and made.outline is not None:
        faults.found += lone_values(cell.trainer, parts["model"], made.outline)
    for metric in made.metrics if made.has("data") else ():
        faults.found += metric.faults(parts["data"])
    edit = made.edit
    if edit is not None and made.has("data"):
        faults.found += edit.faults(parts["data"])
    if edit is not None and made.has("method") and parts["method"].keeps_master:
        problem = f"method={parts['method'].name} trains a master that the edit does not see"
        faults.add(f"edit={edit.name}", problem, "write method=dense or method=ticket")
    if made.has("method"):
        weights_files("method", parts["method"].files(), made.outline, faults, made.needs)
    for term in made.terms:
        compare = parts["model"].compare if made.has("model") else compare_outline
        weights_files(f"term.{term.name}", term.files(), made.outline, faults, made.needs, compare)
        if made.has("model"):
            faults.found += demands(term, parts["model"])


def _layers(made: Made) -> tuple[list[Layer], dict[str, Sparsity]]:
    """The sparse layers and those of them with a pattern of their own; nothing where they are not known."""
    targets = made.cell.targets
    if made.outline is None or not made.has("sparsity") or "targets" in made.lost:
        return [], {}
    if len(made.own) == len(targets.patterns):
        with made.faults.catch():
            return choose_layers(targets, made.parts["sparsity"], made.own, made.outline, made.parts.get("schedule"))
    return [], {}
