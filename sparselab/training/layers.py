"""Which layers of a network are sparse, and how many weights each keeps [no torch]."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sparselab.core.errors import ConfigError, Issue
from sparselab.training.checks import lone_values
from sparselab.weights import uncovered
from sparselab.weights.count import keep_count
from sparselab.weights.distributions import DISTRIBUTIONS
from sparselab.weights.layer_patterns import WHERE as OWN
from sparselab.weights.layer_patterns import exceptions
from sparselab.weights.patterns.fit import misfit
from sparselab.weights.targets import select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sparselab.config.schema import TargetOptions
    from sparselab.core.model_spec import Layer, ModelSpec
    from sparselab.core.sparsity import Sparsity
    from sparselab.training.parts import Parts
    from sparselab.weights.schedules import Schedule

SHOWN = 3  # faults of one kind that are printed; the rest is counted


def choose_layers(
    targets: TargetOptions,
    sparsity: Sparsity,
    own: Mapping[str, Sparsity],
    model_spec: ModelSpec,
    schedule: Schedule | None = None,
) -> tuple[list[Layer], dict[str, Sparsity]]:
    """The layers that ``targets`` selects, none for a dense cell; and those with a pattern of their own, by name.

    ConfigError where what is asked for includes a weight that no mask can be put on, and where a pattern, or a structure that
    ``schedule`` has on the way to it, does not fit its layer.
    """
    if not sparsity.prunes:
        return [], {}
    if beyond := uncovered.issues(model_spec, targets.include, targets.exclude):
        raise ConfigError(beyond)
    layers = select(model_spec, targets.include, targets.exclude)
    apart = exceptions(layers, sparsity, own)
    found = []
    for layer in layers:
        issue = misfit(layer, apart.get(layer.name, sparsity), targets.axis)
        found += (
            [replace(issue, where=f"{OWN}: {apart[layer.name]}") if layer.name in apart else issue] if issue else []
        )
    if schedule is not None and not found:
        schedules = {pattern: schedule.for_target(pattern) for pattern in {sparsity, *apart.values()}}
        tried = (_misfit_on_the_way(x, schedules[apart.get(x.name, sparsity)], targets.axis) for x in layers)
        found = [issue for issue in tried if issue]
    if not found:
        found = _parted_streams(layers, model_spec, {layer.name: apart.get(layer.name, sparsity) for layer in layers})
    if len(found) > SHOWN:
        found[SHOWN:] = [Issue("targets", f"{len(found) - SHOWN} more layers do not fit either", "see targets.exclude")]
    if found:
        raise ConfigError(found)
    return layers, apart


def _parted_streams(layers: Sequence[Layer], model_spec: ModelSpec, patterns: Mapping[str, Sparsity]) -> list[Issue]:
    """A fault for each residual stream of which some layers would lose units and others not, as their outputs are added."""
    streams = {layer.adds: layer for layer in layers if layer.adds and patterns[layer.name].shared}
    parted = []
    for stream, chosen in streams.items():
        pattern = patterns[chosen.name]
        others = (layer.name for layer in model_spec.layers if layer.adds == stream)
        if other := next((name for name in others if patterns.get(name) != pattern), None):
            problem = f"the outputs of {chosen.name} and {other} are added, and {other} would keep other units"
            parted.append(Issue(f"sparsity={pattern}", problem, f"choose both or neither: {other} in targets"))
    return parted


def _misfit_on_the_way(layer: Layer, schedule: Schedule, axis: str) -> Issue | None:
    """Why the first structure that does not fit ``layer`` does not; None if all do."""
    issues = (misfit(layer, structure, axis) for structure in schedule.structures())
    issue = next((issue for issue in issues if issue), None)
    return issue and Issue(
        f"schedule={schedule.name}", f"{issue.where.removeprefix('sparsity=')}: {issue.problem}", issue.fix
    )


def place_masks(parts: Parts, model_spec: ModelSpec) -> None:
    """Choose the layers and their counts once a model spec is there that could not be foreseen.

    ConfigError where they cannot be chosen, and where the spec shows that micro-batches are too small.
    """
    if parts.steps and not parts.frozen and (lone := lone_values(parts.cell.trainer, parts.family, model_spec)):
        raise ConfigError(lone)
    parts.model_spec = model_spec
    chosen = choose_layers(parts.cell.targets, parts.sparsity, parts.own, model_spec, parts.schedule)
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
    if parts.sparsity.fixed_count:
        return {**fixed, **{layer.name: _own_count(layer, parts.sparsity) for layer in others}}
    distribution = parts.distribution
    if distribution.needs_scores:
        distribution = DISTRIBUTIONS["uniform"](DISTRIBUTIONS["uniform"].Options())
    return {**fixed, **distribution.allocate(others, parts.sparsity.density)}


def in_whole_tiles(layer: Layer, sparsity: Sparsity, count: int) -> int:
    """How many weights a mask keeps where ``count`` are asked for: blocks and channels are kept or dropped whole."""
    size = sparsity.unit_size(layer.kind, layer.shape)
    return count if size == 1 else keep_count(layer.numel // size, count / layer.numel) * size


def _own_count(layer: Layer, sparsity: Sparsity) -> int:
    own = sparsity.own_count(layer.shape)
    return keep_count(layer.numel, sparsity.density) if own is None else own
