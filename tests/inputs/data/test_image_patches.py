"""Pairs of images: patches, turns and noise are the same on every rank, and scoring sees the same noise every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sparselab.core.data_types import Images
from sparselab.core.errors import ConfigError
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.patches import ImagePairs, PairSplits, turned

torch.set_num_threads(1)


def splits(sigma=25.0, given=None, size=(12, 15)):
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randint(256, (5, 1, *size), generator=generator, dtype=torch.uint8)
    pairs = ImagePairs(wanted if given is None else given, wanted)
    return PairSplits(dict.fromkeys(("train", "val", "test"), pairs), 8, 4, sigma)


def test_ranks_share_a_batch():
    whole = list(splits().loader("train", 10, 3))
    halves = [list(splits().loader("train", 10, 3, rank=rank, world=2)) for rank in (0, 1)]
    assert len(whole) == 2 and whole[0][0].shape == (10, 1, 8, 8)
    for batch, *shares in zip(whole, *halves, strict=True):
        for i in (0, 1):
            assert torch.equal(torch.cat([share[i] for share in shares]), batch[i])


def test_a_patch_is_a_part_of_its_image_and_noise_is_added_to_it():
    given, wanted = next(iter(splits(sigma=10.0).loader("train", 20, 0)))
    image = splits().parts["train"].wanted.float() / 255
    windows = image.unfold(2, 8, 1).unfold(3, 8, 1).flatten(0, 3)
    known = {turned(window, turn).numpy().tobytes() for window in windows for turn in range(8)}
    assert all(patch[0].numpy().tobytes() in known for patch in wanted)
    noise = (given - wanted) * 255
    assert abs(float(noise.std()) - 10) < 1 and abs(float(noise.mean())) < 1


def test_scoring_sees_whole_images_with_the_same_noise():
    one, two = (list(splits().loader("test", size, 0)) for size in (2, 5))
    assert torch.equal(torch.cat([given for given, _ in one]), two[0][0])
    assert two[0][0].shape == (5, 1, 12, 15) and not torch.equal(*two[0])


def test_given_pairs_keep_their_own_noise():
    given = torch.zeros(5, 1, 12, 15, dtype=torch.uint8)
    batch = next(iter(splits(0.0, given).loader("train", 4, 0)))
    assert not batch[0].any() and batch[1].any()


def test_eight_turns_are_eight():
    square = torch.arange(9.0).view(1, 3, 3)
    assert len({tuple(turned(square, turn).flatten().tolist()) for turn in range(8)}) == 8


@pytest.fixture
def folder(tmp_path):
    """Two crops each of five scenes as PolyU names them, and small stand-ins for the Berkeley images."""
    rng = np.random.default_rng(0)
    for name, count, size in (("bsd400", 6, (180, 180)), ("bsd68", 3, (24, 30))):
        (tmp_path / "denoise" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, size[::-1] if i == 1 else size, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "denoise" / name / f"{i}.png")
    (tmp_path / "denoise" / "polyu").mkdir()
    for scene in "abcde":
        for crop in "12":
            for kind in ("real", "mean"):
                pixels = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "denoise" / "polyu" / f"{scene}_{crop}_{kind}.JPG")
    return tmp_path


def dataset(name, folder, **options):
    return DATASETS[name](DATASETS[name].Options(**options), str(folder))


def test_upright_photographs_are_laid_down(folder):
    made = dataset("bsd400", folder, patch=16, patches=2, val=1, noise=50.0)
    spec, loaded = made.spec(), made.load()
    assert (spec.inputs, spec.targets, spec.title) == (Images(1, 16, 16), Images(1, 16, 16), "bsd400-sigma50")
    assert (spec.train, spec.val, spec.test) == (10, 1, 3)
    assert loaded.parts["test"].wanted.shape == (3, 1, 24, 30) and loaded.sigma == 50
    assert len(loaded.loader("train", 5, 0)) == 2


def test_all_crops_of_a_scene_are_on_one_side(folder):
    made = dataset("polyu", folder)
    train, test = made.pairs()
    assert {path.name[0] for _, path in test} == {"d"} and {path.name[0] for _, path in train} == set("abce")
    assert all(given.name.replace("_real", "_mean") == wanted.name for given, wanted in train)
    assert made.spec().test == 2 and made.load().sigma == 0


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("bsd400", {"patch": 181}, "dataset.patch=181: is wider than an image of 180 pixels"),
        ("bsd400", {"val": 6}, "dataset.val=6: bsd400 has 6 training images"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, name, options, line):
    with pytest.raises(ConfigError) as refused:
        dataset(name, folder, **options).spec()
    (issue,) = refused.value.issues
    assert str(issue).startswith(line)
