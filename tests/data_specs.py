"""Facts about data that nobody loads, for tests of what a plan makes of them."""

from __future__ import annotations

from typing import Any

from sparselab.core.data_spec import DataSpec

EXAMPLES = 8  # in each split


def image_data(shape: tuple[int, int, int], classes: int, name: str = "pictures", **more: Any) -> DataSpec:
    """A set of images of ``shape`` (channels, height, width), as a local copy."""
    return _spec(name, "image", shape, classes, more)


def text_data(tokens: int, vocabulary: int, name: str = "words", **more: Any) -> DataSpec:
    """A text in windows of so many tokens, as a local copy."""
    return _spec(name, "text", (tokens,), vocabulary, more)


def _spec(name: str, task: str, shape: tuple[int, ...], classes: int, more: dict[str, Any]) -> DataSpec:
    sizes = {"train": EXAMPLES, "val": EXAMPLES, "test": EXAMPLES}
    return DataSpec(name, task, shape, classes, **{**sizes, "fingerprint": "0" * 64, "source": "local", **more})
