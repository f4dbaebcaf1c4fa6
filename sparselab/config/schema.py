"""The parts of a cell's config that belong to no plug-in."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from sparselab.core.options import Options, off
from sparselab.core.points import FORM, point_of


class HostOptions(Options):
    """How a cell runs on this machine. Part of ``trainer``; every engine reads it, and it is never part of an id."""

    accelerator: Literal["auto", "cpu", "gpu"] = Field(description="auto, cpu or gpu")
    threads: int | None = Field(ge=1, description="at least 1, or null")
    workers: int = Field(ge=0, description="at least 0")
    progress: Literal["auto", "bar", "lines", "none"] = Field(description="auto, bar, lines or none")


class TrainerOptions(HostOptions):
    """The length of training, its batches, its precision, and the machine it runs on."""

    name: Literal["default"] = Field("default", description="default")
    max_epochs: int | None = Field(ge=1, description="at least 1, or null")
    max_steps: int | None = Field(ge=0, description="at least 0 (prune and score, no training), or null")
    batch_size: int = Field(ge=1, description="at least 1")
    accumulate: int = Field(ge=1, description="micro-batches per update, at least 1")
    precision: Literal["auto", "32", "bf16", "16"] = Field(description='auto, "32", bf16 or "16"')
    devices: int = Field(ge=1, description="at least 1")
    strategy: Literal["auto", "ddp"] = Field(
        description="auto or ddp; FSDP shards parameters, and a mask needs whole tensors"
    )
    clip: float | None = Field(gt=0, description="above 0, or null")
    ema: float | None = Field(gt=0, lt=1, description="in (0, 1), or null")
    compile: bool = Field(description="true or false")
    channels_last: Literal["auto"] | bool = Field(description="auto, true or false")
    evals: int = Field(ge=0, description="at least 0")
    checkpoint_minutes: float | None = Field(gt=0, description="above 0, or null")
    checkpoint_every: int | None = Field(ge=1, description="updates, at least 1, or null")
    track_masks: bool = Field(
        description="true or false: record how masks move, how gradients spread, what a last cut costs"
    )
    keep_at: list[int | str] = off([], description=f"a list of {FORM}, at most the length of the run, or []")

    reach: float | None = off(
        None,
        gt=0,
        description="the headline of the task on validation data, above 0, whose first update is told; or null",
    )
    reach_every: int = off(20, ge=1, description="updates between two looks at it, at least 1")

    @field_validator("keep_at")
    @classmethod
    def _points(cls, points: list[int | str]) -> list[int | str]:
        spelled = [point_of(point) for point in points]
        if None in spelled:
            raise ValueError(f"{points[spelled.index(None)]} is no point of a run")
        if len(set(spelled)) < len(spelled):
            raise ValueError("names a point twice")
        return points


class TargetOptions(Options):
    """The weights that are to be sparse."""

    include: list[str] = Field(min_length=1, description='at least one glob or @role, such as ["*"]')
    exclude: list[str] = Field(description='globs or @roles, such as ["@head"], or []')
    axis: Literal["in", "out", "kernel"] = Field(description="in, out or kernel")
    patterns: dict[str, Any] = off(
        {},
        description="globs or @roles with a sparsity of their own, such as {@q: 1:8}, or {}",
    )
    masks: str | None = off(
        None, description="a masks.safetensors of this network, {cell: …} of a cell that makes it, or null"
    )
    keep: Literal["largest", "smallest"] = off(
        "largest", description="largest or smallest: which scores stay (smallest inverts a mask, as a check of it)"
    )
    shuffle: bool = off(
        False, description="true or false: permute the masks within their layers (a check of what positions are worth)"
    )


class Common(Options):
    """The top level of every cell, whatever its engine. An engine adds the groups that it reads."""

    engine: dict[str, Any]
    logger: dict[str, Any]
    trainer: HostOptions
    tier: Literal["smoke", "cpu", "gpu", "paper"] | None = Field(description="smoke, cpu, gpu, paper or null")
    paper: str | None = Field(description="a paper's slug or null")
    seed: int = Field(ge=0, lt=2**63, description="a whole number, at least 0")
    data_dir: str | None = Field(description="a folder, or null")
    runs_dir: str = Field(min_length=1, description="a folder")
    force: bool = Field(description="true or false")
    debug: bool = Field(description="true or false")

    @field_validator("runs_dir", "data_dir")
    @classmethod
    def _one_line(cls, path: str | None) -> str | None:
        if path is not None and not path.isprintable():
            raise ValueError("holds a line break or another control character")
        return path


class Cell(Common):
    """The top level of a training cell. Groups of plug-ins are validated by the class that their ``name`` picks."""

    method: dict[str, Any]
    sparsity: Any
    targets: TargetOptions
    distribution: dict[str, Any]
    schedule: dict[str, Any]
    model: dict[str, Any]
    dataset: dict[str, Any]
    optim: dict[str, Any]
    trainer: TrainerOptions
    loss: dict[str, Any]
    metric: dict[str, Any] = off({})
    edit: dict[str, Any] | None = None
    merge: dict[str, Any] | None = off(None)
    task: dict[str, Any] | None = off(None)
    adapt: dict[str, Any] | None = off(None)
    scenario: dict[str, Any] | None = off(None)
    removal: dict[str, Any] | None = off(None)
    search: dict[str, Any] | None = off(None)
    neuron: dict[str, Any] | None = off(None)


# Groups that take a list of members: their value has the options of each under its name.
SEVERAL = ("loss", "metric")

# What never changes a result, and so is no part of a cell's id.
UNIDENTIFIED = (
    "logger", "tier", "paper", "data_dir", "runs_dir", "force", "debug",
    "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.evals", "trainer.checkpoint_minutes",
    "trainer.checkpoint_every", "trainer.threads", "trainer.workers", "trainer.progress",
)  # fmt: skip

# Validation scores are in a record where trainer.evals asks for them, so that no table may rest on one; these always are.
ALWAYS_SCORED = ("val.cut",)


def identified_metric(key: str) -> bool:
    """True if every finished cell has this metric, whatever was said of the options that are no part of its id."""
    return not key.startswith("val.") or key in ALWAYS_SCORED


def identified_option(key: str) -> bool:
    """True if an option of a training cell, as in ``key=value``, is part of its id."""
    return not any(key == left or key.startswith(left + ".") for left in UNIDENTIFIED)
