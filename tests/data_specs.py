"""Facts about data that nobody loads, for tests of what a plan makes of them."""

from __future__ import annotations

from typing import Any

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Classes, DataType, Images, NextTokens, Tokens

EXAMPLES = 8  # in each split


def image_data(shape: tuple[int, int, int], classes: int, name: str = "pictures", **more: Any) -> DataSpec:
    """A set of images of ``shape`` (channels, height, width) in classes, as a local copy."""
    return spec_of(name, Images(*shape), Classes(classes), **more)


def text_data(tokens: int, vocabulary: int, name: str = "words", ordered: bool = False, **more: Any) -> DataSpec:
    """A text in windows of so many tokens, as a local copy."""
    return spec_of(name, Tokens(tokens, vocabulary, ordered=ordered), NextTokens(tokens, vocabulary), **more)


def spec_of(name: str, inputs: DataType, targets: DataType, **more: Any) -> DataSpec:
    """A local copy of a set of any types, with few examples unless ``more`` says how many."""
    sizes = {"train": EXAMPLES, "val": EXAMPLES, "test": EXAMPLES}
    return DataSpec(name, inputs, targets, **{**sizes, "fingerprint": "0" * 64, "source": "local", **more})
