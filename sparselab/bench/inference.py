"""Sparse weights at inference: where a sparse product is faster than the dense one, and where it is not."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from sparselab.bench.timing import Row, row, turns
from sparselab.sparsity.pattern import Pattern
from sparselab.spec.sparsity import Sparsity

SECTION = "A linear layer of 1536 x 384 at inference, against the dense product"
BATCHES = (1, 64, 1024)


def rows(device: str) -> Iterator[Row]:
    yield from plain_formats(device) if device == "cpu" else semi_structured()


@torch.no_grad()
def plain_formats(device: str) -> Iterator[Row]:
    """torch.sparse's compressed rows and blocks (MKL) in float32."""
    for batch in BATCHES:
        inputs, weight = torch.randn(384, batch), torch.randn(1536, 384)
        things = {"dense": lambda weight=weight, inputs=inputs: weight @ inputs}
        for text in ("0.5", "0.9", "0.99", "block:16x16:0.9"):
            sparse = weight * Pattern.of(Sparsity.parse(text)).mask(weight.abs())
            packed = sparse.to_sparse_bsr((16, 16)) if "block" in text else sparse.to_sparse_csr()
            kind = "BSR 16x16" if "block" in text else "CSR"
            things[f"{kind} at {text.split(':')[-1]}, {batch} tokens"] = lambda a=packed, b=inputs: a @ b
        times = turns(things, 15, device)
        yield from (row(SECTION, name, "dense", times, 1.0) for name in things if name != "dense")


@torch.no_grad()
def semi_structured() -> Iterator[Row]:
    """2:4 on sparse tensor cores, bf16: ViT-B's and ViT-L's linear layers at 256 images."""
    from sparselab.sparsity.semi_structured import compress

    for width in (768, 1024):
        for outputs, inputs in ((3 * width, width), (4 * width, width), (width, 4 * width)):
            weight = torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16)
            weight *= Pattern.of(Sparsity.parse("2:4")).mask(weight.abs())
            tokens = torch.randn(256 * 196, inputs, device="cuda", dtype=torch.bfloat16)
            packed: Tensor = compress(weight)
            name = f"2:4, {outputs} x {inputs}"
            things = {
                "dense": lambda a=tokens, b=weight: functional.linear(a, b),
                name: lambda a=tokens, b=packed: functional.linear(a, b),
            }
            yield row(SECTION, name, "dense", turns(things, 21, "cuda"), 1.0)
