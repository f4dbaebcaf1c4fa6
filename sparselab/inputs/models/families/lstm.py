"""Stacked LSTMs that predict the next token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import NextTokens, Tokens
from sparselab.core.errors import Issue
from sparselab.core.processor import LSTM_NEEDS
from sparselab.inputs.models.family import MODELS, Family, misfit, vocabulary_misfits
from sparselab.inputs.models.spec_builder import SpecBuilder

if TYPE_CHECKING:
    from torch import Tensor, nn


@MODELS.register("lstm")
class LSTM(Family):
    """Embedding, ``depth`` LSTMs of ``width`` hidden units, softmax layer; the vocabulary is the data's.

    Sparse layers are the embedding (which a tied softmax layer is, with both roles), the two gate matrices of each
    LSTM (role ``gates``; four gates in one matrix) and the softmax layer. Biases are dense.
    """

    heads = ((Tokens, NextTokens),)
    trunk = ("rnns",)
    instructions = LSTM_NEEDS

    class Options(Family.Options):
        width: int = Field(ge=1, description="hidden units of a layer")
        depth: int = Field(ge=1, le=100, description="number of LSTM layers")
        embedding: int | None = Field(ge=1, description="width of a token's vector; null: as width")
        tie: bool = Field(description="true: the softmax layer's weight is the embedding")
        dropout: float = Field(
            ge=0, lt=1, description="probability that a value from layer to layer is dropped in training"
        )
        carry: bool = Field(
            description="true: a window goes on from the state of the one before (dataset.windows=streams)"
        )

    options: Options

    @property
    def embedding(self) -> int:
        return self.options.embedding or self.options.width

    @property
    def carries(self) -> bool:  # type: ignore[override]
        return self.options.carry

    def misfits(self, data: DataSpec) -> list[Issue]:
        o, found = self.options, vocabulary_misfits(data)
        if o.tie and self.embedding != o.width:
            problem = f"differs from width {o.width}, and a tied softmax layer multiplies hidden units by it"
            found.append(misfit("embedding", o.embedding, problem, "write model.embedding=null or model.tie=false"))
        if o.carry and not data.inputs.ordered:
            problem = f"goes on from window to window, and windows of {data.name} are drawn at random"
            found.append(misfit("carry", "true", problem, "write dataset.windows=streams or model.carry=false"))
        return found

    def builder(self, data: DataSpec) -> SpecBuilder:
        s, o, tokens, vocabulary = SpecBuilder(), self.options, data.shape[0], data.inputs.vocabulary
        s.embedding("encoder", vocabulary, self.embedding)
        for i in range(o.depth):
            s.lstm(f"rnns.{i}", o.width, o.width if i else self.embedding, tokens)
        if o.tie:
            s.params += vocabulary  # the softmax layer's own bias
            s.call("encoder", "embedding", (vocabulary, o.width), vocabulary * o.width * tokens)
        else:
            s.linear("decoder", vocabulary, o.width, tokens)
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.networks import LSTMLanguageModel

        o = self.options
        return LSTMLanguageModel(data.inputs.vocabulary, self.embedding, o.width, o.depth, o.dropout, o.tie)

    def logits(self, model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch)[0]

    def carried(self, model: nn.Module, batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        return model(batch, state)
