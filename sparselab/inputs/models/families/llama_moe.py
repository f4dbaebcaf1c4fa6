"""Llama with mixtures of experts, from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import NextTokens, Tokens
from sparselab.core.errors import Issue
from sparselab.inputs.models.families.llama import Rotary, llama_spec
from sparselab.inputs.models.family import MODELS
from sparselab.inputs.models.router import made
from sparselab.inputs.models.spec_builder import SpecBuilder

if TYPE_CHECKING:
    from torch import nn


@MODELS.register("llama_moe")
class LlamaMoE(Rotary):
    """Llama whose every feed-forward part is a mixture of small experts; attention is transformers' own.

    Of experts the model spec counts the multiply-accumulates of those that a token uses, where the router fixes their number.
    """

    heads = ((Tokens, NextTokens),)
    decoder = False
    gives = frozenset({"routing"})

    class Options(Rotary.Options):
        experts: int = Field(ge=1, description="experts of a block, at least 1")
        expert_width: int = Field(ge=1, description="inner width of an expert")
        gated: bool = Field(description="true: an expert's inner activations are gated, as Llama's own")
        router: dict[str, Any] = Field(
            description="which experts a token uses: a mapping such as {name: relu_rms} or {name: topk, k: 5}"
        )

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self.router = made(options.router)

    def misfits(self, data: DataSpec) -> list[Issue]:
        return super().misfits(data) + self.router.issues(self.options.experts)

    def config(self, data: DataSpec) -> dict[str, Any]:
        """The transformers config of the network around the mixtures, as a dict."""
        return {**super().config(data), "intermediate_size": 1}

    def builder(self, data: DataSpec) -> SpecBuilder:
        o, tokens = self.options, data.inputs.length
        scored, inner = self.router.scored(o.experts), o.experts * o.expert_width
        into = ("gate_proj", "up_proj") if o.gated else ("up_proj",)
        each = o.expert_width * o.width * self.router.used(o.experts) * tokens

        def mixture(s: SpecBuilder, name: str) -> None:
            s.linear(f"{name}.router", scored, o.width, tokens, bias=False)
            s.params += scored * self.router.gained + (len(into) + 1) * inner * o.width
            for layer in into:
                s.call(f"{name}.{layer}", "linear", (inner, o.width), each)
            s.call(f"{name}.down_proj", "linear", (o.width, inner), each)

        return llama_spec(self.config(data), tokens, feed_forward=mixture)

    def make(self, data: DataSpec) -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM

        from sparselab.inputs.models.mixture import Mixture

        o = self.options
        model = LlamaForCausalLM(LlamaConfig(**self.config(data)))
        for block in model.model.layers:
            block.mlp = Mixture(o.width, o.expert_width, o.experts, self.router, o.gated)
        return model

    def library_config(self, model: nn.Module) -> dict[str, Any] | None:
        """Nothing: transformers knows no such network."""
        return None
