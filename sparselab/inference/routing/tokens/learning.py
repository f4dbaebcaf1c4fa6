"""Trains the router of FTP beside a frozen network, and repeats the search for the shares with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparselab.core.errors import RunFailed
from sparselab.core.seeds import derive_seed
from sparselab.inference.routing.rule import kept_count
from sparselab.inference.routing.tokens.decider import static_keep
from sparselab.inference.routing.tokens.frozen import Frozen, Routes, routes
from sparselab.inference.routing.tokens.routed import Routed
from sparselab.inference.routing.tokens.router import Learned, make_router
from sparselab.inference.routing.tokens.shares import allocated, searched

if TYPE_CHECKING:
    from sparselab.inference.routing.ftp import FTP
    from sparselab.inference.routing.tokens.trunk import Trunk


def prepare(rule: FTP, frozen: Frozen) -> Routes:
    """Allocate with the static router, train the router, allocate again with it (steps 1 to 3 of the paper)."""
    o = rule.options
    shares = allocated(rule, frozen)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("router", frozen.seed))
        hidden = width_of(frozen.trunk) if "hidden" in o.inputs else 0
        router = make_router(o.inputs, hidden, o.width)
    router.to(next(frozen.trunk.model.parameters()).device)
    measures = {"router_parameters": float(sum(p.numel() for p in router.parameters()))}
    measures |= learn(rule, frozen, router, shares)
    exact = o.select == "topk"
    if o.refine and o.shares is None and o.allocation == "genetic":
        start = [tuple(shares)]
        shares = list(
            searched(
                rule, frozen, start, lambda some: Learned(rule, router, some, o.score_from, exact), o.refine, "router"
            )
        )
    ends = Learned(rule, router, shares, o.score_from, exact)
    everywhere = None if o.score_from == "causal" else Learned(rule, router, shares, "causal", False)
    return routes(frozen.trunk, ends, shares, everywhere, measures)


def learn(rule: FTP, frozen: Frozen, router: nn.Module, shares: Sequence[float]) -> dict[str, float]:
    """Train a router; the network stays as it is.

    Args:
        rule: of which the options count
        frozen: the network
        router: changed in place
        shares: s_i of each block

    Returns:
        The losses of the last tenth of the updates, by name.
    """
    o = rule.options
    optimiser = torch.optim.AdamW(router.parameters(), lr=o.lr)
    seen: list[dict[str, float]] = []
    for step in range(o.steps):
        frozen.check("between two updates of the router")
        tokens, _ = frozen.drawn("router", step)
        wanted = outputs(frozen.trunk, tokens)
        decider = Learned(rule, router, shares, o.score_from, False, watch=True)
        with torch.enable_grad(), Routed(frozen.trunk, decider):
            got = outputs(frozen.trunk, tokens)
            parts = losses(decider.watched or {}, shares, got, wanted, o.distill_at == "last")
            weight = {"guide": o.guide * (1 - step / o.steps), "sparsity": o.sparsity_loss, "distill": o.distill}
            total = sum((weight[name] * part for name, part in parts.items()), torch.zeros((), device=tokens.device))
        if not torch.isfinite(total):
            raise RunFailed(f"routing={rule.name}: the router's loss is {float(total)} — write a smaller routing.lr")
        if total.requires_grad:  # not where no block has a router
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
        seen.append({name: float(part) for name, part in parts.items()})
    router.requires_grad_(False)
    end = seen[-max(o.steps // 10, 1) :]
    return {f"{name}_loss": sum(one[name] for one in end) / len(end) for name in end[0]} if end else {}


def losses(
    stays: dict[int, Tensor],
    shares: Sequence[float],
    got: tuple[Tensor, Tensor],
    wanted: tuple[Tensor, Tensor],
    last: bool,
) -> dict[str, Tensor]:
    """Compute the three losses of a pass.

    Args:
        stays: (n, t) probability of staying, by block
        shares: s_i of each block
        got: (n, t, width) last hidden state and (n, t, vocabulary) logits of the routed network
        wanted: the same of the whole network
        last: True: outputs are compared at the last position only

    Returns:
        guide: binary cross-entropy against the static router, a mean over blocks and tokens. sparsity: sum over blocks of
            max(s_i - mean probability of skipping, 0). distill: mean squared error of the hidden state, and the
            Kullback-Leibler divergence of the next token at temperature 1.
    """
    zero = got[0].new_zeros(())
    guides, missing = [], zero
    for block, p in stays.items():
        t = p.shape[-1]
        static = static_keep(t, kept_count(t, shares[block]), p.device).to(p.dtype).expand_as(p)
        guides.append(F.binary_cross_entropy(p.clamp(1e-6, 1 - 1e-6), static))
        missing = missing + (shares[block] - (1 - p).mean()).clamp(min=0)
    if last:
        got, wanted = (got[0][:, -1:], got[1][:, -1:]), (wanted[0][:, -1:], wanted[1][:, -1:])
    target, found = wanted[1].log_softmax(-1).flatten(0, 1), got[1].log_softmax(-1).flatten(0, 1)
    divergence = F.kl_div(found, target, reduction="batchmean", log_target=True)
    return {
        "guide": torch.stack(guides).mean() if guides else zero,
        "sparsity": missing,
        "distill": F.mse_loss(got[0], wanted[0]) + divergence,
    }


def outputs(trunk: Trunk, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Read windows.

    Args:
        trunk: the network
        tokens: (n, t) int64

    Returns:
        (n, t, width) what the norm after the last block puts out, or that block where there is none, and
        (n, t, vocabulary) logits, both float32.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    handle = (trunk.norm or trunk.blocks[-1]).register_forward_hook(keep)
    try:
        logits = trunk.logits(tokens)
    finally:
        handle.remove()
    return kept[0].float(), logits.float()


def width_of(trunk: Trunk) -> int:
    """The width of the hidden state."""
    return int(trunk.model.config.hidden_size)  # type: ignore[union-attr, arg-type]
