"""Feeds: order, resume, ranks, and that every token is scored once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sparselab.core.errors import ConfigError, RunFailed
from sparselab.inputs.data.augment import Augment
from sparselab.inputs.data.loader import Loader
from sparselab.inputs.data.sets.imagenet import FolderImages
from sparselab.inputs.data.sources import IGNORE, Images, Pictures, Streams, Windows

EVERYTHING = Augment(flip=True, crop=1, shift=0.5, rotate=20, scale=0.2, cutout=2)
MIXED = Augment(flip=True, mixup=0.4)


def images(n: int = 23, augment: Augment = EVERYTHING) -> Images:
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (n, 2, 5, 5), np.uint8))
    return Images(pixels, torch.arange(n) % 3, (0.5, 0.4), (0.2, 0.3), 3, augment)


def windows(n: int = 83, block: int = 4) -> Windows:
    return Windows(torch.arange(n, dtype=torch.uint8), block)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FolderImages:
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(2)
    for i in range(13):
        Image.fromarray(rng.integers(0, 256, (20 + i, 24, 3), np.uint8)).save(root / f"{i}.png")
    return FolderImages(root, [f"{i}.png" for i in range(13)])


def pictures(store: FolderImages, workers: int = 0, augment: bool = True) -> Pictures:
    labels = np.arange(13) % 4
    mean = std = (0.5, 0.5, 0.5)
    return Pictures(store, labels, size=8, resize=10, mean=mean, std=std, augment=augment, workers=workers)


def taken(loader, limit: int | None = None) -> list:
    out = []
    for batch in loader:
        out.append(batch)
        if len(out) == limit:
            break
    return out


def same(left: list, right: list) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) for one, other in zip(left, right, strict=True) for a, b in zip(one, other, strict=True)
    )


SOURCES = {"images": images, "mixup": lambda: images(augment=MIXED), "text": windows}


@pytest.mark.parametrize("kind", SOURCES)
def test_resume_at_every_batch_of_two_epochs(kind):
    unbroken = Loader(SOURCES[kind](), 5, seed=7, train=True)
    whole = taken(unbroken) + taken(unbroken)
    n = len(unbroken)
    assert len(whole) == 2 * n and not same(whole[:n], whole[n:])
    for at in range(2 * n):
        first = Loader(SOURCES[kind](), 5, seed=7, train=True)
        for left in [n, n][: at // n] + [at % n]:
            taken(first, left) if left else None
        resumed = Loader(SOURCES[kind](), 5, seed=7, train=True)
        resumed.load_state_dict(first.state_dict())
        rest = taken(resumed) + (taken(resumed) if at < n else [])
        assert same(rest, whole[at:]), at


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_resume_at_every_batch(store, workers):
    source = pictures(store, workers)
    loader = Loader(source, 3, seed=1, train=True)
    whole = taken(loader)
    assert len(whole) == len(loader) == 4
    for at in range(4):
        loader.position(0, at)
        assert same(taken(loader), whole[at:])
    assert same(whole, taken(Loader(pictures(store), 3, seed=1, train=True)))


def test_a_loader_takes_nothing_from_the_global_generators(store):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for source in (images(augment=MIXED), windows(), pictures(store, workers=1)):
        taken(Loader(source, 5, seed=0, train=True))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", [*SOURCES, "pictures"])
@pytest.mark.parametrize("train", [True, False])
def test_two_ranks_together_are_one_process(kind, train, store):
    def loader(rank: int, world: int) -> Loader:
        source = pictures(store, augment=train) if kind == "pictures" else SOURCES[kind]()
        return Loader(source, 6, seed=3, train=train, rank=rank, world=world)

    together = [
        tuple(torch.cat(part) for part in zip(left, right, strict=True))
        for left, right in zip(loader(0, 2), loader(1, 2), strict=True)
    ]
    assert same(together, taken(loader(0, 1)))


def test_evaluation_shares_may_be_empty_and_lose_nothing():
    shares = [taken(Loader(images(5), 4, seed=0, train=False, rank=r, world=3)) for r in range(3)]
    assert [[len(y) for _, y in share] for share in shares] == [[1, 0], [1, 0], [2, 1]]


def test_pictures_of_an_empty_share(store):
    loader = Loader(pictures(store, augment=False), 4, seed=0, train=False, rank=0, world=2)
    shapes = [tuple(x.shape) for x, _ in loader]
    assert shapes == [(2, 3, 8, 8)] * 3 + [(0, 3, 8, 8)]


@settings(max_examples=30)
@given(n=st.integers(4, 60), batch=st.integers(1, 9), seed=st.integers(0, 2**62))
def test_an_epoch_has_each_image_at_most_once_and_evaluation_each_once(n, batch, seed):
    pixels = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    source = Images(pixels, torch.arange(n), (0.0,), (1.0,), n, Augment())
    scored = [i for _, y in Loader(source, batch, seed, train=False) for i in y.tolist()]
    assert scored == list(range(n))
    if n >= batch:
        loader = Loader(source, batch, seed, train=True)
        seen = [i for _, y in loader for i in y.tolist()]
        assert len(seen) == len(set(seen)) == len(loader) * batch > n - batch


@settings(max_examples=50)
@given(n=st.integers(2, 90), block=st.integers(1, 12), batch=st.integers(1, 7))
def test_every_token_is_a_target_once(n, block, batch):
    loader = Loader(windows(n, block), batch, seed=0, train=False)
    batches = taken(loader)
    assert len(batches) == len(loader)
    targets = torch.cat([y.flatten() for _, y in batches])
    inputs = torch.cat([x.flatten() for x, _ in batches])
    counted = targets != IGNORE
    assert targets[counted].tolist() == list(range(1, n))
    assert torch.equal(inputs[counted] + 1, targets[counted])


def test_training_windows_are_shifted_by_one_and_reach_both_ends():
    starts = set()
    loader = Loader(windows(n=10, block=4), 2, seed=0, train=True)
    for _ in range(60):
        for x, y in loader:
            assert x.dtype == y.dtype == torch.int64 and x.shape == (2, 4)
            assert torch.equal(x + 1, y)
            starts |= set(x[:, 0].tolist())
    assert starts == set(range(6))


def test_pixels_are_normalised_and_evaluation_is_not_augmented():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    source = Images(pixels, torch.arange(3), (0.2,), (0.4,), 3, EVERYTHING)
    ((x, y),) = Loader(source, 8, seed=0, train=False)
    torch.testing.assert_close(x.flatten(), torch.tensor([-0.5, 0.0, 2.0]))
    assert x.dtype == torch.float32 and y.tolist() == [0, 1, 2]


def test_mixup_mixes_pixels_and_labels_by_the_same_share():
    pixels = torch.eye(4, dtype=torch.uint8).mul(255).view(4, 4, 1, 1)  # image i is class i's one-hot
    source = Images(pixels, torch.arange(4), (0.0,) * 4, (1.0,) * 4, 4, Augment(mixup=1.0))
    loader = Loader(source, 4, seed=5, train=True)
    for x, y in taken(loader) + taken(loader):
        torch.testing.assert_close(x.view(4, 4), y)
        torch.testing.assert_close(y.sum(1), torch.ones(4))


def test_epochs_seeds_and_batches_differ():
    loader = Loader(images(), 5, seed=0, train=True)
    first, second = taken(loader), taken(loader)
    other = taken(Loader(images(), 5, seed=1, train=True))
    assert not same(first, second) and not same(first, other)
    loader.set_epoch(0)
    assert same(taken(loader), first)


def test_each_batch_of_each_epoch_is_augmented_by_its_own_numbers(store):
    same_image = images(20)
    same_image.images[:] = same_image.images[0].clone()
    loader = Loader(same_image, 5, seed=0, train=True)
    batches = [x.numpy().tobytes() for x, _ in taken(loader) + taken(loader)]
    assert len(set(batches)) == 8
    loader = Loader(pictures(store), 13, seed=0, train=True)
    first, second = ({x.numpy().tobytes() for x in taken(loader)[0][0]} for _ in range(2))
    assert not first & second


def test_position_is_used_once_and_the_state_counts_what_was_handed_out():
    loader = Loader(images(), 5, seed=0, train=True)
    whole = taken(loader)
    loader.position(0, 2)
    iterator = iter(loader)  # made before set_epoch, as Lightning does
    loader.batch_sampler.sampler.set_epoch(0)
    assert loader.state_dict() == {"epoch": 0, "batch": 2}
    assert same([next(iterator)], whole[2:3])
    assert loader.state_dict() == {"epoch": 0, "batch": 3}
    assert same(list(iterator), whole[3:])
    assert loader.state_dict() == {"epoch": 1, "batch": 0}
    assert len(taken(loader)) == len(loader) == 4


def test_a_broken_off_epoch_starts_again_at_its_beginning():
    loader = Loader(images(), 5, seed=0, train=True)
    first = taken(loader, 2)
    assert same(taken(loader)[:2], first)


@pytest.mark.parametrize(("epoch", "batch"), [(0, 5), (0, -1), (-1, 0)])
def test_a_position_outside_the_epoch_is_an_error(epoch, batch):
    with pytest.raises(ValueError, match="no batch"):
        Loader(images(), 5, seed=0, train=True).position(epoch, batch)


def test_evaluation_starts_at_the_beginning_every_time():
    loader = Loader(images(), 5, seed=0, train=False)
    assert same(taken(loader, 2), taken(loader)[:2])
    assert loader.state_dict() == {"epoch": 0, "batch": 0}


@pytest.mark.parametrize(("batch", "world", "says"), [(24, 1, "only 23"), (5, 2, "2 processes")])
def test_training_refuses_what_gives_no_whole_batch(batch, world, says):
    with pytest.raises(ConfigError, match=says):
        Loader(images(), batch, seed=0, train=True, world=world)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_in_one_line(tmp_path, workers):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    source = pictures(FolderImages(tmp_path, ["a.png", "b.png"]), workers)
    source.labels = np.arange(2)
    with pytest.raises(RunFailed) as failed:
        taken(Loader(source, 2, seed=0, train=False))
    assert "b.png" in str(failed.value) and "\n" not in str(failed.value)


def test_pictures_of_evaluation_are_the_middle(tmp_path):
    middle = np.zeros((10, 20, 3), np.uint8)
    middle[1:9, 6:14] = 255
    Image.fromarray(middle).save(tmp_path / "a.png")
    source = pictures(FolderImages(tmp_path, ["a.png"]), augment=False)
    source.labels = np.arange(1)
    ((x, _),) = Loader(source, 1, seed=0, train=False)
    assert torch.equal(x, torch.ones(1, 3, 8, 8))


# -- streams ---------------------------------------------------------------------------------------------------------


def test_streams_by_hand():
    """Twelve tokens in two streams of windows of two: 11 predictions, 5 a stream in training, 6 and 5 in evaluation."""
    tokens = torch.arange(12, dtype=torch.uint8)
    train = taken(Loader(Streams(tokens, 2, 2, train=True), 2, seed=0, train=True))
    assert [[row.tolist() for row in x] for x, _ in train] == [[[0, 1], [5, 6]], [[2, 3], [7, 8]]]
    assert [[row.tolist() for row in y] for _, y in train] == [[[1, 2], [6, 7]], [[3, 4], [8, 9]]]
    scored = taken(Loader(Streams(tokens, 2, 2, train=False), 2, seed=0, train=False))
    assert [[row.tolist() for row in y] for _, y in scored] == [
        [[1, 2], [7, 8]],
        [[3, 4], [9, 10]],
        [[5, 6], [11, IGNORE]],
    ]


@given(st.integers(2, 60), st.integers(1, 7), st.integers(1, 6))
def test_streams_predict_every_token_once_and_go_on_where_they_were(length, block, count):
    tokens = torch.arange(length, dtype=torch.uint8)
    scored = taken(Loader(Streams(tokens, block, count, train=False), count, seed=0, train=False))
    targets = torch.cat([y.flatten() for _, y in scored])
    assert sorted(targets[targets != IGNORE].tolist()) == list(range(1, length))
    for train in (True, False):
        source = Streams(tokens, block, count, train)
        if not len(source):
            assert train and (length - 1) // block < count
            continue
        batches = taken(Loader(source, count, seed=0, train=train))
        assert all(x.shape == y.shape == (count, block) for x, y in batches)
        for (_, before), (x, _) in pairwise(batches):
            there = before[:, -1] != IGNORE
            assert torch.equal(before[:, -1][there], x[:, 0][there])
        assert not train or not torch.cat([y for _, y in batches]).eq(IGNORE).any()


def test_streams_resume_at_every_batch_and_are_shared_by_ranks_and_micro_batches():
    def loader(rank: int = 0, world: int = 1) -> Loader:
        return Loader(Streams(torch.arange(99, dtype=torch.uint8), 5, 4, train=True), 4, 0, True, rank, world)

    whole = taken(loader())
    for at in range(len(whole)):
        later = loader()
        later.position(1, at)
        assert same(taken(later), whole[at:])
    ranks = [loader(rank, 2) for rank in range(2)]
    for one in ranks:
        one.cuts = 2
    halves = [[[part.chunk(2) for part in batch] for batch in taken(one)] for one in ranks]
    for number, (x, _) in enumerate(whole):
        micro = [torch.cat([halves[rank][number][0][m] for rank in range(2)]) for m in range(2)]
        assert torch.equal(torch.cat(micro), x)
