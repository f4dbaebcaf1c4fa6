"""How many experts of its mixtures a network uses, for a token and for several tokens together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from sparselab.core.data_types import NextTokens, Tokens
from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.training.metrics.metric import METRICS, Metric, Subject
from sparselab.training.tasks.language_modeling import IGNORE

if TYPE_CHECKING:
    from torch import Tensor

    from sparselab.core.data_spec import DataSpec


class ExpertSparsityOptions(Options):
    """Options of the sparsity of experts."""

    windows: list[Annotated[int, Field(ge=1)]] = Field(
        min_length=1, description="tokens of a chunk, each a divisor of the window of text"
    )


@METRICS.register("expert_sparsity")
class ExpertSparsity(Metric):
    """``tls`` and ``cls_L``: 1 less the share of experts that a token, or a chunk of L tokens, uses (arXiv 2507.08771).

    An expert is used where its gate is not 0. Chunks follow each other in a window of text; means are over chunks and layers.
    ``reuse`` is the mean share of a token's experts that the next one in the window uses, too, over tokens with any;
    ``no_expert`` the share of tokens without. ``expert_macs``: multiply-accumulates of experts for a window, those alone that
    tokens use, by weights that are not 0; ``expert_macs_share``: their share of all.
    """

    needs = (Tokens, NextTokens)
    needs_given = "routing"

    Options: ClassVar[type[Options]] = ExpertSparsityOptions

    def issues(self, data: DataSpec) -> list[Issue]:
        found = super().issues(data)
        for length in self.options.windows if not found else ():
            where = f"metric.{self.name}.windows=[{length}]"
            if length > data.inputs.length:
                problem = f"a window of {data.name} has {data.inputs.length} tokens"
                found.append(Issue(where, problem, f"write at most {data.inputs.length}"))
            elif data.inputs.length % length:
                problem = f"does not divide {data.name}'s window of {data.inputs.length} tokens"
                found.append(Issue(where, problem, "choose a divisor of it"))
        return found

    def measure(self, subject: Subject) -> dict[str, float]:
        import torch

        from sparselab.inputs.models.feature_recorder import FeatureRecorder
        from sparselab.inputs.models.mixture import mixtures
        from sparselab.training.metrics.torch_side.sums import Sums

        layers = mixtures(subject.network)
        recorder = FeatureRecorder([layer.router for layer in layers])
        windows, experts = self.options.windows, layers[0].experts
        counts = Sums(4 + 2 * len(windows)), Sums(len(layers) * experts)
        with torch.no_grad(), recorder:
            for inputs, targets in subject.batches():
                subject.logits(inputs)
                there = targets != IGNORE
                used = torch.stack([gates != 0 for gates in recorder.take().blocks]) & there.unsqueeze(-1)
                for count, values in zip(
                    counts, (chunks(used, there, windows), used.sum((1, 2)).flatten()), strict=True
                ):
                    count.to(values.device).update(values)
        pairs, reuse, none, all_tokens, *rest = counts[0].compute().tolist()
        sparsities = [1 - active / total for active, total in zip(rest[::2], rest[1::2], strict=True)]
        rates = counts[1].compute().view(len(layers), experts) / (all_tokens / len(layers))
        macs = sum(float((rate.cpu() * layer.sizes().cpu()).sum()) for rate, layer in zip(rates, layers, strict=True))
        whole = sum(layer.down_proj.weight.numel() * (2 + (layer.gate_proj is not None)) for layer in layers)
        return {
            "tls": 1 - float(rates.mean()),
            **{f"cls_{length}": value for length, value in zip(windows, sparsities, strict=True)},
            "reuse": reuse / max(pairs, 1),
            "no_expert": none / all_tokens,
            "expert_macs": macs * subject.data.inputs.length,
            "expert_macs_share": macs / whole,
        }


def chunks(used: Tensor, there: Tensor, windows: list[int]) -> Tensor:
    """Count experts that tokens use together.

    Args:
        used: (layers, n, t, experts) bool: the expert is active for the token
        there: (n, t) bool: the token counts; a chunk does where all of its tokens do
        windows: tokens of a chunk; what is left of t after the last whole chunk does not count

    Returns:
        (4 + 2 windows,) float64: pairs of neighbouring tokens of which the first has an expert, the sum over them of the share
        of its experts that the second has; tokens without an expert, tokens; then for each window the sum over chunks of
        experts that are used, and of all. Every layer counts by itself.
    """
    import torch

    layers, experts = used.shape[0], used.shape[-1]
    sizes = used.sum(-1).double()
    paired = (sizes[:, :, :-1] > 0) & there[:, 1:]
    common = (used[:, :, :-1] & used[:, :, 1:]).sum(-1).double() / sizes[:, :, :-1].clamp(min=1)
    none = (sizes == 0) & there
    found = [paired.sum(), common[paired].sum(), none.sum(), there.sum() * layers]
    for length in windows:
        whole = used.shape[2] // length * length
        counted = there[:, :whole].unflatten(1, (-1, length)).all(2)
        together = used[:, :, :whole].unflatten(2, (-1, length)).any(3)
        found += [(together & counted.unsqueeze(-1)).sum(), counted.sum() * layers * experts]
    return torch.stack([value.double() for value in found])
