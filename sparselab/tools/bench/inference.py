"""Sparse weights at inference: where a sparse product is faster than the dense one, and where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Classes, Images, NextTokens, Tokens
from sparselab.core.registry import build
from sparselab.core.sparsity import Sparsity
from sparselab.inputs.models.family import MODELS, Family
from sparselab.tools.bench.timing import Row, row, turns
from sparselab.tools.deploy.form import FORMS
from sparselab.tools.deploy.speed import Subject, pair
from sparselab.weights.patterns.pattern import Pattern

SECTION = "A linear layer of 1536 x 384 at inference, against the dense product"
WHOLE = "Whole networks at inference, their sparse linear layers in a sparse form, against the dense network"
BATCHES = (1, 64, 1024)


def rows(device: str) -> Iterator[Row]:
    yield from plain_formats(device) if device == "cpu" else semi_structured()
    yield from whole_networks(device)


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
    form = FORMS["semi_structured"]()
    for width in (768, 1024):
        for outputs, inputs in ((3 * width, width), (4 * width, width), (width, 4 * width)):
            weight = torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16)
            weight *= Pattern.of(Sparsity.parse("2:4")).mask(weight.abs())
            tokens = torch.randn(256 * 196, inputs, device="cuda", dtype=torch.bfloat16)
            layer = nn.Linear(inputs, outputs, bias=False, device="cuda", dtype=torch.bfloat16)
            layer.weight.data.copy_(weight)
            packed = form.layer(layer)
            name = f"2:4, {outputs} x {inputs}"
            things = {
                "dense": lambda a=tokens, b=weight: functional.linear(a, b),
                name: lambda a=tokens, b=packed: b(a),
            }
            yield row(SECTION, name, "dense", turns(things, 21, "cuda"), 1.0)


@torch.no_grad()
def whole_networks(device: str) -> Iterator[Row]:
    """From pixels or tokens to logits. What a form does not take stays dense, and the row says how much."""
    for config, data, batch, cases in ON_CPU if device == "cpu" else ON_GPU:
        for text, name in cases:
            made = subject(config, data, text)
            both = pair(made, FORMS[name](), batch, device)
            label = f"{config['title']}, {text} as {name}, batch {batch}"
            times = turns({"dense": both.dense, label: both.sparse}, 15, device)
            extra = f"{both.layers} of {len(made.sparse)} sparse layers, outputs differ by {both.difference():.0e}"
            yield row(WHOLE, label, "dense", times, 1.0, extra)


def subject(config: dict[str, Any], data: DataSpec, sparsity: str) -> Subject:
    """A network with random weights, the linear layers of its blocks pruned by magnitude."""
    family: Family = build(MODELS, {key: value for key, value in config.items() if key != "title"}, "model")
    torch.manual_seed(0)
    network = family.build(data).eval()
    pattern = Pattern.of(Sparsity.parse(sparsity))
    within = {id(part) for block in family.blocks(network) for part in block.modules()}
    names = [n for n, part in network.named_modules() if isinstance(part, nn.Linear) and id(part) in within]
    for name in names:
        weight = network.get_submodule(name).weight
        weight.mul_(pattern.mask(weight.abs()))  # type: ignore[operator]
    return Subject(family, data, network, names)


def images(size: int, classes: int) -> DataSpec:
    return DataSpec("noise", Images(3, size, size), Classes(classes), 0, 0, 0, "", "bundled")


def vit(title: str, width: int, depth: int, heads: int) -> dict[str, Any]:
    return {"title": title, "name": "vit", "width": width, "depth": depth, "heads": heads}


TEXT = DataSpec("noise", Tokens(256, 256), NextTokens(256, 256), 0, 0, 0, "", "bundled")
LLAMA = {"title": "llama_tiny", "name": "llama"}
WIDE_LLAMA = {"title": "Llama 1024 x 16", "name": "llama", "width": 1024, "depth": 16, "heads": 16, "ff": 2816}
TWO_OF_FOUR = [("2:4", "semi_structured")]
ON_CPU = [
    (vit("ViT-S, 32 pixels", 384, 12, 6), images(32, 10), 8,
     [("2:4", "csr"), ("0.9", "csr"), ("0.95", "csr"), ("block:16x16:0.9", "bsr")]),
    (LLAMA, TEXT, 8, [("0.9", "csr"), ("block:16x16:0.9", "bsr")]),
]  # fmt: skip
ON_GPU = [
    (vit("ViT-B, 224 pixels", 768, 12, 12), images(224, 1000), 256, TWO_OF_FOUR),
    (vit("ViT-L, 224 pixels", 1024, 24, 16), images(224, 1000), 128, TWO_OF_FOUR),
    (LLAMA, TEXT, 64, TWO_OF_FOUR),
    (WIDE_LLAMA, TEXT, 64, TWO_OF_FOUR),
]
"""(model options, data, batch, [(sparsity, form)])."""
