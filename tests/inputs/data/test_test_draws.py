"""Draws of what is scored: passages of a text, images of a test set. One for each seed shows how much a score scatters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparselab.core.errors import ConfigError
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.sets.text import passage


def made(name, folder=None, **options):
    cls = DATASETS[name]
    return cls(cls.Options(**options), folder and str(folder))


def test_a_passage_is_of_tokens_that_follow_each_other():
    tokens = np.arange(100)
    found = [passage(tokens, 30, draw) for draw in range(20)]
    assert all(np.array_equal(part, part[0] + np.arange(30)) for part in found)
    assert len({int(part[0]) for part in found}) > 10
    assert np.array_equal(passage(tokens, 30, 3), passage(tokens, 30, 3))
    assert np.array_equal(passage(tokens, 100, 7), tokens)


def test_a_text_is_scored_on_a_passage_of_its_test_split(tmp_path):
    (tmp_path / "text").mkdir()
    text = bytes(np.random.default_rng(0).integers(97, 123, 4000, dtype=np.uint8))
    (tmp_path / "text" / "tinyshakespeare.txt").write_bytes(text)
    whole = made("tinyshakespeare", tmp_path, block=8).load()
    member = made("tinyshakespeare", tmp_path, block=8, limit_test=41, test_draw=2)
    part = member.load()
    assert member.spec().test == 5 and len(part.test) == 41 and part.bytes_per_token["test"] == 1
    assert torch.equal(part.train, whole.train) and part.content != whole.content
    assert bytes(part.test.tolist()) in bytes(whole.test.tolist())
    with pytest.raises(ConfigError, match=r"dataset.limit_test=999: the test split has 200 tokens — write at most 200"):
        made("tinyshakespeare", tmp_path, limit_test=999).spec()


def test_images_are_drawn_with_equal_classes():
    first, same, other = (
        made("digits", limit_test=100, **options).load().test for options in ({}, {"test_draw": 0}, {"test_draw": 1})
    )
    assert torch.equal(first.images, same.images) and not torch.equal(first.images, other.images)
    assert torch.bincount(other.labels).tolist() == [10] * 10
