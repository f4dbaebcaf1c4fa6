"""Base of all image sets: how the splits are drawn [no torch]."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from sparselab.core.errors import Issues
from sparselab.core.options import Options, off
from sparselab.inputs.data import subset

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and std that ImageNet weights were trained with


class ImageOptions(Options):
    """Sizes of the splits. Validation is taken from train; the public test set stays the test set."""

    val: int = Field(ge=0, description="images taken from train for validation; the draw is fixed")
    limit_train: int | None = Field(ge=1, description="images of train to use, classes balanced; null for all")
    limit_test: int | None = Field(ge=1, description="images of test to use, classes balanced; null for all")
    test_draw: int = off(0, ge=0, description="which draw of limit_test images; one for each seed shows their scatter")


def counts(name: str, options: ImageOptions, train: int, test: int, noun: str = "images") -> tuple[int, int, int]:
    """Sizes of train, val and test, from a set of ``train`` (validation included) and ``test`` examples.

    ConfigError where the options ask for more than there is.
    """
    issues = Issues()
    left = train - options.val
    if left < 1:
        what = f"{name} has {train} training {noun}"
        issues.add(f"dataset.val={options.val}", what, f"write at most {train - 1}")
    elif (options.limit_train or 0) > left:
        what = f"{left} training {noun} are left after dataset.val={options.val}"
        issues.add(f"dataset.limit_train={options.limit_train}", what, f"write at most {left}, or null")
    if (options.limit_test or 0) > test:
        what = f"{name} has {test} test {noun}"
        issues.add(f"dataset.limit_test={options.limit_test}", what, f"write at most {test}, or null")
    if options.test_draw and options.limit_test is None:
        what = f"all test {noun} are scored, and there is nothing to draw"
        issues.add(f"dataset.test_draw={options.test_draw}", what, "write dataset.limit_test, or leave it out")
    issues.raise_if_any()
    return options.limit_train or left, options.val, options.limit_test or test


def choose(
    options: ImageOptions, labels: np.ndarray, test_labels: np.ndarray, train_draw: int = 0
) -> dict[str, np.ndarray]:
    """Draw the rows of each split.

    Args:
        options: sizes of the splits and the draw of the test images
        labels: (n,) integer classes of the published training set
        test_labels: (m,) those of the test set
        train_draw: which draw of ``limit_train`` images

    Returns:
        Positions by split: train and val in ``labels``, test in ``test_labels``.
    """
    val = subset.balanced(labels, options.val, "val")
    train, test = subset.without(np.arange(len(labels)), val), np.arange(len(test_labels))
    if options.limit_train is not None:
        part = f"limit_train {train_draw}" if train_draw else "limit_train"
        train = train[subset.balanced(labels[train], options.limit_train, part)]
    if options.limit_test is not None:
        part = f"limit_test {options.test_draw}" if options.test_draw else "limit_test"
        test = subset.balanced(test_labels, options.limit_test, part)
    return {"train": train, "val": val, "test": test}
