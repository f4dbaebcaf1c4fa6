"""What would be faster on this machine at other numbers, said and never done: precision is part of what a cell is."""

from __future__ import annotations

from pathlib import Path

from sparselab.config.schema import TrainerOptions
from sparselab.core.memo import once
from sparselab.core.model_spec import ModelSpec

NATIVE = frozenset({"avx512_bf16", "amx_bf16"})


def precision_notes(trainer: TrainerOptions, model_spec: ModelSpec | None) -> list[str]:
    """A line where training on this CPU in another precision would be faster, as results/bench has it."""
    if trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and any(Path("/dev").glob("nvidia[0-9]*"))):
        return []
    flags = once("processor flags", processor_flags)
    if trainer.precision == "bf16" and flags and not flags & NATIVE:
        return ["this processor only emulates bf16: trainer.precision=32 would be faster, at other numbers"]
    deep = model_spec is not None and (
        model_spec.fixed_macs or any(layer.kind == "conv" for layer in model_spec.layers)
    )
    if trainer.precision == "32" and flags & NATIVE and deep:  # of a perceptron it changes nothing
        return ["this processor multiplies bf16: trainer.precision=bf16 would be faster, at other numbers"]
    return []


def processor_flags(file: str = "/proc/cpuinfo") -> frozenset[str]:
    """What the first processor can do, as Linux names it; empty where that is not known."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))
