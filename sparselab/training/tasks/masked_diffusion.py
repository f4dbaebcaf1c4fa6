"""Masked diffusion of text: tokens hidden at a ratio that is drawn, and filled in from both sides [no torch at import]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.data_types import MaskedTokens, Tokens
from sparselab.core.options import Options
from sparselab.inputs.data.masking import IGNORE, hidden, mask_misfits, mask_of, masked_view
from sparselab.training.tasks.task import TASKS, Batch, Task
from sparselab.training.tasks.totals import totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from torchmetrics import Metric

    from sparselab.core.data_spec import DataSpec
    from sparselab.core.errors import Issue
    from sparselab.training.losses.context import StepContext


@TASKS.register("masked_diffusion")
class MaskedDiffusion(Task):
    """Cross-entropy of hidden tokens over the ratio at which they were hidden (LLaDA, arXiv 2502.09992, eq. 3).

    A ratio t in [``least``, 1] for each window, each of its tokens hidden with probability t; the loss is the sum over hidden
    tokens of their cross-entropy / t, over all tokens: a bound on the text's nats a token. Batches: inputs (n, t), targets
    (n, t) with -100 where nothing is hidden, ratios (n,), and (n, t) bool that is False where a token is padding.

    In training ratios and masks come from torch's generator, which is seeded for the batch; where a split is scored they hang
    on the window alone, so that every evaluation hides the same tokens. ``perplexity`` is the exponential of the bound.
    """

    class Options(Options):
        mask: int | None = Field(
            ge=0, description="the token that stands for a hidden one; null: one more than the data have"
        )
        least: float = Field(gt=0, lt=1, description="in (0, 1): the smallest ratio")
        ratios: Literal["independent", "spread"] = Field(
            description="independent: each window's own; spread: evenly over a batch, with one draw"
        )

    options: Options
    needs = (Tokens, MaskedTokens)
    headline = "perplexity"
    better = "lower"

    def __init__(self, options: Options):
        super().__init__(options)
        self._mask: int | None = options.mask

    def sees(self, data: DataSpec) -> DataSpec:
        seen = masked_view(data, self.options.mask)
        if seen.pair == self.needs:
            self._mask = mask_of(seen, self.options.mask)
        return seen

    def issues(self, data: DataSpec) -> list[Issue]:
        return super().issues(data) or mask_misfits(data, self.options.mask, "task.mask")

    def batch(self, batch: Batch) -> Batch:
        import torch

        tokens, present = batch[0], present_in(batch[1])
        n, device = len(tokens), tokens.device
        if self.options.ratios == "spread":
            even = (torch.arange(n, device=device) + torch.rand(1, device=device)) / max(n, 1)
        else:
            even = torch.rand(n, device=device)
        ratios = self.options.least + (1 - self.options.least) * even
        return self._hidden(tokens, present, ratios, torch.rand(tokens.shape, device=device))

    def scored(self, batch: Batch) -> Batch:
        import torch

        from sparselab.inputs.data.seeds import generator

        tokens, present = batch[0], present_in(batch[1])
        drawn = torch.zeros(len(tokens), tokens.shape[1] + 1)
        for row, window in zip(drawn, tokens.cpu().numpy(), strict=True):
            made = generator("masked", window.tobytes())
            row.copy_(torch.from_numpy(made.random(len(row))))
        drawn = drawn.to(tokens.device)
        ratios = self.options.least + (1 - self.options.least) * drawn[:, 0]
        return self._hidden(tokens, present, ratios, drawn[:, 1:])

    def _hidden(self, tokens: Tensor, present: Tensor, ratios: Tensor, drawn: Tensor) -> Batch:
        assert self._mask is not None
        return (*hidden(tokens, present, drawn < ratios[:, None], self._mask), ratios, present)

    def criterion(self, outputs: Tensor, batch: Batch, context: StepContext) -> Tensor:
        return weighted(nats_of(outputs, batch[1]), batch[2]).sum() / batch[3].sum()

    def counted(self, batch: Batch) -> Tensor | None:
        return batch[1] != IGNORE

    def present(self, batch: Batch) -> Tensor | None:
        return batch[3]

    def metrics(self, data: DataSpec) -> dict[str, Metric]:
        return {**totals("nats", "tokens", "hidden", "hits")}

    def score(self, metrics: Mapping[str, Metric], outputs: Tensor, batch: Batch, context: StepContext) -> None:
        targets = batch[1]
        metrics["nats"].update(weighted(nats_of(outputs, targets), batch[2]).double().sum())
        metrics["tokens"].update(batch[3].sum())
        metrics["hidden"].update((targets != IGNORE).sum())
        metrics["hits"].update((outputs.argmax(-1) == targets).sum())

    def numbers(self, values: Mapping[str, float], split: str, context: StepContext) -> dict[str, float]:
        nats, tokens = values["nats"], values["tokens"]
        mean = nats / tokens
        return {
            "loss": mean,
            "perplexity": math.exp(min(mean, 700.0)),
            "bits_per_byte": nats / math.log(2) / (tokens * context.bytes_per_token[split]),
            "accuracy": values["hits"] / max(values["hidden"], 1.0),
            "n": tokens,
        }

    @classmethod
    def lines(cls, metrics: Mapping[str, float]) -> list[tuple[str, str]]:
        bits = f"{metrics['test.bits_per_byte']:.4f} bits per byte, n = {metrics.get('test.n', 0):,.0f} tokens"
        right = f"{100 * metrics['test.accuracy']:.2f} % of hidden tokens right"
        return [("test perplexity", f"at most {metrics['test.perplexity']:.4g} ({bits}, {right})")]


def present_in(following: Tensor) -> Tensor:
    """Tell which tokens of windows are there.

    Args:
        following: (n, t) int64, the token after each; -100 past the end of the text

    Returns:
        (n, t) bool: a window's first token, and every one that follows another.
    """
    import torch

    first = torch.ones_like(following[:, :1], dtype=torch.bool)
    return torch.cat((first, following[:, :-1] != IGNORE), 1)


def nats_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropies of hidden tokens.

    Args:
        outputs: (n, t, vocabulary)
        targets: (n, t) int64, -100 where nothing is hidden

    Returns:
        (n, t) float32, 0 where nothing is hidden.
    """
    from torch.nn import functional as F

    flat = F.cross_entropy(outputs.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
    return flat.view(targets.shape)


def weighted(nats: Tensor, ratios: Tensor) -> Tensor:
    """Divide by the ratio at which a window's tokens were hidden. nats: (n, t); ratios: (n,). Returns (n, t)."""
    return nats / ratios[:, None]
