"""bf16 and channels_last against float32 and contiguous: what the defaults of configs/trainer rest on."""

from __future__ import annotations

from collections.abc import Iterator

from sparselab.tools.bench.timing import Row, row, turns
from sparselab.tools.bench.updates import Update

SECTION = "A dense update in bf16, and with channels last, against float32 and contiguous"
NETWORKS = {
    "ViT-S, 8 pixels, batch 64": ["model=vit_s", "dataset=digits", "trainer.batch_size=64"],
    "MLP, 28 pixels, batch 64": ["model=mlp", "dataset=mnist", "trainer.batch_size=64"],
    "ResNet-20, 32 pixels, batch 64": ["model=resnet20", "dataset=cifar10", "trainer.batch_size=64"],
    "llama_tiny, 256 tokens, batch 8": ["model=llama_tiny", "dataset=stdlib", "trainer.batch_size=8"],
}
CONVOLUTIONS = ("ResNet-20, 32 pixels, batch 64",)
ROUNDS = 5


def rows(device: str) -> Iterator[Row]:
    for name, overrides in NETWORKS.items():
        plain, last = ([*overrides, f"trainer.channels_last={text}", "method=dense"] for text in ("false", "true"))
        base = "float32"
        things = {base: Update(plain, device, half=False), f"{name}: bf16": Update(plain, device, half=True)}
        if name in CONVOLUTIONS:
            things[f"{name}: float32, channels last"] = Update(last, device, half=False)
            things[f"{name}: bf16, channels last"] = Update(last, device, half=True)
        times = turns(things, ROUNDS, device)
        yield from (row(SECTION, label, base, times) for label in list(things)[1:])
