"""Interactions: what trains, what is held out, what a batch holds, and what is said of files that are not right."""

from __future__ import annotations

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from sparselab.core.data_types import Taken, Users
from sparselab.core.errors import ConfigError
from sparselab.inputs.data import heldout
from sparselab.inputs.data.dataset import DATASETS

USERS, ITEMS = 12, 20


def interactions(rng=None):
    rng = rng or np.random.default_rng(0)
    rows = [(u, i) for u in range(USERS) for i in rng.choice(ITEMS, 6 + u % 5, replace=False)]
    return np.array(rows, np.int64).T


@pytest.fixture
def folder(tmp_path):
    pairs = interactions()
    lines = [f"{10 + u},{3 * i},4.5,{1000 - n}" for n, (u, i) in enumerate(pairs.T)]
    (tmp_path / "movielens_small").mkdir()
    (tmp_path / "movielens_small" / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *lines]))
    (tmp_path / "recsys" / "lastfm").mkdir(parents=True)
    held = np.arange(pairs.shape[1]) % 4 == 0
    for part, own in (("train", ~held), ("test", held)):
        table = {"user": pairs[0][own].astype("i4"), "item": pairs[1][own].astype("i4")}
        pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "recsys" / "lastfm" / f"{part}.parquet")
    return tmp_path


def made(name, folder, **options):
    cls = DATASETS[name]
    return cls(cls.Options(**options), str(folder))


def keys(pairs):
    return {tuple(pair) for pair in np.asarray(pairs).T.tolist()}


def found(ranked, lists):
    rows = np.repeat(ranked.users, lists.counts)
    return keys([rows, lists.items])


def test_shares_of_each_user_are_disjoint_and_leave_one():
    pairs = interactions()
    whole = heldout.within_users(pairs, 0.1, 0.2, USERS, ITEMS)
    train, val, test = keys(whole.train), found(whole.val, whole.val.wanted), found(whole.test, whole.test.wanted)
    assert train | val | test == keys(pairs) and len(train) + len(val) + len(test) == pairs.shape[1]
    counts = np.bincount(pairs[0])
    assert whole.test.wanted.counts.tolist() == np.rint(0.2 * counts).tolist()
    assert set(whole.train[0]) == set(range(USERS)) and whole.history is whole.train
    assert found(whole.val, whole.val.unranked) <= train
    assert found(whole.test, whole.test.unranked) == train | val, "what was validated on is not recommended again"
    one = np.array([[0, 1, 1], [5, 5, 6]])
    assert heldout.by_share(one, 0.9, "test").tolist().count(True) == 1, "of a single interaction none is held out"


def test_held_out_users_are_known_by_what_is_folded_in():
    pairs = interactions()
    whole = heldout.whole_users(pairs, 3, 0.2, USERS, ITEMS)
    assert len(whole.val) == len(whole.test) == 3 and not set(whole.val.users) & set(whole.test.users)
    outside = {*whole.val.users, *whole.test.users}
    assert set(whole.train[0]) == set(range(USERS)) - outside
    for part in (whole.val, whole.test):
        wanted, folded = found(part, part.wanted), found(part, part.unranked)
        assert not wanted & folded and wanted | folded == {pair for pair in keys(pairs) if pair[0] in set(part.users)}
        assert folded <= keys(whole.history) and not wanted & keys(whole.history)


def test_the_last_is_ranked_among_items_that_were_never_taken():
    pairs = interactions()
    times = np.random.default_rng(1).permutation(pairs.shape[1])
    whole = heldout.last_ones(pairs, times, 5, USERS, ITEMS)
    for row, user in enumerate(whole.test.users):
        own = pairs[0] == user
        last, before = pairs[1][own][np.argsort(times[own])[[-1, -2]]]
        assert whole.test.wanted.items[row] == last and whole.val.wanted.items[row] == before
        shut = whole.test.unranked.dense(np.array([row]), ITEMS)[0]
        ranked = set(np.flatnonzero(~shut))
        assert len(ranked) == 6 and ranked & set(pairs[1][own]) == {last}
    assert whole.ranked == 6


def test_filters_take_items_first_then_users_once():
    pairs = np.array([[0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0]])
    assert heldout.often(pairs, 2, 2).tolist() == [True, True, False, True, True, False]
    assert heldout.most(pairs, 1, 2).tolist() == [True, True, False, False, False, False]
    train, test = heldout.numbered(np.array([[3, 9], [7, 2]]), np.array([[9, 5], [4, 7]]))
    assert train.tolist() == [[0, 1], [2, 0]] and test.tolist() == [[1], [1]], "user 5 has nothing to train on"


