"""What would be faster on this machine at other numbers, said and never done: precision is part of what a cell is."""

from __future__ import annotations

from sparselab.config.schema import TrainerOptions
from sparselab.core.model_spec import ModelSpec
from sparselab.core.processor import NATIVE, flags, uses_gpu


def precision_notes(trainer: TrainerOptions, model_spec: ModelSpec | None) -> list[str]:
    """A line where training on this CPU in another precision would be faster, as results/bench has it."""
    if uses_gpu(trainer.accelerator):
        return []
    here = flags()
    if trainer.precision == "bf16" and here and not here & NATIVE:
        return ["this processor only emulates bf16: trainer.precision=32 would be faster, at other numbers"]
    deep = model_spec is not None and (
        model_spec.fixed_macs or any(layer.kind == "conv" for layer in model_spec.layers)
    )
    if trainer.precision == "32" and here & NATIVE and deep:  # of a perceptron it changes nothing
        return ["this processor multiplies bf16: trainer.precision=bf16 would be faster, at other numbers"]
    return []
