"""A training cell in words: before it runs and after [no torch]."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from sparselab.training.tasks.task import TASKS
from sparselab.weights.uncovered import line, spelled

if TYPE_CHECKING:
    from sparselab.running.engine import Plan
    from sparselab.training.parts import Parts


def facts(plan: Plan, precision: str) -> list[tuple[str, str]]:
    """(label, text) lines about a plan, with ``precision`` as it is to be printed."""
    parts, cost = plan.parts, plan.cost
    data = parts.data
    out = [
        ("method", f"{parts.method.name} · sparsity {parts.asked} · schedule {parts.schedule.name}"
                   f" · distribution {parts.distribution.name}"),
        ("data", f"{data.title or data.name}: {data.sizes} ({data.source})"),
        *([("adapt", _adapted(parts))] if parts.adapt else []),
        *([("scenario", _divided(parts))] if parts.scenario else []),
        *([("removal", _shortened(parts))] if parts.removal else []),
        *([("search", f"{parts.search.name} on the {data.val:,} validation examples")] if parts.search else []),
        ("task", f"{parts.task.name} ({data.inputs} → {data.targets})"),
        ("updates", f"{plan.steps:,} of {parts.cell.trainer.batch_size} examples"),
        ("precision", precision),
    ]  # fmt: skip
    if cost:
        kept = cost["params_nonzero"]
        out.append(("parameters", f"{cost['params']:,} → {kept:,} nonzero, {len(parts.layers)} sparse layers"))
        out += _uncovered([vars(one) for one in parts.uncovered])
        out.append(("MACs", f"{cost['macs_dense']:,} → {cost['macs']:,} per sample"))
        out += _equal_cost(cost)
        if cost["flops_train_dense"]:  # not where nothing is trained
            times = cost["flops_train"] / cost["flops_train_dense"]
            out.append(("training FLOPs", f"{cost['flops_train']:.3e} ({times:.3f}x dense{of_losses(cost)})"))
    return out


def _adapted(parts: Parts) -> str:
    """The part of the network that trains, and the data that it was made for."""
    assert parts.adapt is not None
    data, rest = parts.network_data, "the rest is frozen" if parts.adapt.freezes else "all of it trains"
    return f"{parts.adapt.name}: a network for {data.inputs} → {data.targets}, {rest}"


def _divided(parts: Parts) -> str:
    """The tasks of a scenario, and how long each is."""
    assert parts.scenario is not None
    lengths = sorted({end - begin for begin, end in zip(parts.begins, parts.ends, strict=True)})
    each = " to ".join(f"{length:,}" for length in {lengths[0]: 0, lengths[-1]: 0})
    return f"{parts.scenario.name}: {len(parts.ends)} tasks of {each} updates"


def _shortened(parts: Parts) -> str:
    """The examples that a removal takes away, and when."""
    assert parts.removal is not None
    options, times = parts.removal.options, parts.removal.times
    return f"{parts.removal.name}: {options.share:g} of the examples, in {times} steps up to epoch {options.until}"


def of_losses(cost: dict[str, Any]) -> str:
    """Return what extra losses compute beside: ``, extra losses 0.333x``; empty where that is nothing."""
    share = cost.get("flops_teacher", 0) / cost["flops_train_dense"]
    return f", extra losses {share:.3f}x" if share else ""


def summary(record: dict[str, Any]) -> list[tuple[str, str]]:
    """(label, text) of what a researcher can quote of a finished cell."""
    metrics, sparse, cost = record["metrics"], record["sparsity"], record["account"]
    rows: list[tuple[str, str]] = []
    told = record.get("task")
    names = [told] if told else [name for name in TASKS if f"test.{TASKS[name].headline}" in metrics]  # older records
    for name in names[:1]:
        rows += TASKS[name].lines(metrics)
    if sparse["weights"]:
        holds = "every group holds" if sparse["pattern_holds"] else "PATTERN BROKEN"
        what = (
            f"{holds}, {len(sparse['layers'])} layers"
            if ":" in sparse["requested"]
            else f"{len(sparse['layers'])} layers"
        )
        rows.append(
            ("sparsity", f"{sparse['requested']} → {sparse['realised']:.6g} of {sparse['weights']:,} weights ({what})")
        )
    else:
        rows.append(("sparsity", "dense"))
    rows += _uncovered(sparse.get("uncovered", []))
    rows.append(("parameters", f"{cost['params_nonzero']:,} nonzero of {cost['params']:,}"))
    ratio = cost["macs"] / cost["macs_dense"]
    rows.append(("MACs", f"{cost['macs_dense']:,} → {cost['macs']:,} ({ratio:.3f}x) per sample"))
    rows += _equal_cost(cost)
    if cost["flops_train_dense"]:
        times = cost["flops_train"] / cost["flops_train_dense"]
        rows.append(("training FLOPs", f"{times:.3f}x dense{of_losses(cost)}"))
    rows.append(("precision", str(record["config"]["trainer"]["precision"])))
    return rows


def _uncovered(loose: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Parameters of a sparse network that no mask can be put on; a dict with name and shape for each."""
    if not loose:
        return []
    weights = sum(prod(one["shape"]) for one in loose)
    return [("dense besides", line(spelled([one["name"] for one in loose]), weights, len(loose)))]


def _equal_cost(cost: dict[str, Any]) -> list[tuple[str, str]]:
    """For a transformed network: what it costs against the dense one whose place it takes."""
    plain = cost.get("macs_plain")
    if plain is None:
        return []
    return [("equal cost", f"{cost['macs'] / plain:.5f}x the {plain:,} MACs of the network it replaces")]
