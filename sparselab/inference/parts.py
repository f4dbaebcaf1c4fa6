"""The options of the engine, and what a cell of it is made of [no torch]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparselab.core.options import Options, off

if TYPE_CHECKING:
    from torch import nn

    from sparselab.core.data_spec import DataSpec
    from sparselab.core.model_spec import ModelSpec
    from sparselab.inference.activation.frozen.masking import Masking
    from sparselab.inference.activation.frozen.sites import Place
    from sparselab.inference.activation.rule import Rule as ActivationRule
    from sparselab.inference.attention.rule import Rule as AttentionRule
    from sparselab.inference.attention.tiled.attach import Attached
    from sparselab.inference.decoding.decoding import Decoding
    from sparselab.inference.routing.rule import Rule as RoutingRule
    from sparselab.inputs.data.dataset import Dataset
    from sparselab.inputs.models.family import Family
    from sparselab.running.signals import StopFlag


class InferenceOptions(Options):
    """Options of the engine."""

    phase: Literal["prefill", "decode", "both"] = Field(description="prefill, decode or both: how attention is taken")
    tokens: int | None = Field(ge=2, description="test tokens that are scored, about; null for all")
    windows: int = Field(ge=1, description="calibration windows, at least 1")
    batch_size: int = Field(ge=1, description="windows in a forward pass, at least 1")
    stride: int | None = off(None, ge=1, description="tokens from one test window to the next, null: side by side")


@dataclass
class Parts:
    """The parts of an intervention. target: the sparsity asked for, None where a rule has its own threshold.

    source: the content of the network's files and of the data, as text. decoding: None where windows of text are scored.
    routing: None where all tokens go through all blocks.
    batch_size: windows, or texts, in a forward pass.
    """

    cell: Any
    target: float | None
    activation: ActivationRule | None
    attention: AttentionRule | None
    dataset: Dataset
    data: DataSpec
    family: Family
    model_spec: ModelSpec | None
    source: str = ""
    decoding: Decoding | None = None
    routing: RoutingRule | None = None
    batch_size: int = 8


@dataclass
class Activations:
    """A network prepared for a rule on activations.

    places: what is made sparse. levels: how much of each, by its name. gates: by name, none where a place stays dense.
    rotation_macs: what rotations add, per token. spreads: of places with a statistic of every channel, by name, its
    coefficient of variation. measures: what preparing found, by its name in records.
    """

    places: Sequence[Place]
    levels: dict[str, float]
    gates: dict[str, Any]
    rotation_macs: int = 0
    spreads: dict[str, float] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)


Ruled = AbstractContextManager[tuple["Activations | None", "Masking | None", "Attached | None"]]


@dataclass(frozen=True)
class Bench:
    """A network on which texts are written. splits: the loaded data. ruled: it under its rules, calibrated, as a context."""

    parts: Parts
    model: nn.Module
    model_spec: ModelSpec
    splits: Any
    stop: StopFlag
    ruled: Callable[[], Ruled]
