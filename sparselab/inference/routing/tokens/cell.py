"""The numbers of a cell whose tokens are routed: of what follows whole windows, and of every position."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.inference.routing.tokens.frozen import Frozen, Routes
from sparselab.inference.routing.tokens.ledger import Ledger, saving
from sparselab.inference.routing.tokens.routed import check_applies
from sparselab.inference.score import Score, checked

if TYPE_CHECKING:
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.parts import Parts
    from sparselab.inference.routing.tokens.trunk import Trunk

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Scores:
    """Scores of the same windows: at every position, and of the token after each window."""

    every: Score
    last: Score


@dataclass(frozen=True)
class Measured:
    """Scores with tokens routed, and where the tokens went in the passes for the last position and for the others."""

    under: Scores
    ends: Ledger
    everywhere: Ledger
    routes: Routes


@torch.no_grad()
def score_windows(logits_of: Callable[[Tensor], Tensor], batches: Iterable[Batch]) -> Scores:
    """Score a language model on windows of text.

    Args:
        logits_of: (n, t) int64 tokens to (n, t, vocabulary) float
        batches: (inputs, targets), each (n, t) int64

    Returns:
        Sums over all predicted tokens, and over those after a window.

    Raises:
        RunFailed: the loss is not finite.
    """
    every, last = [0.0, 0, 0], [0.0, 0, 0]
    for tokens, targets in batches:
        logits = logits_of(tokens).float()
        for sums, values, right in ((every, logits, targets), (last, logits[:, -1:], targets[:, -1:])):
            flat, wanted = values.flatten(0, 1), right.flatten()
            sums[0] += float(F.cross_entropy(flat, wanted, reduction="sum").double())
            sums[1] += int((flat.argmax(-1) == wanted).sum())
            sums[2] += wanted.numel()
    return Scores(*(checked(Score(nats, float(hits), int(n))) for nats, hits, n in (every, last)))


def measure(parts: Parts, frozen: Frozen, windows: Callable[[], Iterable[Batch]], first: Tensor) -> Measured:
    """Prepare the rule and score the network with tokens routed.

    Args:
        parts: of the cell
        frozen: the network
        windows: to batches of test windows, anew at each call
        first: (n, t) int64, a window to try the network on
    """
    rule: Any = parts.routing
    check_applies(frozen.trunk, f"routing={rule.name}", first)
    routes: Routes = rule.prepare(frozen)
    with routes.at_end() as applied:
        ends = score_windows(applied.logits, windows())
        ledger = applied.ledger
    if routes.everywhere is None:
        return Measured(ends, ledger, ledger, routes)
    with routes.everywhere() as applied:
        every = score_windows(applied.logits, windows())
        return Measured(Scores(every.every, ends.last), ledger, applied.ledger, routes)


def metrics_of(measured: Measured, dense: Scores, model_spec: ModelSpec, trunk: Trunk) -> dict[str, float]:
    """Metrics beside those of every position, by the name that a table reads.

    Args:
        measured: the network with tokens routed
        dense: scores of the network as it is, on the same windows
        model_spec: of the network
        trunk: the network
    """
    under, before = measured.under.last, dense.last
    skipped, cost = measured.ends.skipped(), saving(model_spec, trunk, measured.ends)
    depth = trunk.depth
    ends = [skipped[0], skipped[-1]]
    middle = skipped[1:-1] or skipped
    return {
        "test.last_accuracy": under.accuracy,
        "test.dense_last_accuracy": before.accuracy,
        **({"test.retention": under.accuracy / before.accuracy} if before.hits else {}),  # of nothing, nothing stays
        "test.last_loss": under.loss,
        "test.dense_last_loss": before.loss,
        "test.last_loss_rise": under.loss - before.loss,
        "test.contexts": float(under.n),
        "routing.sparsity": sum(skipped) / depth,
        "routing.everywhere_sparsity": sum(measured.everywhere.skipped()) / depth,
        "routing.mac_ratio": cost.routed / cost.dense,
        "routing.layer_ratio": cost.gone / cost.held,
        "routing.ends": sum(ends) / len(ends),
        "routing.middle": sum(middle) / len(middle),
        "routing.middle_over_ends": sum(middle) / len(middle) - sum(ends) / len(ends),
        **{f"routing.{name}": value for name, value in measured.routes.measures.items()},
    }


def account(measured: Measured, model_spec: ModelSpec, trunk: Trunk) -> dict[str, Any]:
    """Cost a window, with tokens routed."""
    cost = saving(model_spec, trunk, measured.ends)
    return {
        "params": model_spec.params,
        "params_nonzero": model_spec.params - cost.gone,
        "macs_dense": model_spec.macs,
        "macs": round(model_spec.macs - cost.dense + cost.routed),
    }


def realised(measured: Measured, trunk: Trunk, target: float | None) -> dict[str, Any]:
    """Return the sparsity asked for, and the share of the tokens that skipped each block."""
    skipped = measured.ends.skipped()
    return {
        "requested": f"{target:g}" if target else "of its own",
        "realised": sum(skipped) / len(skipped),
        "layers": [
            {"name": path, "level": share, "realised": went}
            for path, share, went in zip(trunk.paths, measured.routes.shares, skipped, strict=True)
        ],
    }
