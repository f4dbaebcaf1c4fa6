"""Multiply-accumulates of a network under rules on its activations and its attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sparselab.inference.activation.frozen.allocate import effective

if TYPE_CHECKING:
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.activation.frozen.masking import Masking
    from sparselab.inference.activation.frozen.sites import Place
    from sparselab.inference.attention.tiled.tiles import Ledger
    from sparselab.inference.parts import Activations, Parts


def macs_per_token(model_spec: ModelSpec, sparsity: float) -> float:
    """(1 - s) of the linear layers' weights, and the head's: the paper's FLOPs (arXiv 2505.19427, table 5).

    Products of attention, norms and what a rotation adds are not in it.
    """
    rows = {layer.name: layer for layer in model_spec.layers}
    head = sum(layer.numel for layer in rows.values() if "head" in layer.roles)
    linear = sum(layer.numel for layer in rows.values() if not layer.roles & {"head", "embedding"})
    return (1 - sparsity) * linear + head


def active_share(model_spec: ModelSpec, active: Activations | None, masking: Masking | None) -> float:
    """The share of the linear layers' weights, those of the head apart, that a token under the rule needs."""
    if active is None or masking is None:
        return 1.0
    linear = sum(layer.numel for layer in model_spec.layers if not layer.roles & {"head", "embedding"})
    return 1 - saved(active, masking) / linear


def density(model_spec: ModelSpec, active: Activations | None, masking: Masking | None) -> float:
    """The share of all parameters, embeddings and head included, that a token under the rule needs."""
    return 1 - saved(active, masking) / model_spec.params


def saved(active: Activations | None, masking: Masking | None) -> float:
    """Weights that a token under the rule does without, on average."""
    if active is None or masking is None:
        return 0.0
    return sum(place.params * masking.counts[place.name].gated_sparsity for place in active.places)


def mean(places: Sequence[Place], of: Callable[[Place], float]) -> float:
    """The mean over places, weighted by their parameters."""
    return sum(of(place) * place.params for place in places) / sum(place.params for place in places)


def counted(
    model_spec: ModelSpec, active: Activations | None, masking: Masking | None, ledger: Ledger | None, block: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """(the account of one window, the sparsities as metrics).

    Of a zero input entry the layer saves one multiplication for each output. Of a skipped tile attention saves the
    product with the values, and that with the keys where its rule does not look at it (:attr:`Rule.saves
    <sparselab.inference.attention.rule.Rule.saves>`).
    """
    macs, metrics = float(model_spec.macs), {}
    if active is not None and masking is not None:
        counts = masking.counts
        metrics["activation.sparsity"] = mean(active.places, lambda place: counts[place.name].sparsity)
        metrics["activation.gated_sparsity"] = mean(active.places, lambda place: counts[place.name].gated_sparsity)
        for kind in {place.kind for place in active.places}:
            of_kind = [place for place in active.places if place.kind == kind]
            metrics[f"activation.{kind}_sparsity"] = mean(of_kind, lambda place: counts[place.name].gated_sparsity)
        metrics |= {f"activation.{name}": value for name, value in active.measures.items()}
        if active.spreads:
            metrics["activation.least_spread"] = min(active.spreads.values())
        macs -= sum(place.params * counts[place.name].sparsity * block for place in active.places)
    if ledger is not None:
        share = metrics["attention.sparsity"] = ledger.sparsity()
        for phase in {phase for _, phase in ledger.tallies}:
            metrics[f"attention.{phase}_sparsity"] = ledger.sparsity(phase)
        macs -= sum(model_spec.fixed_macs.values()) * share * ledger.saves
    cost = {
        "params": model_spec.params,
        "params_nonzero": model_spec.params,
        "macs_dense": model_spec.macs,
        "macs": round(macs),
        "macs_rotation": 0 if active is None else active.rotation_macs * block,
    }
    return cost, metrics


def realised(
    parts: Parts, active: Activations | None, masking: Masking | None, ledger: Ledger | None
) -> dict[str, Any]:
    """Return the sparsity asked for and the share really zero or skipped, by site (by layer)."""
    asked = (
        parts.activation.asks(parts.target) if parts.activation else f"{parts.target:g}" if parts.target else "dense"
    )
    out: dict[str, Any] = {"requested": asked, "realised": 0.0}
    if active is not None and masking is not None:
        counts = masking.counts
        out["realised"] = effective(active.places, {name: count.gated_sparsity for name, count in counts.items()})
        out["layers"] = [
            {"name": place.name, "inputs": place.inputs, "outputs": place.outputs, "level": active.levels[place.name],
             "realised": counts[place.name].gated_sparsity, "of_all_tokens": counts[place.name].sparsity}
            | ({"spread": active.spreads[place.name]} if place.name in active.spreads else {})
            for place in active.places
        ]  # fmt: skip
    elif ledger is not None:
        out["realised"] = ledger.sparsity()
        out["limits"] = getattr(parts.attention, "limits", {})  # ln(lambda), or ln(a), by phase
        out["layers"] = [
            {"name": f"layer {layer}, {phase}", "realised": tally.sparsity, "tiles": int(tally.valid)}
            for (layer, phase), tally in sorted(ledger.tallies.items())
        ]
    return out
