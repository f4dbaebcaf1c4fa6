"""The steps of a text: what each reads, and which tokens it reveals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselab.inference.attention.rule import Step
from sparselab.inference.decoding.denoise import Denoise
from sparselab.inputs.data.prompts import Prompt
from sparselab.inputs.data.seeds import generator

Logits = Callable[[Tensor, Step], Tensor]
"""(n, t) int64 tokens in a step to (n, t, vocabulary) float32."""


@dataclass(frozen=True)
class Group:
    """Prompts of one length. prompts: (n, t) int64. numbers: their places among all prompts, which drawn tokens hang on."""

    prompts: Tensor
    numbers: list[int]


@dataclass(frozen=True)
class Written:
    """Texts of a group. tokens: (n, g) int64. states: of every step, (n, t + g) int64 as it was read."""

    tokens: Tensor
    states: list[Tensor]


def grouped(prompts: Sequence[Prompt], size: int, device: torch.device) -> list[Group]:
    """Put prompts of one length together, at most ``size``."""
    by_length: dict[int, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt.tokens), []).append(number)
    found = []
    for numbers in by_length.values():
        for first in range(0, len(numbers), size):
            some = numbers[first : first + size]
            found.append(Group(torch.stack([prompts[number].tokens for number in some]).to(device), some))
    return found


def amounts(hidden: int, steps: int) -> list[int]:
    """Tokens that each step reveals: as many, the first ones one more where it does not come out even."""
    return [hidden // steps + (step < hidden % steps) for step in range(steps)]


def schedule(loop: Denoise, prompt: int) -> Iterator[tuple[Step, int, int]]:
    """The steps of a text.

    Args:
        loop: with its options
        prompt: tokens of the prompt

    Returns:
        (the step, the first token of the text that its block does not have, how many tokens it reveals), again and again.
    """
    o = loop.options
    blocks = o.tokens // loop.block
    for block in range(blocks):
        for i, count in enumerate(amounts(loop.block, o.steps // blocks)):
            step = Step(i + block * (o.steps // blocks), o.steps, prompt, o.tokens)
            yield step, prompt + (block + 1) * loop.block, count


def write(loop: Denoise, logits_of: Logits, group: Group, mask: int, seed: int) -> Written:
    """Write the texts of a group.

    Args:
        loop: with its options
        logits_of: one pass
        group: the prompts
        mask: the token that stands for a hidden one
        seed: the cell's

    Returns:
        The texts and all states on the way.
    """
    n, prompt = group.prompts.shape
    masks = torch.full((n, loop.options.tokens), mask, device=group.prompts.device)
    text, states = torch.cat((group.prompts, masks), 1), []
    for step, end, count in schedule(loop, prompt):
        states.append(text)
        logits = without_mask(logits_of(text, step), mask)
        wish, sure = chosen(loop, logits[:, prompt:], group.numbers, step.number, seed)
        hidden = text[:, prompt:] == mask
        hidden[:, end - prompt :] = False
        places = sure.masked_fill(~hidden, -torch.inf).argsort(dim=-1, descending=True, stable=True)[:, :count] + prompt
        text = text.scatter(1, places, wish.gather(1, places - prompt))
    return Written(text[:, prompt:], states)


def chosen(loop: Denoise, logits: Tensor, numbers: Sequence[int], step: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the token that every place would become, and how soon it should.

    Args:
        loop: with its options
        logits: (n, g, vocabulary)
        numbers: of the texts
        step: its number
        seed: the cell's

    Returns:
        (n, g) int64 tokens, likeliest or drawn, and (n, g) float: their likelihoods, or random numbers.
    """
    o = loop.options

    def drawn(kind: str, size: tuple[int, ...], how: str) -> Tensor:
        rows = [getattr(generator("decoding", seed, number, kind, step), how)(size=size) for number in numbers]
        return torch.stack([torch.from_numpy(row) for row in rows]).to(logits.device)

    if o.temperature:
        noise = drawn("tokens", tuple(logits.shape[1:]), "gumbel")
        tokens = (logits.double() / o.temperature + noise).argmax(-1)
    else:
        tokens = logits.argmax(-1)
    if o.order == "random":
        return tokens, drawn("places", (logits.shape[1],), "uniform")
    return tokens, logits.softmax(-1).gather(-1, tokens[..., None])[..., 0]


def without_mask(logits: Tensor, mask: int) -> Tensor:
    """Return logits under which the mask itself is never the token.

    Args:
        logits: (n, t, vocabulary)
        mask: the token that stands for a hidden one

    Returns:
        (n, t, vocabulary).
    """
    return logits.index_fill(-1, torch.tensor([mask], device=logits.device), -torch.inf)