def test_batches_of_pairs_hold_what_was_taken_and_what_was_not(folder):
    dataset = made("movielens", folder, negatives=3, min_item=1)
    spec, splits = dataset.spec(), dataset.load()
    taken, train = keys(splits.division.train), splits.loader("train", 16, 5)
    assert spec.train == len(taken) and spec.inputs.shape == (5,) and spec.inputs.interactions == len(taken)
    for inputs, wanted in train:
        assert inputs.shape == (16, 5) and wanted.tolist() == [[1, 0, 0, 0]] * 16
        for user, positive, *others in inputs.tolist():
            assert (user, positive) in taken and not {(user, other) for other in others} & taken
    again = next(iter(splits.loader("train", 16, 5, rank=1, world=2)))[0]
    assert torch.equal(again, next(iter(splits.loader("train", 16, 5)))[0][8:]), "ranks share the batch of one process"
    each = made("movielens", folder, draw="interactions", min_item=1).load()
    seen = [tuple(pair[:2]) for inputs, _ in each.loader("train", 1, 0) for pair in inputs.tolist()]
    assert sorted(seen) == sorted(taken)


def test_batches_of_users_and_of_rankings(folder):
    dataset = made("movielens", folder, examples="users", split="users", held_out=2, min_item=1)
    spec, splits = dataset.spec(), dataset.load()
    assert (spec.train, spec.val, spec.test) == (8, 2, 2)
    assert isinstance(spec.inputs, Users) and spec.inputs.candidates == 0
    assert spec.targets == Taken(spec.inputs.items, spec.inputs.items)
    users, wanted = next(iter(splits.loader("train", 8, 0)))
    rows = {user: set(np.flatnonzero(row)) for user, row in zip(users[:, 0].tolist(), wanted.numpy(), strict=True)}
    assert {(u, i) for u, row in rows.items() for i in row} == keys(splits.division.train)
    users, wanted, unranked = next(iter(splits.loader("test", 2, 0)))
    assert users.shape == (2, 1) and not (wanted.bool() & unranked).any() and wanted.sum(1).min() >= 1
    _, wanted, unranked = next(iter(splits.loader("train", 8, 0, train=False)))
    assert not unranked.any() and int(wanted.sum()) == splits.division.train.shape[1]
    assert np.array_equal(spec.inputs.history(), splits.division.history)


def test_a_given_test_stays_what_it_is(folder):
    dataset = made("lastfm", folder)
    spec, splits = dataset.spec(), dataset.load()
    pairs = interactions()
    assert int(splits.division.test.wanted.counts.sum()) == (np.arange(pairs.shape[1]) % 4 == 0).sum()
    assert spec.inputs.users == USERS and spec.inputs.items == ITEMS
    few = made("lastfm", folder, limit_users=4, limit_items=8, val=0.4).spec()
    assert few.inputs.users == 4 and few.inputs.items == 8


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("movielens", {"min_item": 99}, "dataset=movielens: no interaction is left — lower dataset.min_user=5"),
        ("movielens", {"split": "users", "held_out": 6, "min_item": 1}, "dataset.held_out=6: twice as many are held out"),
        ("movielens", {"split": "last", "among": 18, "min_item": 1}, "dataset.among=18: a user left only 10 of 20 items"),
        ("movielens", {"limit_items": 1, "min_user": 1}, "dataset=movielens: no interaction is left to validate on"),
        ("gowalla", {}, "dataset=gowalla: no local copy — put recsys/gowalla/{train,test}.parquet in data_dir"),
    ],
)  # fmt: skip
def test_what_cannot_be_divided_is_one_line(folder, name, options, line):
    with pytest.raises(ConfigError) as refused:
        made(name, folder, **options).spec()
    (issue,) = refused.value.issues
    assert str(issue).startswith(line)


def test_a_user_who_took_everything_leaves_no_negative(folder):
    rows = [f"{u},{i},3,1" for u in range(4) for i in range(4)]
    (folder / "movielens_small" / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]))
    whole = made("movielens", folder, test=0.2, val=0.1, min_user=1, min_item=1)
    with pytest.raises(ConfigError, match="no interaction is left to validate on"):
        whole.spec()
    some = {"split": "users", "held_out": 1, "min_user": 1, "min_item": 1}
    with pytest.raises(ConfigError, match="a user took all 4 items"):
        made("movielens", folder, **some).spec()
    assert made("movielens", folder, examples="users", **some).spec().train == 2


@pytest.mark.parametrize(
    "text", ["userId,movieId,rating,timestamp\n1,x,3,1\n", "userId,movieId,rating,timestamp\n1,2\n"]
)
def test_a_damaged_file_is_one_line(folder, text):
    (folder / "movielens_small" / "ratings.csv").write_text(text)
    with pytest.raises(ConfigError, match=r"ratings\.csv cannot be read"):
        made("movielens", folder).spec()


def test_a_damaged_parquet_is_one_line(folder):
    path = folder / "recsys" / "lastfm" / "test.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ConfigError, match="is cut short or not a parquet file"):
        made("lastfm", folder).spec()
    pyarrow.parquet.write_table(pyarrow.table({"user": [1.5], "item": [2.0]}), path)
    with pytest.raises(ConfigError, match="no numbers from 0"):
        made("lastfm", folder).spec()
