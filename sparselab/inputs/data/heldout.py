"""Which interactions train, and which are held out to be ranked [no torch]."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparselab.inputs.data.seeds import generator


@dataclass(frozen=True)
class Lists:
    """Items of several rows: row r has ``items[starts[r] : starts[r + 1]]``, in ascending order.

    starts: (rows + 1,) int64. items: (interactions,) int64.
    """

    starts: np.ndarray
    items: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> np.ndarray:
        """(rows,) int64: how many items each row has."""
        return np.diff(self.starts)

    def dense(self, rows: np.ndarray, width: int) -> np.ndarray:
        """(b, width) bool: the items of ``rows`` (b,)."""
        made = np.zeros((len(rows), width), bool)
        for at, row in enumerate(rows):
            made[at, self.items[self.starts[row] : self.starts[row + 1]]] = True
        return made

    def arrays(self) -> Iterator[np.ndarray]:
        yield from (self.starts, self.items)


def lists_of(rows: np.ndarray, items: np.ndarray, count: int) -> Lists:
    """Sort interactions by row and item.

    Args:
        rows: (n,) int64 below ``count``
        items: (n,) int64
        count: rows that the result has

    Returns:
        The items of each row.
    """
    order = np.lexsort((items, rows))
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=count), out=starts[1:])
    return Lists(starts, items[order].astype(np.int64))


@dataclass(frozen=True)
class Ranked:
    """A part that is scored: for each of ``users`` (n,) a row of items to find, ``wanted``, among all but ``unranked``."""

    users: np.ndarray
    wanted: Lists
    unranked: Lists

    def __len__(self) -> int:
        return len(self.users)

    def arrays(self) -> Iterator[np.ndarray]:
        yield self.users
        yield from self.wanted.arrays()
        yield from self.unranked.arrays()


@dataclass(frozen=True)
class Division:
    """Interactions (2, n) int64, users over items: those trained on, and ``history``, what is known of users at any time.

    The history of users that are held out whole is what they are recommended by; that of others is what is trained on.
    ranked: how many items are ordered at least.
    """

    users: int
    items: int
    train: np.ndarray
    history: np.ndarray
    val: Ranked
    test: Ranked
    ranked: int


def numbered(pairs: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Number users and items from 0, in ascending order of what they are called.

    Args:
        pairs: (2, n) int64, users over items
        others: likewise; a user that ``pairs`` does not have is left out, an item is not

    Returns:
        Each of them, numbered alike.
    """
    users = np.unique(pairs[0])
    items = np.unique(np.concatenate([pairs[1], *(other[1] for other in others)]))
    kept = [pairs, *(other[:, np.isin(other[0], users)] for other in others)]
    return tuple(np.stack([np.searchsorted(users, one[0]), np.searchsorted(items, one[1])]) for one in kept)


