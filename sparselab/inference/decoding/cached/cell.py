"""The numbers of a cell that writes texts: beside the same network without its rules."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from sparselab.core.errors import RunFailed
from sparselab.inference.count import density, saved
from sparselab.inference.decoding.cached.reader import Passes, Rules
from sparselab.inference.decoding.cached.writing import write_all
from sparselab.inference.decoding.loop import Loop, Text
from sparselab.inference.decoding.plain import Plain
from sparselab.inputs.data.prompts import Prompt

if TYPE_CHECKING:
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.parts import Activations


@dataclass(frozen=True)
class Reference:
    """The texts of the network without rules, one token after another, and their nats under it."""

    texts: list[Text]
    nats: float


def check_room(prompts: Sequence[Prompt], loop: Loop, longest: int | None) -> None:
    """RunFailed where a prompt and what follows it are longer than the network reads."""
    most = max(len(prompt.tokens) for prompt in prompts)
    whole = most + loop.options.tokens + loop.ahead
    if longest is not None and whole > longest:
        problem = (
            f"a prompt of {most:,} tokens with what follows has {whole:,}, and the network reads at most {longest:,}"
        )
        raise RunFailed(f"decoding.tokens={loop.options.tokens}: {problem} — write fewer, or other prompts")


@torch.no_grad()
def reference(
    loop: Loop, model: nn.Module, prompts: list[Prompt], seed: int, check: Callable[[str], None]
) -> Reference:
    """Write the texts of the network without rules: as many tokens, chosen alike."""
    options = Plain.Options(**{key: getattr(loop.options, key) for key in Plain.Options.model_fields if key != "name"})
    texts, _ = write_all(Plain(options), model, Rules(), prompts, seed, check)
    return Reference(texts, nats(model, prompts, texts))


@torch.no_grad()
def nats(model: nn.Module, prompts: Sequence[Prompt], texts: Sequence[Text]) -> float:
    """The sum of the cross-entropies of all written tokens under the network as it is at the moment.

    Raises:
        RunFailed: it is not finite.
    """
    total = 0.0
    device = next(model.parameters()).device
    for prompt, text in zip(prompts, texts, strict=True):
        written = torch.tensor(text.tokens, device=device)
        whole = torch.cat((prompt.tokens.to(device), written))
        logits = model(input_ids=whole[None, :-1], use_cache=False).logits[0, len(prompt.tokens) - 1 :].float()
        total += float(F.cross_entropy(logits, written, reduction="sum").double())
    if not math.isfinite(total):
        raise RunFailed(f"the cross-entropy of the texts is {total} — the network's output is not finite")
    return total


def agreement(a: Sequence[int], b: Sequence[int]) -> tuple[int, int, int]:
    """(places at which two texts have the same token, places before the first at which they differ, places of the longer)."""
    same = [x == y for x, y in zip(a, b, strict=False)]
    first = same.index(False) if False in same else len(same)
    return sum(same), first, max(len(a), len(b))


def scores(
    texts: Sequence[Text],
    total: float,
    dense: Reference,
    right: Sequence[bool | None],
    dense_right: Sequence[bool | None],
) -> dict[str, float]:
    """Metrics of texts beside those of the network without rules.

    Args:
        texts: what was written
        total: their nats under the network without rules
        dense: its own texts
        right: of every text, True where its answer is; None where no answer can be right
        dense_right: the same of its own

    Returns:
        By the name that a table reads.
    """
    n, dense_n = (sum(len(text.tokens) for text in some) for some in (texts, dense.texts))
    pairs = [agreement(a.tokens, b.tokens) for a, b in zip(texts, dense.texts, strict=True)]
    same, before, places = (sum(column) for column in zip(*pairs, strict=True))
    found = {
        "test.agreement": same / places,
        "test.agreement_before": before / places,
        "test.identical": sum(pair[0] == pair[2] for pair in pairs) / len(pairs),
        "test.loss": total / n,
        "test.dense_loss": dense.nats / dense_n,
        "test.loss_rise": total / n - dense.nats / dense_n,
        "test.perplexity": math.exp(min(total / n, 700.0)),
        "test.dense_perplexity": math.exp(min(dense.nats / dense_n, 700.0)),
        "test.n": float(n),
        "test.texts": float(len(texts)),
    }
    if any(one is not None for one in right):
        found["test.exact_match"] = sum(map(bool, right)) / len(right)
        found["test.dense_exact_match"] = sum(map(bool, dense_right)) / len(dense_right)
    return found


def judged(dataset: Any, prompts: Sequence[Prompt], texts: Sequence[Text]) -> list[bool | None]:
    """True where a text gives the right answer, False where it does not, None where none can be right."""
    tokenizer = dataset.tokenizer()
    return [
        None if prompt.answer is None else dataset.answer(tokenizer.spelled(text.tokens)) == prompt.answer
        for prompt, text in zip(prompts, texts, strict=True)
    ]


def counted_texts(
    loop: Loop, texts: Sequence[Text], passes: Passes, model_spec: ModelSpec, active: Activations | None, masking: Any,
    block: int,
) -> tuple[dict[str, Any], dict[str, float]]:  # fmt: skip
    """(the account of a written token, what the loop and the rules cost as metrics).

    Multiply-accumulates are those of all tokens read after the prompts, whatever became of them, for each token written after
    the first, which the prompt gives.
    """
    share = density(model_spec, active, masking)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.counts)
    metrics = {f"test.{name}": value for name, value in loop.metrics(counts, share).items()}
    metrics["test.density"] = share
    written = max(sum(len(text.tokens) - 1 for text in texts), 1)
    macs = model_spec.macs / block
    read = passes.dense * macs + passes.sparse * (macs - saved(active, masking))
    cost = {
        "params": model_spec.params,
        "params_nonzero": model_spec.params,
        "macs_dense": round(macs),
        "macs": round(read / written),
    }
    return cost, metrics
