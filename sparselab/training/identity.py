"""The values that a training cell's id is a hash of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparselab.config.schema import Cell
from sparselab.core.data_types import Sentences
from sparselab.running.identity import content, identified
from sparselab.weights.capabilities import ReadsFiles, ReadsInputs

if TYPE_CHECKING:
    from sparselab.training.parts import Parts

ENGINE_VERSION = 1  # raise it when the loop, the loader or the seeds change what a cell gives


def identify(config: dict[str, Any], parts: Parts) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two parts of an id: the config, and what the config does not say.

    Content decides, not where it lies. Files count by their bytes, methods and losses by their version.
    """
    identity = identified(config, Cell)
    identity["sparsity"] = str(parts.sparsity)
    if parts.own:  # a list: the order of selectors counts
        identity["targets"]["patterns"] = [[selector, str(pattern)] for selector, pattern in parts.own.items()]
    # Both limits are spent once the number of updates is known: ten epochs and as many updates are the same cell.
    for key in ("max_epochs", "max_steps"):
        identity["trainer"].pop(key)
    identity["trainer"]["updates"] = parts.steps
    files: dict[str, Any] = {}
    for option, paths in parts.family.files().items():
        files[f"model.{option}"] = [content(path, parts.dependencies, f"model.{option}") for path in paths]
        identity["model"].pop(option)
    if parts.parents:
        files["model.weights"] = [content(path, parts.dependencies, "model.weights") for path in parts.parents]
    if (masks := parts.cell.targets.masks) is not None:
        files["targets.masks"] = content(masks, parts.dependencies, "targets.masks")
        identity["targets"].pop("masks")
    for loss in parts.losses:
        for option, path in {**loss.files(), **loss.mask_files()}.items():
            key = f"loss.{loss.name}.{option}"
            files[key] = content(path, parts.dependencies, key)
            identity["loss"][loss.name].pop(option)
    for metric in parts.metrics:
        for option, path in metric.files().items():
            key = f"metric.{metric.name}.{option}"
            files[key] = content(path, parts.dependencies, key)
            identity["metric"][metric.name].pop(option)
    for option, path in parts.method.files().items() if isinstance(parts.method, ReadsFiles) else ():
        files[f"method.{option}"] = content(path, parts.dependencies, f"method.{option}")
        identity["method"].pop(option)
    _leave_out_usual(identity, parts)
    for option, paths in parts.dataset.files().items():
        key = f"dataset.{option}"
        files[key] = [content(path, parts.dependencies, key) for path in paths]
    for option in (*parts.dataset.places(), *parts.dataset.files()):
        _drop(identity["dataset"], option)
    extra = {
        "engine": ENGINE_VERSION,
        "method": parts.method.version,
        "losses": {loss.name: loss.version for loss in parts.losses},
        "data": parts.data.fingerprint,
        "files": files,
    }
    if parts.family.version > 1:
        extra["model"] = parts.family.version
    if parts.task.version > 1:
        extra["task"] = parts.task.version
    if isinstance(parts.method, ReadsInputs) and isinstance(parts.data.inputs, Sentences):
        extra["calibration"] = 3  # padding counted as tokens do; then for experts alone
    if (prox := parts.optim.prox) is not None and prox.version > 1:
        extra["prox"] = prox.version
    if parts.edit is not None:
        extra["edit"] = parts.edit.version
    if parts.adapt is not None:
        extra["adapt"] = parts.adapt.version
    if parts.scenario is not None:
        extra["scenario"] = [parts.scenario.version, *parts.ends]
    if parts.removal is not None:
        extra["removal"] = parts.removal.version
    if parts.search is not None:
        extra["search"] = parts.search.version
    if parts.merge is not None:
        extra["merge"] = parts.merge.version
    if parts.metrics:
        extra["metrics"] = {
            metric.name: [metric.version, *(dataset.spec().fingerprint for dataset in metric.datasets().values())]
            for metric in parts.metrics
        }
    return identity, extra


def _leave_out_usual(identity: dict[str, Any], parts: Parts) -> None:
    """The dataset's own task, with nothing said beyond its name, is no part of an id: whether named or not."""
    said = {"name": parts.task.name, **identity.pop("task", {})}
    if said != {"name": parts.dataset.task}:
        identity["task"] = said


def _drop(options: dict[str, Any], dotted: str) -> None:
    """Leave an option out; one inside another (``text.tokenizer``) may not have been said."""
    *path, leaf = dotted.split(".")
    for key in path:
        options = options[key]
    options.pop(leaf, None)
