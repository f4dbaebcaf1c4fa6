"""Networks of spiking neurons, for pictures and for events laid out as pictures."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.errors import Issue
from sparselab.inputs.models.family import MODELS, ImageFamily, misfit
from sparselab.inputs.models.neuron import made
from sparselab.inputs.models.spec_builder import SpecBuilder, pooled

if TYPE_CHECKING:
    from torch import nn

    from sparselab.inputs.models.spiking import Code


class SpikingOptions(ImageFamily.Options):
    """Options of every spiking network."""

    defaults_from: ClassVar[str] = "model/_spiking"

    timesteps: int = Field(ge=1, description="time steps, at least 1")
    gain: float = Field(gt=0, le=1, description="of encoding=rate: spike probability of a value of 1, in (0, 1]")
    batch_norm: bool = Field(description="true: batch normalisation before the neurons, step by step")
    neuron: dict[str, Any] = Field(description="the neurons, such as {name: lif}; neuron=lif says the same")


class SpikingFamily(ImageFamily):
    """Base: neurons, time steps, and the cost of every layer at every step."""

    trunk = ("neurons",)
    spiking = True
    options: Any

    def __init__(self, options: Any):
        super().__init__(options)
        self.neuron = made(options.neuron)

    @property
    def batch_norm(self) -> bool:  # type: ignore[override]
        return bool(self.options.batch_norm)

    def least_batch(self) -> int:
        return 2 if self.options.batch_norm and self.options.timesteps > 1 else 1

    def code(self) -> Code:
        """The code of its options. Imports torch."""
        from sparselab.inputs.models.spiking import Code

        return Code(self.options.encoding, self.options.timesteps, self.options.gain)


@MODELS.register("snn")
class SNN(SpikingFamily):
    """Linear layers with spiking neurons behind them; the class scores are means over time (arXiv 2602.11206, section 4).

    Units of a layer can be taken out where neurons look at their own alone and no layer is added to another.
    """

    class Options(SpikingOptions):
        hidden: list[Annotated[int, Field(ge=1)]] = Field(
            min_length=1, description="widths of the hidden layers: a list, such as [64]"
        )
        encoding: Literal["rate", "direct", "rows"] = Field(
            description="rate (random spikes), direct (the picture at every step) or rows (its rows are the steps)"
        )
        residual: bool = Field(description="true: a layer's spikes are added to the next one's")
        readout: Literal["linear", "neuron"] = Field(description="linear, or neuron: the classes spike, too")

    options: Options

    def misfits(self, data: DataSpec) -> list[Issue]:
        o, issues = self.options, super().misfits(data)
        if o.encoding == "rows" and o.timesteps != data.shape[1]:
            problem = f"the pictures of dataset {data.name} have {data.shape[1]} rows, each a time step"
            issues.append(misfit("timesteps", o.timesteps, problem, f"write model.timesteps={data.shape[1]}"))
        if o.residual and len(set(o.hidden)) > 1:
            issues.append(misfit("residual", "true", "layers of several widths cannot be added", "write equal widths"))
        return issues

    def norm_after(self, name: str) -> str | None:
        return name.replace("layers.", "norms.") if self.options.batch_norm else None

    def builder(self, data: DataSpec) -> SpecBuilder:
        o, s = self.options, SpecBuilder()
        inputs = prod(data.shape) // (data.shape[1] if o.encoding == "rows" else 1)
        names = [*(f"layers.{i}" for i in range(len(o.hidden))), "head"]
        for name, reader, width in zip(names, names[1:], o.hidden, strict=False):
            s.linear(name, width, inputs, o.timesteps)
            if not (self.neuron.coupled or o.residual):
                s.reads(name, reader, self.norm_after(name) or "")
            s.norm(width, 2 * o.batch_norm)
            inputs = width
        s.linear("head", data.classes, inputs, o.timesteps)
        s.params += self.neuron.learned * (len(o.hidden) + (o.readout == "neuron"))
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.spiking import SpikingMLP

        o = self.options
        inputs = prod(data.shape) // (data.shape[1] if o.encoding == "rows" else 1)
        return SpikingMLP(
            inputs, o.hidden, data.classes, self.code(), self.neuron, o.batch_norm, o.residual, o.readout == "neuron"
        )


@MODELS.register("snn_conv")
class SpikingConv(SpikingFamily):
    """3x3 convolutions, each averaged over 2x2 pixels, with spiking neurons behind them, and a linear head."""

    class Options(SpikingOptions):
        widths: list[Annotated[int, Field(ge=1)]] = Field(
            min_length=1, description="channels of the convolutions, in order; each halves the picture"
        )
        encoding: Literal["rate", "direct"] = Field(
            description="rate (random spikes) or direct (the picture at every step)"
        )

    options: Options

    def misfits(self, data: DataSpec) -> list[Issue]:
        issues = super().misfits(data)
        if min(data.shape[1:]) >> len(self.options.widths) == 0:
            problem = f"halve {data.name}'s {data.shape[1]}x{data.shape[2]} pixels {len(self.options.widths)} times"
            issues.append(Issue("model.widths", problem, "write fewer convolutions"))
        return issues

    def norm_after(self, name: str) -> str | None:
        return name.replace("convs.", "norms.") if self.options.batch_norm else None

    def builder(self, data: DataSpec) -> SpecBuilder:
        o, s = self.options, SpecBuilder()
        inputs, *size = data.shape
        for i, width in enumerate(o.widths):
            shape = (width, inputs, 3, 3)
            s.params += prod(shape) + width
            s.call(f"convs.{i}", "conv", shape, prod(shape) * prod(size) * o.timesteps)
            s.norm(width, 2 * o.batch_norm)
            size, inputs = list(pooled(size, 2, 2, 0)), width
        s.linear("head", data.classes, inputs * prod(size), o.timesteps)
        s.params += self.neuron.learned * len(o.widths)
        return s

    def make(self, data: DataSpec) -> nn.Module:
        from sparselab.inputs.models.spiking import SpikingConvNet

        o, size = self.options, data.shape[1:]
        for _ in o.widths:
            size = pooled(size, 2, 2, 0)
        return SpikingConvNet(data.shape[0], o.widths, prod(size), data.classes, self.code(), self.neuron, o.batch_norm)
