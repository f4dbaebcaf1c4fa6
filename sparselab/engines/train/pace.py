"""What would be faster on this machine at other numbers, said and never done: precision is part of what a cell is."""

from __future__ import annotations

from sparselab.spec.outline import Outline
from sparselab.spec.processor import NATIVE, flags, uses_gpu
from sparselab.spec.schema import TrainerOptions


def precision_notes(trainer: TrainerOptions, outline: Outline | None) -> list[str]:
    """A line where training on this CPU in another precision would be faster, as results/bench has it."""
    if uses_gpu(trainer.accelerator):
        return []
    here = flags()
    if trainer.precision == "bf16" and here and not here & NATIVE:
        return ["this processor only emulates bf16: trainer.precision=32 would be faster, at other numbers"]
    deep = outline is not None and (outline.fixed_macs or any(layer.kind == "conv" for layer in outline.layers))
    if trainer.precision == "32" and here & NATIVE and deep:  # of a perceptron it changes nothing
        return ["this processor multiplies bf16: trainer.precision=bf16 would be faster, at other numbers"]
    return []
