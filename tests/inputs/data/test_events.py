"""Sound as events, by hand and by properties; Fashion-MNIST from the files in which it was published."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from sparselab.core.errors import ConfigError
from sparselab.core.options import validate
from sparselab.inputs.data.events import binned, crossings, filters
from sparselab.inputs.data.sets.fashion import FashionMnist
from sparselab.inputs.data.sets.spoken import SpokenDigits


def tone(hertz, seconds=0.2, loudness=1.0):
    at = np.arange(round(seconds * 8000)) / 8000
    return loudness * np.sin(2 * np.pi * hertz * at)


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSELAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPARSELAB_DATA", raising=False)


# -- events ------------------------------------------------------------------------------------------------------------


def test_a_band_fires_once_for_each_level_that_it_crosses():
    """A tone sets in: its band climbs the ten levels of 60 dB, and stays there until the clip ends."""
    events = crossings(tone(1000), 8000, 16, 6.0)
    up, down = events[:, :16], events[:, 16:]
    loudest = int(np.argmax(up.sum(0)))
    assert up[:, loudest].sum() == up[0, loudest] == 10 and down[:, loudest].sum() == 0
    assert np.array_equal(up.cumsum(0) - down.cumsum(0) >= 0, np.ones((len(events), 16), bool))


def test_what_is_half_as_loud_has_gone_down_two_levels_of_three_decibels():
    sound = np.concatenate([tone(1000), tone(1000, loudness=0.51)])
    events = crossings(sound, 8000, 16, 3.0)
    loudest = int(np.argmax(events[:, :16].sum(0)))
    assert events[:, 16 + loudest].sum() - events[1:, loudest].sum() == 2  # 5.85 dB


def test_loudness_of_the_whole_clip_does_not_matter_and_silence_says_nothing():
    sound = tone(700) + 0.2 * tone(2000)
    assert np.array_equal(crossings(sound, 8000, 32, 6.0), crossings(0.01 * sound, 8000, 32, 6.0))
    assert np.isfinite(crossings(np.zeros(800), 8000, 8, 6.0)).all()
    assert len(crossings(tone(500, 0.001), 8000, 8, 6.0)) == 1  # shorter than a window


@pytest.mark.parametrize("bands", [1, 32, 64])
def test_every_band_hears_something(bands):
    assert (filters(8000, bands).sum(1) > 0).all()


@pytest.mark.parametrize("steps", [1, 3, 10, 30])
def test_no_event_is_lost_in_time_steps(steps):
    events = np.random.default_rng(0).integers(0, 4, (13, 5))
    found = binned(events, steps)
    assert found.shape == (steps, 5) and np.array_equal(found.sum(0), events.sum(0))
    assert np.array_equal(binned(events, 13), events)
    assert binned(np.full((2, 1), 200), 1).tolist() == [[255]]


# -- spoken digits -----------------------------------------------------------------------------------------------------


@pytest.fixture
def spoken(tmp_path, monkeypatch):
    """Stand-ins of 40 and 20 clips, each a tone by its digit, and a function that makes the set of them."""
    monkeypatch.setattr(SpokenDigits, "sizes", {"train": 40, "test": 20})
    folder = tmp_path / "data" / "spoken_digits"
    folder.mkdir(parents=True)
    for part, count in SpokenDigits.sizes.items():
        labels = np.arange(count) % 10
        clips = [(8000 * tone(300 + 300 * digit, 0.1 + 0.01 * digit)).astype(np.int16) for digit in labels]
        lengths = np.array([len(clip) for clip in clips], np.int32)
        np.savez(folder / f"{part}.npz", audio=np.concatenate(clips), length=lengths, label=labels.astype(np.int8))

    def make(**options):
        given = validate(SpokenDigits.Options, {"augment": {}, "val": 10, **options}, "dataset")
        return SpokenDigits(given, str(tmp_path / "data"))

    make.folder = folder
    return make


def test_clips_become_pictures_of_time_steps_and_channels(spoken):
    data = spoken(steps=4, bands=8)
    spec, splits = data.spec(), data.load()
    assert (spec.train, spec.val, spec.test, spec.classes, spec.shape) == (30, 10, 20, 10, (1, 4, 16))
    assert splits.train.images.shape == (30, 1, 4, 16) and splits.train.images.dtype == torch.uint8
    source = splits.source("test", 4, train=False, device="cpu", workers=0)
    first = source.normalise(splits.test.images[:2])
    assert torch.allclose(first, splits.test.images[:2].float(), atol=1e-4)  # counts as they are
    again = spoken(steps=4, bands=8).load()
    assert torch.equal(again.test.images, splits.test.images)  # from the cache
    by_digit = [splits.test.images[splits.test.labels == digit].unique(dim=0) for digit in range(10)]
    assert all(len(pictures) == 1 for pictures in by_digit)


def test_damaged_clips_are_refused_in_a_line(spoken):
    def line(**options):
        with pytest.raises(ConfigError) as refused:
            data = spoken(**options)
            data.spec()
            data.load()
        return str(refused.value)

    path = spoken.folder / "test.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    assert "cannot be read" in line()
    np.savez(path, audio=np.zeros(10, np.int16), length=np.array([10]), label=np.array([1]))
    assert "does not hold 20 clips" in line()
    path.unlink()
    assert "test.npz does not exist" in line()
    with pytest.raises(ConfigError, match=r"dataset\.steps=0"):
        spoken(steps=0)


# -- Fashion-MNIST -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_read_from_its_published_files(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(FashionMnist, "sizes", {"train": 20, "test": 10})
    folder: Path = tmp_path / "data" / "fashion_mnist"
    folder.mkdir(parents=True)
    kept = {}
    for part, name in (("train", "train"), ("test", "t10k")):
        count = FashionMnist.sizes[part]
        pixels = np.random.default_rng(count).integers(0, 256, (count, 1, 28, 28), np.uint8)
        kept[part] = pixels, np.arange(count, dtype=np.uint8) % 10
        for what, values, head in (("images-idx3", pixels, 16), ("labels-idx1", kept[part][1], 8)):
            content = bytes(head) + values.tobytes()
            path = folder / f"{name}-{what}-ubyte{'.gz' * packed}"
            path.write_bytes(gzip.compress(content) if packed else content)
    options = validate(FashionMnist.Options, {"augment": {}, "val": 0}, "dataset")

    def make():
        return FashionMnist(options, str(tmp_path / "data"))

    splits = make().load()
    assert torch.equal(splits.test.images, torch.from_numpy(kept["test"][0]))
    assert sorted(splits.train.labels.tolist()) == sorted(kept["train"][1].tolist())
    path.write_bytes(path.read_bytes()[:12])
    with pytest.raises(ConfigError, match=r"(cut short|cannot be unpacked)"):
        make().load()
    path.unlink()
    with pytest.raises(ConfigError, match="copy all four files"):
        make().spec()
