"""Few shots, resized and coloured images, draws of the training images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparselab.core.errors import ConfigError
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.sets.arrays import resized
from sparselab.inputs.data.sets.images import IMAGENET
from sparselab.inputs.data.subset import balanced, shots


def digits(**options):
    cls = DATASETS["digits"]
    return cls(cls.Options(**options))


@pytest.mark.parametrize("count", [1, 3, 40])
def test_there_are_exactly_n_of_each_class(count):
    """Item 8 of the dossier of arXiv 2308.14969."""
    data = digits(n_shot=count)
    train = data.load().train
    assert len(train) == 10 * count == data.spec().train
    assert torch.bincount(train.labels).tolist() == [count] * 10


def test_more_shots_than_images_take_all_of_them():
    """Item 8: classes of 138 to 147 images; of 140 shots the two smaller ones give all that they have."""
    for options, least in (({"n_shot": 140, "val": 0}, 138), ({"n_shot": 1000, "val": 100}, 128)):
        data = digits(**options)
        train = data.load().train
        assert len(train) == data.spec().train
        assert int(torch.bincount(train.labels).min()) == least


def test_each_draw_takes_other_shots_and_no_test_image_moves():
    first, again, other = (digits(n_shot=5, train_draw=draw).load() for draw in (0, 0, 1))
    assert first.digests["train"] == again.digests["train"] != other.digests["train"]
    assert first.digests["test"] == other.digests["test"]
    limited = [digits(limit_train=100, train_draw=draw).load().digests["train"] for draw in (0, 1)]
    assert limited[0] != limited[1]


def test_shots_of_a_class_that_has_fewer():
    labels = np.array([0, 1, 1, 1, 2, 2])
    assert np.bincount(labels[shots(labels, 2, "a")]).tolist() == [1, 2, 2]
    assert shots(np.empty(0, np.int64), 2, "a").tolist() == []


@pytest.mark.parametrize("part", ["val", "limit_test", "limit_test 1"])
def test_fewer_images_than_classes_are_of_drawn_classes(part):
    """Not of the first ones: eight pictures of CIFAR-100 for a quick look are any eight, no two of a class."""
    labels = np.arange(500) % 100
    few = [balanced(labels, count, part) for count in (0, 1, 8, 99)]
    assert [len(rows) for rows in few] == [len(set(labels[rows])) for rows in few] == [0, 1, 8, 99]
    assert set(few[1]) < set(few[2]) < set(few[3]) < set(balanced(labels, 200, part))
    assert labels[few[2]].max() > 8 and few[2].tolist() == sorted(few[2])
    assert digits(val=8).load().digests["val"] == digits(val=8).load().digests["val"]
    assert np.bincount(labels[balanced(labels, 150, part)]).tolist() == [2] * 50 + [1] * 50  # as records have it


def test_images_in_colour_of_another_size():
    data = digits(resize=16, colour=True, normalise="imagenet")
    assert data.spec().shape == (3, 16, 16) and data.spec().title == "digits-16x16"
    loaded = data.load()
    assert (loaded.mean, loaded.std) == IMAGENET
    images = loaded.test.images
    assert images.shape[1:] == (3, 16, 16) and torch.equal(images[:, 0], images[:, 2])
    flat = np.full((2, 1, 4, 4), 77, np.uint8)
    assert (resized(flat, 9) == 77).all() and resized(flat, 9).shape == (2, 1, 9, 9)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"n_shot": 3, "limit_train": 50}, "dataset.n_shot=3: dataset.limit_train chooses training images, too"),
        ({"train_draw": 1}, "dataset.train_draw=1: all training images are taken, and there is nothing to draw"),
        ({"n_shot": 140, "val": 15}, "dataset.n_shot=140: how many images of a class validation leaves is not known"),
        ({"normalise": "imagenet"}, "dataset.normalise=imagenet: ImageNet's statistics are of three channels"),
    ],
)
def test_what_does_not_fit_is_refused(options, line):
    with pytest.raises(ConfigError) as refused:
        digits(**options).spec()
    assert str(refused.value.issues[0]).startswith(line)
