"""Implicit feedback: which users took which items, and nothing more of either [no torch at import]."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Taken, Users
from sparselab.core.errors import refuse
from sparselab.core.options import Options
from sparselab.inputs.data import cache, files, heldout
from sparselab.inputs.data.dataset import DATASETS, Dataset

if TYPE_CHECKING:
    from sparselab.inputs.data.heldout import Division
    from sparselab.inputs.data.interactions import InteractionSplits


class InteractionOptions(Options):
    """Options of every set of interactions."""

    defaults_from: ClassVar[str] = "dataset/_interactions"

    examples: Literal["pairs", "users"] = Field(
        description="pairs (a user, an item that he took, others that he did not) or users (all that they took)"
    )
    negatives: int = Field(ge=1, description="of a pair: items that the user did not take, at least 1")
    draw: Literal["users", "interactions"] = Field(
        description="of pairs: users (drawn alike, with an item each) or interactions (each once an epoch)"
    )
    val: float = Field(gt=0, lt=1, description="share of what a user took, without the test, to validate on, in (0, 1)")
    limit_users: int | None = Field(ge=1, description="users to use, those that took most; null for all")
    limit_items: int | None = Field(ge=1, description="items to use, those most taken; null for all")


class InteractionSet(Dataset):
    """Interactions, local only. Subclasses say where they lie and how they are divided."""

    task = "recommendation"
    Options: ClassVar[type[Options]] = InteractionOptions
    options: InteractionOptions
    layout: ClassVar[str]

    @abstractmethod
    def paths(self) -> list[Path]:
        """The files, in a fixed order; ConfigError if they are not there."""

    @abstractmethod
    def divide(self) -> Division:
        """Read the files and divide what is in them; ConfigError where too little is left."""

    @cached_property
    def division(self) -> Division:
        """Return what trains and what is held out."""
        made = self.divide()
        for part, ranked in (("validate on", made.val), ("test on", made.test)):
            if not len(ranked):
                refuse(self.where, f"no interaction is left to {part}", "use more users, or a larger share of each")
        took = np.bincount(made.train[0], minlength=1).max()
        if self.options.examples == "pairs" and took == made.items:
            problem = f"a user took all {made.items} items, so there is none that he did not take"
            refuse(f"dataset.limit_items={made.items}", problem, "use more items, or dataset.examples=users")
        return made

    def found(self, *names: str) -> list[Path]:
        """The files ``names`` of the folder of local copies; ConfigError where one is not there."""
        paths = [self.local(name) for name in names]
        if None in paths:
            refuse(self.where, "no local copy", f"put {self.layout} in data_dir")
        return [path for path in paths if path is not None]

    def history(self) -> np.ndarray:
        """(2, n) int64: what is known of users at any time."""
        return self.division.history

    def spec(self) -> DataSpec:
        o, paths, whole = self.options, self.paths(), self.division
        pairs = o.examples == "pairs"
        candidates = 1 + o.negatives if pairs else 0
        train = whole.train.shape[1] if pairs else len(np.unique(whole.train[0]))
        return DataSpec(
            name=self.name,
            inputs=Users(whole.users, whole.items, whole.history.shape[1], candidates, self.history),
            targets=Taken(candidates or whole.items, whole.ranked),
            train=train,
            val=len(whole.val),
            test=len(whole.test),
            fingerprint=files.content_hash(paths),
            source="local",
            path=str(paths[0].parent),
            title=self.name,
        )

    def load(self) -> InteractionSplits:
        from sparselab.inputs.data.interactions import InteractionSplits
        from sparselab.inputs.data.splits import content_of

        o, whole = self.options, self.division
        held = {"train": [whole.train], "val": [*whole.val.arrays()], "test": [*whole.test.arrays()]}
        digests = {part: content_of(arrays)[:16] for part, arrays in held.items()}
        return InteractionSplits(whole, o.negatives if o.examples == "pairs" else 0, o.draw == "users", digests)

    def chosen(self, pairs: np.ndarray, kept: np.ndarray, why: str, fix: str) -> np.ndarray:
        """(n,) bool ``kept`` of ``pairs``; ConfigError where none is."""
        if not kept.any():
            refuse(self.where, why, fix)
        return kept


class GivenSplit(InteractionSet):
    """A set whose test interactions are given: validation comes from those for training."""

    subfolder: ClassVar[str]

    def paths(self) -> list[Path]:
        paths = self.found(f"{self.subfolder}/train.parquet", f"{self.subfolder}/test.parquet")
        for path in paths:
            files.check_parquet(path, self.where)
        return paths

    def divide(self) -> Division:
        o = self.options
        train, test = (self._read(path) for path in self.paths())
        kept = self.chosen(
            train, heldout.most(train, o.limit_users, o.limit_items), "holds no interaction", "copy it again"
        )
        train = train[:, kept]
        test = test[:, np.isin(test[1], train[1])] if o.limit_items is not None else test
        train, test = heldout.numbered(train, test)
        items = int(max(train[1].max(), test[1].max(initial=0))) + 1
        return heldout.within_users(train, o.val, test, int(train[0].max()) + 1, items)

    def _read(self, path: Path) -> np.ndarray:
        """(2, n) int64, each interaction once."""
        key = f"{self.name}-{path.stem}-{files.content_hash([path])[:24]}-pairs"
        return np.array(cache.array(key, lambda: self._decode(path)))

    def _decode(self, path: Path) -> np.ndarray:
        import pyarrow
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path, columns=["user", "item"])
            pairs = np.stack([np.asarray(table[name].to_numpy()) for name in ("user", "item")])
        except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:50]
            refuse(self.where, f"{files.short(path)} cannot be read ({reason})", "copy the file again")
        if pairs.dtype.kind not in "iu" or pairs.min(initial=0) < 0:
            refuse(
                self.where, f"{files.short(path)} has users or items that are no numbers from 0", "copy the file again"
            )
        return np.unique(pairs.astype(np.int64), axis=1)


@DATASETS.register("gowalla")
class Gowalla(GivenSplit):
    """Check-ins of 29,858 users at 40,981 places, in the split of LightGCN (arXiv 2002.02126; gusye1234/LightGCN-PyTorch).

    Local: ``recsys/gowalla/{train,test}.parquet``, columns user and item.
    """

    subfolder = "recsys/gowalla"
    layout = "recsys/gowalla/{train,test}.parquet"


@DATASETS.register("lastfm")
class LastFM(GivenSplit):
    """Artists that users of Last.fm listen to (HetRec 2011), in the split of gusye1234/LightGCN-PyTorch, data/lastfm.

    Local: ``recsys/lastfm/{train,test}.parquet``, columns user and item. Two users of the test have nothing to train on and are
    left out: 1,878 users, 4,489 items.
    """

    subfolder = "recsys/lastfm"
    layout = "recsys/lastfm/{train,test}.parquet"


class MovieLensOptions(InteractionOptions):
    """Further options of MovieLens, whose test is not given."""

    split: Literal["ratio", "users", "last"] = Field(
        description="ratio (a share of each user's), users (held out whole) or last (each user's last, among others)"
    )
    test: float = Field(gt=0, lt=1, description="share of what a user took to test on, in (0, 1)")
    held_out: int = Field(ge=1, description="split=users: users to validate on, and as many to test on")
    among: int = Field(ge=1, description="split=last: items that the last one is ranked among")
    min_user: int = Field(ge=1, description="interactions that a user must have, at least 1")
    min_item: int = Field(ge=1, description="interactions that an item must have, at least 1")


@DATASETS.register("movielens")
class MovieLens(InteractionSet):
    """Films that users of MovieLens rated, whatever the rating: 100,004 of 671 users (latest-small of 2016).

    Local: ``movielens_small/ratings.csv``, with columns userId, movieId, rating, timestamp. Items with few interactions go
    first, then users, one pass each.
    """

    Options = MovieLensOptions
    options: MovieLensOptions
    layout = "movielens_small/ratings.csv"

    def paths(self) -> list[Path]:
        paths = self.found(self.layout)
        files.check_file(paths[0], self.where)
        return paths

    def divide(self) -> Division:
        o, (pairs, times) = self.options, self._read()
        fix = f"lower dataset.min_user={o.min_user} or dataset.min_item={o.min_item}"
        kept = heldout.most(pairs, o.limit_users, o.limit_items)
        pairs, times = pairs[:, kept], times[kept]
        kept = self.chosen(pairs, heldout.often(pairs, o.min_user, o.min_item), "no interaction is left", fix)
        (pairs,), times = heldout.numbered(pairs[:, kept]), times[kept]
        users, items = int(pairs[0].max()) + 1, int(pairs[1].max()) + 1
        if o.split == "ratio":
            return heldout.within_users(pairs, o.val, o.test, users, items)
        if o.split == "users":
            if 2 * o.held_out >= users:
                problem = f"twice as many are held out, and there are {users} users"
                refuse(f"dataset.held_out={o.held_out}", problem, f"write at most {max(1, (users - 1) // 2)}")
            return heldout.whole_users(pairs, o.held_out, o.test, users, items)
        free = items - int(np.bincount(pairs[0]).max())
        if free < o.among:
            problem = f"a user left only {free} of {items} items untaken"
            refuse(f"dataset.among={o.among}", problem, f"write at most {free}" if free else "use more items")
        return heldout.last_ones(pairs, times, o.among, users, items)

    def _read(self) -> tuple[np.ndarray, np.ndarray]:
        """Users over items (2, n), and when (n,); each pair once, at its first time."""
        (path,) = self.paths()
        try:
            table = np.loadtxt(path, np.float64, delimiter=",", skiprows=1, usecols=(0, 1, 3), ndmin=2)
        except (OSError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())[:50]
            refuse(self.where, f"{files.short(path)} cannot be read ({reason})", "copy the file again")
        if not len(table) or table[:, :2].min() < 0:
            refuse(self.where, f"{files.short(path)} holds no ratings, or negative numbers", "copy the file again")
        rows = table.astype(np.int64)
        rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
        first = np.ones(len(rows), bool)
        first[1:] = (rows[1:, :2] != rows[:-1, :2]).any(1)
        return np.ascontiguousarray(rows[first, :2].T), rows[first, 2]
