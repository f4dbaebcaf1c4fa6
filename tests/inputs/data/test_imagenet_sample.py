"""A picture of each class of ImageNet: which are scored, and in what colours a network sees them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from sparselab.core.errors import ConfigError
from sparselab.core.options import validate
from sparselab.inputs.data.sets.imagenet_sample import ImagenetSample


def png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), grey, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stand-in of 20 pictures of 4x4, each as bright as its class, and a function that makes the set of it."""
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPARSELAB_DATA", raising=False)
    for name, value in (("shape", (3, 4, 4)), ("classes", 20), ("sizes", {"train": 2, "test": 18})):
        monkeypatch.setattr(ImagenetSample, name, value)
    folder = tmp_path / "data" / "imagenet_1000"
    folder.mkdir(parents=True)
    images = [{"bytes": png(i), "path": None} for i in range(20)]
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "label": list(range(20))}), folder / "train.parquet")

    def make(**options) -> ImagenetSample:
        given = validate(ImagenetSample.Options, {"augment": {}, **options}, "dataset")
        return ImagenetSample(given, str(tmp_path / "data"))

    return make


def test_every_tenth_picture_is_for_training_and_the_others_are_scored(made) -> None:
    spec, splits = made().spec(), made().load()
    assert (spec.train, spec.val, spec.test, spec.classes, spec.source) == (2, 0, 18, 20, "local")
    assert splits.train.labels.tolist() == [0, 10]
    assert splits.test.labels.tolist() == [i for i in range(20) if i % 10]
    assert all(torch.all(image == label) for image, label in zip(splits.test.images, splits.test.labels, strict=True))


def test_each_draw_scores_other_pictures(made) -> None:
    drawn = [made(limit_test=6, test_draw=draw).load().test.labels.tolist() for draw in (0, 1)]
    assert all(len(set(labels)) == 6 for labels in drawn) and drawn[0] != drawn[1]


def test_pixels_go_from_minus_one_to_one_unless_asked_otherwise(made) -> None:
    """Zero is -1 in the networks of TensorFlow: RGB / 127.5 - 1."""
    half, imagenet = made().load(), made(normalise="imagenet").load()
    assert half.mean == half.std == (0.5, 0.5, 0.5) and imagenet.mean == (0.485, 0.456, 0.406)


def test_it_has_no_public_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSELAB_DATA", raising=False)
    with pytest.raises(
        ConfigError, match=r"dataset=imagenet_1000: has no local copy.* — put imagenet_1000/train.parquet"
    ):
        ImagenetSample(validate(ImagenetSample.Options, {}, "dataset")).spec()
