"""What a precision costs here is said where it is so, and nowhere else."""

from __future__ import annotations

import pytest

from sparselab.planning import plan_of
from sparselab.spec import processor

ABLE, OLD = frozenset({"avx512f", "avx512_bf16"}), frozenset({"avx2"})

pytestmark = pytest.mark.instructions


def notes(monkeypatch, flags, *overrides):
    monkeypatch.delenv(processor.ASKED, raising=False)
    monkeypatch.setattr(processor, "processor_flags", lambda: flags)
    return [note for note in plan_of(["method=dense", "trainer.accelerator=cpu", *overrides]).notes if "bf16" in note]


@pytest.mark.parametrize(
    "flags, overrides, words",
    [
        (ABLE, ["model=resnet20", "dataset=cifar10"], "trainer.precision=bf16 would be faster"),
        (ABLE, ["model=vit_ti", "dataset=digits", "trainer.precision=32"], "trainer.precision=bf16 would be faster"),
        (ABLE, ["model=vit_ti", "dataset=digits"], None),
        (ABLE, ["model=mlp", "dataset=mnist"], None),
        (OLD, ["model=vit_ti", "dataset=digits"], None),
        (OLD, ["model=vit_ti", "dataset=digits", "trainer.precision=bf16"], "trainer.precision=32 would be faster"),
        (OLD, ["model=resnet20", "dataset=cifar10"], None),
        (frozenset(), ["model=vit_ti", "dataset=digits"], None),
    ],
)
def test_a_note_on_precision(flags, overrides, words, monkeypatch):
    found = notes(monkeypatch, flags, *overrides)
    assert (words in found[0] and len(found) == 1) if words else found == []
