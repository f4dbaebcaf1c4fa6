"""Gates for any level of sparsity, from what the dense network reads on calibration text where they need it."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn

from sparselab.inference.activation.frozen.gates import Gate, quantile, threshold, topk
from sparselab.inference.activation.frozen.masking import scores
from sparselab.inference.activation.frozen.sites import Block, Site
from sparselab.inference.activation.rule import InputRule, dense_tokens

SAMPLE = 1 << 20  # scores of a site that are kept to read quantiles from


class Gates:
    """``gates(site, level)``: the gate that sets ``level`` of the site's input entries to zero; None for level 0.

    With ``gate: threshold`` the dense network reads ``batches`` (each (n, t) int64) once, and a level means the quantile
    of the site's scores there.
    """

    def __init__(self, rule: InputRule, model: nn.Module, blocks: list[Block], batches: list[Tensor]):
        self.samples: dict[str, Tensor] = {}
        self.by_threshold = rule.options.gate == "threshold"
        if self.by_threshold:
            self._read(rule, model, [site for block in blocks for site in block.sites], batches)

    def __call__(self, site: Site, level: float) -> Gate | None:
        if not level:
            return None
        return threshold(quantile(self.samples[site.name], level)) if self.by_threshold else topk(level)

    @torch.no_grad()
    def _read(self, rule: InputRule, model: nn.Module, sites: list[Site], batches: list[Tensor]) -> None:
        parts: dict[str, list[Tensor]] = {site.name: [] for site in sites}
        windows = sum(len(batch) for batch in batches)
        handles = []
        for site in sites:
            factor = rule.factor(site)

            def look(module: nn.Module, args: tuple[Tensor, ...], site=site, factor=factor) -> None:
                x = args[0][..., dense_tokens(args[0].shape[-2], rule.options.dense_prefix) :, :]
                each = scores(x, factor).flatten(1)  # (windows, tokens x inputs)
                parts[site.name].append(each[:, :: stride(each.shape[1] * windows, x.shape[-1])].flatten())

            handles.append(site.module.register_forward_pre_hook(look))
        try:
            for batch in batches:
                model(input_ids=batch, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        self.samples = {name: torch.cat(found) for name, found in parts.items()}


def stride(entries: int, inputs: int) -> int:
    """Return every how many of ``entries`` scores one is kept, about ``SAMPLE`` in all.

    Of each window alike, however windows are cut into batches, and without a common divisor with ``inputs``, so that every
    input is met.
    """
    return coprime(max(-(-entries // SAMPLE), 1), inputs)


def coprime(step: int, inputs: int) -> int:
    """The least number from ``step`` on without a common divisor with ``inputs``."""
    while gcd(step, inputs) > 1:
        step += 1
    return step
