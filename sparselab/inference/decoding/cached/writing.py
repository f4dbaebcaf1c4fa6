"""A text under way: the prompt, the reader, and how the next token is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparselab.inference.decoding.cached.reader import Passes, Reader, Rules
from sparselab.inference.decoding.loop import Loop, LoopOptions, Text
from sparselab.inputs.data.prompts import Prompt
from sparselab.inputs.data.seeds import generator


@dataclass(frozen=True)
class Writing:
    """One text of a loop.

    address: names it; tokens that are drawn are so by it and by their place. ends: tokens that end it.
    """

    options: LoopOptions
    reader: Reader
    prompt: Tensor
    address: tuple[object, ...]
    ends: frozenset[int]

    def begin(self) -> int:
        """Read the prompt and choose the first token."""
        logits = self.reader.start(self.prompt, "on" if self.options.prompt == "sparse" else "watch")
        return self.choose(logits, 0)

    def choose(self, logits: Tensor, place: int) -> int:
        """Choose a token: the likeliest, or one drawn at the address of this text and place.

        Args:
            logits: (vocabulary,)
            place: tokens that were written before it

        Returns:
            The token. At one place two networks that agree draw the same.
        """
        return choose(logits, self.options.temperature, (*self.address, place))

    def over(self, tokens: list[int]) -> bool:
        """True if nothing follows: the text has all its tokens, or its last one ends it."""
        return len(tokens) >= self.options.tokens or tokens[-1] in self.ends


def choose(logits: Tensor, temperature: float, address: tuple[object, ...]) -> int:
    """Choose a token, by the Gumbel trick where it is drawn.

    Args:
        logits: (vocabulary,)
        temperature: 0 for the likeliest
        address: of the noise

    Returns:
        The token.
    """
    if not temperature:
        return int(logits.argmax())
    noise = torch.from_numpy(generator("decoding", *address).gumbel(size=logits.shape[-1]))
    return int((logits.double().cpu() / temperature + noise).argmax())


def ends_of(model: nn.Module) -> frozenset[int]:
    """Tokens that a transformers network names as the end of a text."""
    configs: list[Any] = [getattr(model, "generation_config", None), getattr(model, "config", None)]
    named = [getattr(config, "eos_token_id", None) for config in configs]
    return frozenset(
        token for value in named for token in (value if isinstance(value, list) else [value]) if token is not None
    )


def write_all(
    loop: Loop, model: nn.Module, rules: Rules, prompts: list[Prompt], seed: int, check: Callable[[str], None]
) -> tuple[list[Text], Passes]:
    """Write on from every prompt.

    Args:
        loop: how
        model: the network
        rules: on it
        prompts: of the test split
        seed: the cell's
        check: stops the run where somebody asked for it

    Returns:
        The texts, and how many tokens were read for them after the prompts.
    """
    passes = Passes()
    ends = ends_of(model) if loop.options.stop else frozenset()
    device = next(model.parameters()).device
    texts = []
    for number, prompt in enumerate(prompts):
        check("between two prompts")
        reader = Reader(model, rules, passes)
        writing = Writing(loop.options, reader, prompt.tokens.to(device), (seed, number), ends)
        texts.append(loop.write(writing))
    return texts, passes
