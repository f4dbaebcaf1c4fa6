"""GPT-2 from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import Issue
from sparselab.inputs.models.family import MODELS, TextFamily, classes_of, head_of, misfit, vocabulary_misfits
from sparselab.inputs.models.spec_builder import SpecBuilder
from sparselab.inputs.models.transform import Transformable, wider

if TYPE_CHECKING:
    from torch import nn


def gpt2_spec(config: Mapping[str, Any], tokens: int, classes: int | None = None) -> SpecBuilder:
    """transformers' GPT2LMHeadModel in closed form for one window of ``tokens``; ``config`` as in its config.json.

    With ``classes`` GPT2ForSequenceClassification, whose head scores every position and then takes the last one's.

    Raises KeyError where a size is missing.
    """
    s, width, heads, vocabulary = SpecBuilder(), config["n_embd"], config["n_head"], config["vocab_size"]
    hidden = config.get("n_inner") or 4 * width
    s.embedding("transformer.wte", vocabulary, width)
    s.embedding("transformer.wpe", config["n_positions"], width)
    for block in (f"transformer.h.{i}" for i in range(config["n_layer"])):
        s.norm(width)
        s.conv1d(f"{block}.attn.c_attn", 3 * width, width, tokens)
        s.products(f"{block}.attn", heads, tokens, width // heads)
        s.conv1d(f"{block}.attn.c_proj", width, width, tokens)
        s.norm(width)
        s.conv1d(f"{block}.mlp.c_fc", hidden, width, tokens)
        s.conv1d(f"{block}.mlp.c_proj", width, hidden, tokens)
    s.norm(width)
    if classes is not None:
        s.linear("score", classes, width, tokens, bias=False)
    elif config.get("tie_word_embeddings", True):
        s.call("transformer.wte", "embedding", (vocabulary, width), vocabulary * width * tokens)
    else:
        s.linear("lm_head", vocabulary, width, tokens, bias=False)
    return s


@MODELS.register("gpt", yaml="gpt_tiny")
class GPT(Transformable, TextFamily):
    """GPT-2's architecture with random weights, as transformers' GPT2LMHeadModel; the vocabulary is the data's.

    A tied embedding and head are one layer of the model spec, the embedding, with both roles.
    """

    trunk = ("transformer.h",)
    final_norm = "transformer.ln_f"

    class Options(Transformable.Options):
        width: int = Field(ge=1, description="channels of a token")
        depth: int = Field(ge=1, le=1000, description="number of blocks")
        heads: int = Field(ge=1, description="attention heads; must divide width")
        ff: int | None = Field(ge=1, description="hidden width of the feed-forward part; null: 4 widths")
        context: int | None = Field(ge=1, description="positions learned, in tokens; null: the data's window")
        tie: bool = Field(description="true: the head is the embedding")
        dropout: float = Field(ge=0, lt=1, description="probability that a value is dropped in training")

    options: Options

    def widened(self, factor: Fraction) -> Self:
        o = self.options
        width, ff = wider(o.width, factor, o.heads), o.ff and wider(o.ff, factor)
        return type(self)(o.model_copy(update={"width": width, "ff": ff}))

    def misfits(self, data: DataSpec) -> list[Issue]:
        o = self.options
        return vocabulary_misfits(data) + head_misfits(o.width, o.heads) + context_misfits(o.context, data)

    def longest(self, data: DataSpec) -> int:
        """One learned position a token."""
        return self.options.context or data.inputs.length

    def config(self, data: DataSpec) -> dict[str, Any]:
        """The network's transformers config, as a dict."""
        o = self.options
        return {
            "vocab_size": data.inputs.vocabulary,
            "n_positions": self.longest(data),
            "n_embd": o.width,
            "n_layer": o.depth,
            "n_head": o.heads,
            "n_inner": o.ff,
            "tie_word_embeddings": o.tie,
            "resid_pdrop": o.dropout,
            "embd_pdrop": o.dropout,
            "attn_pdrop": o.dropout,
            "bos_token_id": None,
            "eos_token_id": None,
            **head_of(data),
        }

    def builder(self, data: DataSpec) -> SpecBuilder:
        return gpt2_spec(self.config(data), data.inputs.length, classes_of(data))

    def make(self, data: DataSpec) -> nn.Module:
        from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

        cls = GPT2LMHeadModel if classes_of(data) is None else GPT2ForSequenceClassification
        return cls(GPT2Config(**self.config(data)))


def head_misfits(width: int, heads: int) -> list[Issue]:
    """A fault where ``heads`` attention heads do not divide ``width``."""
    if width % heads == 0:
        return []
    return [misfit("heads", heads, f"does not divide width {width}", "choose a divisor of the width")]


def context_misfits(context: int | None, data: DataSpec) -> list[Issue]:
    """A fault where a network of ``context`` positions (None: as many as the data needs) cannot read a window."""
    if context is None or context >= data.inputs.length:
        return []
    problem = f"is shorter than {data.name}'s window of {data.inputs.length} tokens"
    return [misfit("context", context, problem, f"write model.context={data.inputs.length} or null")]