def often(pairs: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """Choose items with enough interactions, and then users, one pass each.

    Args:
        pairs: (2, n) int64, users over items
        min_user: interactions that a user must have with these items
        min_item: interactions that an item must have

    Returns:
        (n,) bool, the interactions that stay.
    """
    kept = _counts(pairs[1])[pairs[1]] >= min_item
    return kept & (_counts(pairs[0][kept], pairs[0])[pairs[0]] >= min_user)


def most(pairs: np.ndarray, users: int | None, items: int | None) -> np.ndarray:
    """Choose the most taken items, and then the users that took most of them.

    Args:
        pairs: (2, n) int64, users over items
        users: how many stay; None: all
        items: likewise

    Returns:
        (n,) bool, the interactions that stay.
    """
    kept = np.ones(pairs.shape[1], bool)
    for axis, limit in ((1, items), (0, users)):
        counts = _counts(pairs[axis][kept], pairs[axis])
        if limit is not None and limit < len(counts):
            kept &= np.isin(pairs[axis], np.argsort(-counts, kind="stable")[:limit])
    return kept


def _counts(numbers: np.ndarray, all_of: np.ndarray | None = None) -> np.ndarray:
    most = numbers if all_of is None else all_of
    return np.bincount(numbers, minlength=int(most.max(initial=-1)) + 1)


def places(pairs: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Number the interactions of each user.

    Args:
        pairs: (2, n) int64, users over items
        order: (n,), by which they are numbered

    Returns:
        (n,) int64, from 0 for each user.
    """
    sequence = np.lexsort((order, pairs[0]))
    starts = np.concatenate([[0], np.cumsum(_counts(pairs[0]))])
    made = np.empty(pairs.shape[1], np.int64)
    made[sequence] = np.arange(pairs.shape[1]) - starts[pairs[0][sequence]]
    return made


def by_share(pairs: np.ndarray, share: float, name: str) -> np.ndarray:
    """Draw a share of each user's interactions; one at least stays outside, and the draw is always the same.

    Args:
        pairs: (2, n) int64, users over items
        share: in (0, 1); counts are rounded
        name: of the draw

    Returns:
        (n,) bool, those drawn.
    """
    place = places(pairs, np.asarray(generator("interactions", name).random(pairs.shape[1])))
    counts = _counts(pairs[0])
    taken = np.minimum(np.rint(share * counts).astype(np.int64), np.maximum(counts - 1, 0))
    return place < taken[pairs[0]]


def ranked_of(wanted: np.ndarray, unranked: np.ndarray) -> Ranked:
    """Gather what users are to find, and what is left out for them.

    Args:
        wanted: (2, n) int64, users over items
        unranked: (2, m) likewise; users who are to find nothing are passed over

    Returns:
        The part that is scored, its users in ascending order.
    """
    users, rows = np.unique(wanted[0], return_inverse=True)
    own = np.isin(unranked[0], users)
    others = np.searchsorted(users, unranked[0][own])
    count = len(users)
    return Ranked(users, lists_of(rows, wanted[1], count), lists_of(others, unranked[1][own], count))


def within_users(pairs: np.ndarray, val: float, test: float | np.ndarray, users: int, items: int) -> Division:
    """Hold out a share of each user's interactions, as recommenders of known users are scored.

    Args:
        pairs: (2, n) int64, users over items, numbered
        val: share of what is left to train on
        test: share, or the held-out interactions (2, m) themselves
        users: how many there are
        items: how many there are

    Returns:
        The division; a ranking for the test leaves out what was validated on, too.
    """
    if isinstance(test, np.ndarray):
        rest, held = pairs, test
    else:
        drawn = by_share(pairs, test, "test")
        rest, held = pairs[:, ~drawn], pairs[:, drawn]
    validated = by_share(rest, val, "val")
    train = rest[:, ~validated]
    return Division(
        users, items, train, train, ranked_of(rest[:, validated], train), ranked_of(held, rest), items
    )  # fmt: skip


def whole_users(pairs: np.ndarray, held_out: int, share: float, users: int, items: int) -> Division:
    """Hold out users, ``held_out`` each to validate and to test: they are recommended by what is left of theirs.

    Liang et al. 2018 (arXiv 1802.05814, section 4.2).

    Args:
        pairs: (2, n) int64, users over items, numbered
        held_out: users of either part
        share: of their items, rounded, that are to be found by the others
        users: how many there are
        items: how many there are

    Returns:
        The division.
    """
    order = generator("interactions", "users").permutation(users)
    parts = {"test": order[:held_out], "val": order[held_out : 2 * held_out]}
    drawn = by_share(pairs, share, "folded")
    of = {part: np.isin(pairs[0], chosen) for part, chosen in parts.items()}
    train = pairs[:, ~(of["test"] | of["val"])]
    folded = {part: pairs[:, own & ~drawn] for part, own in of.items()}
    val, test = (ranked_of(pairs[:, of[part] & drawn], folded[part]) for part in ("val", "test"))
    history = np.concatenate([train, folded["val"], folded["test"]], axis=1)
    return Division(users, items, train, history, val, test, items)


def last_ones(pairs: np.ndarray, times: np.ndarray, among: int, users: int, items: int) -> Division:
    """Hold out each user's last interaction to test and the one before to validate, as He et al. 2017 (arXiv 1708.05031).

    A user with fewer than three interactions only trains.

    Args:
        pairs: (2, n) int64, users over items, numbered
        times: (n,) when; of equal times the item with the larger number is later
        among: drawn items, never taken by the user, that his last one is ranked among
        users: how many there are
        items: how many there are

    Returns:
        The division.
    """
    place = places(pairs, np.lexsort((pairs[1], times)).argsort())
    left = _counts(pairs[0])[pairs[0]] - 1 - place
    enough = _counts(pairs[0])[pairs[0]] > 2
    parts = {"test": enough & (left == 0), "val": enough & (left == 1)}
    train = pairs[:, ~(parts["test"] | parts["val"])]
    taken = lists_of(pairs[0], pairs[1], users)
    made = {}
    for part, own in parts.items():
        chosen = pairs[:, own]
        unranked = [_unranked(taken, user, item, among, items, part) for user, item in chosen.T]
        rows = np.repeat(chosen[0], [len(row) for row in unranked])
        made[part] = ranked_of(chosen, np.stack([rows, np.concatenate([np.empty(0, np.int64), *unranked])]))
    return Division(users, items, train, train, made["val"], made["test"], among + 1)


def _unranked(taken: Lists, user: int, item: int, among: int, items: int, part: str) -> np.ndarray:
    """All items but ``item`` and ``among`` others that the user never took."""
    free = np.ones(items, bool)
    free[taken.items[taken.starts[user] : taken.starts[user + 1]]] = False
    drawn = generator("interactions", part, int(user)).choice(np.flatnonzero(free), among, replace=False)
    out = np.ones(items, bool)
    out[item] = False
    out[drawn] = False
    return np.flatnonzero(out)
