"""Parts of a training cell, checked against each other. [no torch]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparselab.engines.parts import pending
from sparselab.methods.method import METHODS
from sparselab.models.weights import compare_outline, place, read_header
from sparselab.sparsity.distribution import DISTRIBUTIONS
from sparselab.sparsity.requests import WHERE as OWN
from sparselab.spec.faults import Fault, Faults, short, spell

if TYPE_CHECKING:
    from collections.abc import Callable

    from sparselab.methods.method import Method
    from sparselab.models.family import Family
    from sparselab.models.weights import Entry
    from sparselab.sparsity.distribution import Distribution
    from sparselab.sparsity.schedule import Schedule
    from sparselab.spec.outline import Outline
    from sparselab.spec.schema import Cell, TrainerOptions
    from sparselab.spec.sparsity import Sparsity
    from sparselab.terms.term import Term

FORMS = {"dense": "dense", "unstructured": "a fraction", "nm": "N:M", "block": "block", "channel": "channel",
         "in_channel": "in_channel"}  # fmt: skip
EXAMPLES = {"dense": "dense", "unstructured": "0.9", "nm": "2:4", "block": "block:4x1:0.8", "channel": "channel:0.5",
            "in_channel": "in_channel:0.5"}  # fmt: skip


def combination(
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


def own_combinations(
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
                example = next((EXAMPLES[kind] for kind in kinds if kind != "dense"), None)
                fix = f"write one such as {example}" if example else "leave it out"
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


def weights_files(
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


def lone_values(trainer: TrainerOptions, family: Family, outline: Outline) -> list[Fault]:
    """A fault where batch normalisation would see one value a channel, which has no variance."""
    positions = [layer.macs // layer.numel for layer in outline.layers if "head" not in layer.roles]
    if not family.batch_norm or trainer.batch_size > trainer.accumulate or min(positions, default=2) > 1:
        return []
    problem = "batch normalisation sees one value a channel in each micro-batch"
    if trainer.batch_size == 1:
        return [Fault("trainer.batch_size=1", problem, "write trainer.batch_size=2 or more")]
    less = next(n for n in range(trainer.batch_size // 2, 0, -1) if trainer.batch_size % n == 0)
    return [Fault(f"trainer.accumulate={trainer.accumulate}", problem, f"write at most {less}")]


def demands(term: Term, family: Family) -> list[Fault]:
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
