"""Llama from scratch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import Issue
from sparselab.core.options import off
from sparselab.inputs.models.families.gpt import context_misfits, head_misfits
from sparselab.inputs.models.family import MODELS, TextFamily, classes_of, head_of, misfit, vocabulary_misfits
from sparselab.inputs.models.spec_builder import SpecBuilder

if TYPE_CHECKING:
    from torch import nn


def llama_spec(
    config: Mapping[str, Any],
    tokens: int,
    classes: int | None = None,
    feed_forward: Callable[[SpecBuilder, str], None] | None = None,
) -> SpecBuilder:
    """transformers' LlamaForCausalLM in closed form for one window of ``tokens``; ``config`` as in its config.json.

    With ``classes`` LlamaForSequenceClassification, whose head scores every position and then takes the last one's.
    ``feed_forward`` draws what stands in the place of the feed-forward part of the name that it is given.
    Raises KeyError where a size is missing. Rotary positions are elementwise and not counted.
    """
    s, width, heads, vocabulary = (
        SpecBuilder(),
        config["hidden_size"],
        config["num_attention_heads"],
        config["vocab_size"],
    )
    head = config.get("head_dim") or width // heads
    groups = (config.get("num_key_value_heads") or heads) * head
    hidden = config["intermediate_size"]
    attention_bias, mlp_bias = config.get("attention_bias", False), config.get("mlp_bias", False)
    s.embedding("model.embed_tokens", vocabulary, width)
    for block in (f"model.layers.{i}" for i in range(config["num_hidden_layers"])):
        s.norm(width, 1)
        s.linear(f"{block}.self_attn.q_proj", heads * head, width, tokens, attention_bias)
        s.linear(f"{block}.self_attn.k_proj", groups, width, tokens, attention_bias)
        s.linear(f"{block}.self_attn.v_proj", groups, width, tokens, attention_bias)
        s.products(f"{block}.self_attn", heads, tokens, head)
        s.linear(f"{block}.self_attn.o_proj", width, heads * head, tokens, attention_bias)
        s.norm(width, 1)
        if feed_forward is not None:
            feed_forward(s, f"{block}.mlp")
            continue
        s.linear(f"{block}.mlp.gate_proj", hidden, width, tokens, mlp_bias)
        s.linear(f"{block}.mlp.up_proj", hidden, width, tokens, mlp_bias)
        s.linear(f"{block}.mlp.down_proj", width, hidden, tokens, mlp_bias)
    s.norm(width, 1)
    if classes is not None:
        s.linear("score", classes, width, tokens, bias=False)
    elif config.get("tie_word_embeddings", False):
        s.call("model.embed_tokens", "embedding", (vocabulary, width), vocabulary * width * tokens)
    else:
        s.linear("lm_head", vocabulary, width, tokens, bias=False)
    return s


class Rotary(TextFamily):
    """Base of families of Llama's architecture, whatever stands in the place of its feed-forward parts."""

    trunk = ("model.layers",)
    final_norm = "model.norm"

    class Options(TextFamily.Options):
        width: int = Field(ge=1, description="channels of a token")
        depth: int = Field(ge=1, le=1000, description="number of blocks")
        heads: int = Field(ge=1, description="attention heads; must divide width")
        kv_heads: int | None = Field(ge=1, description="key and value heads; must divide heads; null: as heads")
        context: int | None = Field(ge=1, description="longest input in tokens; null: the data's window")
        tie: bool = Field(description="true: the head is the embedding")
        dropout: float = Field(ge=0, lt=1, description="probability that an attention weight is dropped")

    options: Options

    def misfits(self, data: DataSpec) -> list[Issue]:
        o = self.options
        issues = vocabulary_misfits(data) + head_misfits(o.width, o.heads) + context_misfits(o.context, data)
        if o.width % o.heads == 0 and (o.width // o.heads) % 2:
            problem = f"leaves {o.width // o.heads} channels a head, and rotary positions turn pairs"
            issues.append(misfit("heads", o.heads, problem, "choose heads so that width / heads is even"))
        if o.kv_heads is not None and o.heads % o.kv_heads:
            issues.append(
                misfit("kv_heads", o.kv_heads, f"does not divide heads {o.heads}", "choose a divisor of heads")
            )
        return issues

    def config(self, data: DataSpec) -> dict[str, Any]:
        """The network's transformers config, as a dict, without its feed-forward part."""
        o = self.options
        return {
            "vocab_size": data.inputs.vocabulary,
            "hidden_size": o.width,
            "num_hidden_layers": o.depth,
            "num_attention_heads": o.heads,
            "num_key_value_heads": o.kv_heads or o.heads,
            "max_position_embeddings": o.context or data.inputs.length,
            "tie_word_embeddings": o.tie,
            "attention_dropout": o.dropout,
            "bos_token_id": None,
            "eos_token_id": None,
            **head_of(data),
        }


@MODELS.register("llama", yaml="llama_tiny")
class Llama(Rotary):
    """Llama's architecture with random weights, as transformers' LlamaForCausalLM; the vocabulary is the data's.

    A tied embedding and head are one layer of the model spec, the embedding, with both roles.
    """

    class Options(Rotary.Options):
        ff: int = Field(ge=1, description="hidden width of the gated feed-forward part")
        act: Literal["silu", "relu"] = off("silu", description="silu or relu: the gate of the feed-forward part")

    options: Options

    def config(self, data: DataSpec) -> dict[str, Any]:
        """The network's transformers config, as a dict."""
        return {**super().config(data), "intermediate_size": self.options.ff, "hidden_act": self.options.act}

    def builder(self, data: DataSpec) -> SpecBuilder:
        return llama_spec(self.config(data), data.inputs.length, classes_of(data))

    def make(self, data: DataSpec) -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

        cls = LlamaForCausalLM if classes_of(data) is None else LlamaForSequenceClassification
        return cls(LlamaConfig(**self.config(data)))
