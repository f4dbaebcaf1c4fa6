"""Published CIFAR weights load and score what their README says."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from data_specs import image_data

from sparselab.core.options import validate
from sparselab.inputs.models.family import MODELS

DATA = image_data((3, 32, 32), 10, "cifar10", train=50_000, val=0, test=10_000)


def needed(*parts: str) -> Path:
    path = Path(os.environ.get("SPARSELAB_DATA", "/nonexistent"), *parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} in SPARSELAB_DATA")
    return path


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_names_and_shapes(depth: int) -> None:
    weights = str(needed("weights", f"resnet{depth}_cifar10.safetensors"))
    schema = MODELS["cifar_resnet"].Options
    member = MODELS["cifar_resnet"](validate(schema, {"depth": depth, "weights": weights}, "model"))
    assert member.issues(DATA) == []
    member.build(DATA)


@pytest.mark.slow
def test_accuracy_of_resnet20() -> None:
    """81.03 % on the test set that was compressed again (91.78 % on the original)."""
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(needed("cifar10", "test.parquet"))
    images = np.stack([np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in table["image"].to_pylist()])
    labels = torch.tensor(table["label"].to_pylist())
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    weights = str(needed("weights", "resnet20_cifar10.safetensors"))
    schema = MODELS["cifar_resnet"].Options
    model = MODELS["cifar_resnet"](validate(schema, {"weights": weights}, "model")).build(DATA).eval()
    hits = 0
    with torch.no_grad():
        for batch, target in zip(torch.from_numpy(images).split(500), labels.split(500), strict=True):
            inputs = (batch.permute(0, 3, 1, 2) / 255 - mean) / std
            hits += (model(inputs).argmax(1) == target).sum().item()
    assert hits == pytest.approx(8103, abs=1)  # one image on the boundary may move with the arithmetic of the machine
