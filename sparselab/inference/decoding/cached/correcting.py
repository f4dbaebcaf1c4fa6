"""The loop of Sirius (arXiv 2409.03856): draft, check, roll back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparselab.inference.decoding.loop import Text

if TYPE_CHECKING:
    from sparselab.inference.decoding.cached.writing import Writing
    from sparselab.inference.decoding.sirius import Sirius


def write(writing: Writing, options: Sirius.Options) -> Text:
    """Write on from a prompt in periods; the last one may be longer than the text, and is cut."""
    reader, counts = writing.reader, Counter[str]()
    reader.rules.share(options.shared_mask)
    tokens, before = [writing.begin()], len(writing.prompt)
    pending = tokens[:]  # written, and not in the cache yet
    while not writing.over(tokens):
        chunk = draft(writing, options, tokens, pending)
        logits = check(writing, options, chunk)
        kept = accepted(logits[:, :-1] / options.likelihood_temperature, chunk[:, 1:], options.threshold).tolist()
        a, drafted = max(kept), chunk.shape[1] - 1
        best = kept.index(a)
        following = writing.choose(logits[best, a], len(tokens) + a)
        fresh = [*chunk[best, 1 : a + 1].tolist(), following]
        reader.branch([best])
        reader.forget(max(reader.length - before - (len(tokens) + a), 0))
        kind = "whole" if drafted == options.period - 1 else "short"
        counts.update({f"{kind}_checks": 1, f"{kind}_advanced": a + 1, f"{kind}_drafted": drafted})
        counts.update({"corrections": int(a < drafted), "rejected": drafted - a})
        tokens += fresh
        pending = tokens[reader.length - before :]
    reader.rules.share(False)
    return Text(tokens[: writing.options.tokens], counts)


def draft(writing: Writing, options: Sirius.Options, tokens: list[int], pending: list[int]) -> Tensor:
    """Draft the rest of a period in branches, under the rules.

    Args:
        writing: whose reader has read everything but ``pending``, in one branch; afterwards everything but the last token
            of each branch
        options: of the loop
        tokens: what is written
        pending: the last of them

    Returns:
        (branches, t) int64 with the last written token first; t is less than the period where all branches would end.
    """
    reader = writing.reader
    chunk, ranks = torch.tensor([[tokens[-1]]], device=reader.device), [0.0]
    unread = torch.tensor([pending], device=reader.device)
    while chunk.shape[1] < options.period:
        logits = reader.read(unread)[:, -1]
        if options.temperature:
            token = writing.choose(logits[0], len(tokens) + chunk.shape[1] - 1)
            found = [] if token in writing.ends else [(0.0, 0, token)]
        else:
            scaled = (logits / options.likelihood_temperature).log_softmax(-1)
            found = extended(scaled, ranks, options.width, options.branch_stop, writing.ends)
        if not found:  # all want to end: the dense network is asked at once
            break
        rows = [row for _, row, _ in found]
        ranks = [rank for rank, _, _ in found]
        unread = torch.tensor([[token] for _, _, token in found], device=reader.device)
        if rows != list(range(len(chunk))):
            reader.branch(rows)
        chunk = torch.cat((chunk[rows], unread), 1)
    else:
        return chunk
    reader.forget(1)  # what would have ended was asked for behind the last token, which a check reads again
    return chunk


def extended(
    scores: Tensor, ranks: list[float], width: int, stop: float | None, ends: Collection[int]
) -> list[tuple[float, int, int]]:
    """The best ways to go on, one token further: (rank, branch, token), best first.

    Each branch offers its ``width`` likeliest tokens, those that end a text left out, and no further ones behind a token
    whose likelihood is above ``stop``.

    Args:
        scores: (branches, vocabulary) log-likelihoods
        ranks: the sum of them for each branch so far
        width: how many, at most
        stop: a likelihood, or None
        ends: tokens

    Returns:
        At most ``width``; none where every branch would end.
    """
    values, tokens = (part.tolist() for part in scores.topk(min(width, scores.shape[-1]), -1))
    limit = None if stop is None else torch.tensor(stop).log().item()
    found = []
    for row, rank in enumerate(ranks):
        for value, token in zip(values[row], tokens[row], strict=True):
            if token in ends:
                continue
            found.append((rank + value, row, token))
            if limit is not None and value > limit:
                break
    return sorted(found, key=lambda one: -one[0])[:width]


def check(writing: Writing, options: Sirius.Options, chunk: Tensor) -> Tensor:
    """Read a period densely, and leave its keys and values in the cache, unless they are not to be overwritten.

    Args:
        writing: whose reader has read everything but the last token of each branch
        options: of the loop
        chunk: (branches, t)

    Returns:
        (branches, t, vocabulary) logits.
    """
    reader = writing.reader if options.rewrite else writing.reader.twin()
    reader.forget(chunk.shape[1] - 1)
    return reader.read(chunk, dense=True)


def accepted(logits: Tensor, tokens: Tensor, threshold: float) -> Tensor:
    """Count the drafted tokens of each branch before the first that is too unlikely.

    Args:
        logits: (branches, t, vocabulary) over the temperature, each of the token at the same place
        tokens: (branches, t)
        threshold: the least likelihood

    Returns:
        (branches,) int64, from 0 to t.
    """
    likelihood = logits.softmax(-1).gather(-1, tokens[..., None])[..., 0]
    return (likelihood >= threshold).long().cumprod(-1).sum(-1)
