"""Sparse auto-encoders with one hidden layer, for activations of other networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Activations
from sparselab.core.errors import Issue
from sparselab.inputs.models.allocation import made
from sparselab.inputs.models.family import MODELS, Family
from sparselab.inputs.models.spec_builder import SpecBuilder

if TYPE_CHECKING:
    from torch import nn


@MODELS.register("autoencoder", yaml="sae")
class SparseAutoencoder(Family):
    """``x = W_d S relu(W_e (x - b) + c) + b`` with columns of W_d of length 1, and S what the allocation keeps.

    The recipe is that of Gao et al. 2024 (openai/sparse_autoencoder, train.py): the encoder begins as the decoder's transpose,
    columns are normalised after each update and their gradients lose the part along them. b begins as 0, where theirs is the
    data's geometric median: data sets here are centred.
    """

    heads = ((Activations, Activations),)
    has_blocks = True
    version = 2  # 2: under a law of Zipf all that features take sums to the budget

    class Options(Family.Options):
        features: int = Field(ge=1, description="size of the dictionary, at least 1")
        allocation: dict[str, Any] = Field(
            description="which features fire, such as {name: topk, k: 8} or {name: mutual_choice, k: 8}",
        )
        inference: Literal["threshold", "batch"] = Field(
            description="of rules that look across a batch, outside of training: threshold, or batch (in one process)",
        )
        window: int = Field(ge=1, description="training batches without firing after which a feature is dead")

    options: Options

    def __init__(self, options: Options):
        super().__init__(options)
        self.rule = made(options.allocation)

    def misfits(self, data: DataSpec) -> list[Issue]:
        return self.rule.issues(self.options.features)

    def least_batch(self) -> int:
        return self.rule.least_batch(self.options.features)

    def builder(self, data: DataSpec) -> SpecBuilder:
        s, features, width = SpecBuilder(), self.options.features, data.shape[0]
        s.linear("encoder", features, width)
        s.linear("decoder", width, features)
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.autoencoders import Autoencoder

        o = self.options
        return Autoencoder(data.shape[0], o.features, self.rule, o.window, o.inference == "threshold")

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """The encoder, whose output is all that may be chosen from; and the choice, whose output is the codes."""
        return [model.get_submodule("encoder"), model.get_submodule("select")]

    def constrain_gradients(self, model: nn.Module) -> None:
        from sparselab.inputs.models.autoencoders import only_turning

        only_turning(model.get_parameter("decoder.weight"))

    def constrain(self, model: nn.Module) -> None:
        from sparselab.inputs.models.autoencoders import unit_columns

        unit_columns(model.get_parameter("decoder.weight").data)
