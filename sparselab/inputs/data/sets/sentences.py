"""Sentences, and pairs of them, with a class each [no torch at import]."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import Classes, Sentences
from sparselab.core.errors import refuse
from sparselab.inputs.data import files, hub, subset
from sparselab.inputs.data.dataset import DATASETS, Dataset
from sparselab.inputs.data.sets.images import ImageOptions, choose, counts
from sparselab.inputs.data.tokens import Tokenizer, tokenizer_of

if TYPE_CHECKING:
    from sparselab.inputs.data.rows import RowSplits

Table = dict[str, list[Any]]  # columns by name


class SentenceOptions(ImageOptions):
    """Options of every set of sentences. The draws of parts are those of image sets."""

    defaults_from: ClassVar[str] = "dataset/_sentences"

    val: int = Field(ge=0, description="sentences taken from train for validation; the draw is fixed")
    limit_train: int | None = Field(ge=1, description="sentences of train to use, classes balanced; null: all")
    limit_test: int | None = Field(ge=1, description="sentences of test to use, classes balanced; null: all")
    block: int = Field(ge=4, description="tokens after which a sentence, or a pair, is cut; at least 4")
    tokenizer: str = Field(
        min_length=1,
        description="auto (the model's own, else bytes), bytes, a tokenizer's folder, or its hub name",
    )


class SentenceSet(Dataset):
    """A set of known sizes. Subclasses say where its tables lie, and in which columns they have what."""

    task = "text_classification"
    Options: ClassVar[type[SentenceOptions]] = SentenceOptions
    options: SentenceOptions
    classes: ClassVar[int] = 2

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """Return how many are for training (validation included) and testing."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Return the columns that hold the sentence, or both of a pair."""

    @abstractmethod
    def paths(self) -> list[Path]:
        """The local files; none where the hub has them. ConfigError where neither is there."""

    @abstractmethod
    def tables(self, paths: list[Path]) -> tuple[Table, Table]:
        """The columns of train and test."""

    @property
    def title(self) -> str:
        return self.name

    def tokenizer(self) -> Tokenizer:
        """The tokenizer asked for; a folder may be named as it lies below the folder of local copies."""
        name = self.options.tokenizer
        near = self.local(name) if "/" in name and not Path(name).expanduser().is_dir() else None
        found = tokenizer_of(str(near or name))
        if found.learns:
            refuse(f"dataset.tokenizer={name}", "is for running text", "write auto, bytes or a tokenizer's folder")
        return found

    def places(self) -> tuple[str, ...]:
        return ("tokenizer",) if self.tokenizer().folder else ()

    def companions(self) -> dict[str, bytes]:
        return self.tokenizer().files()

    def spec(self) -> DataSpec:
        paths, tokenizer = self.paths(), self.tokenizer()
        train, val, test = counts(self.title, self.options, *self.sizes, noun="sentences")
        mark = files.content_hash(paths) if paths else files.listing_hash([(self.title, 0)])
        return DataSpec(
            name=self.name,
            inputs=Sentences(self.options.block, tokenizer.vocabulary(), tokenizer.padding),
            targets=Classes(self.classes),
            train=train,
            val=val,
            test=test,
            fingerprint=tokenizer.mark(mark),
            source="local" if paths else "hub",
            path=str(paths[0].parent) if paths else "",
            title=self.title,
        )

    def load(self) -> RowSplits:
        import torch

        from sparselab.inputs.data.rows import RowSplits

        train, test = self.tables(self.paths())
        labels, test_labels = (self._labels(table, size) for table, size in zip((train, test), self.sizes, strict=True))
        tokenizer, parts = self.tokenizer(), {}
        rows = choose(self.options, labels, test_labels)
        for part, at in rows.items():
            table, own = (test, test_labels) if part == "test" else (train, labels)
            firsts, *seconds = ([table[column][i] for i in at] for column in self.columns)
            encoded = tokenizer.encode_pairs(firsts, seconds[0] if seconds else None, self.options.block)
            parts[part] = torch.from_numpy(np.array(encoded)), torch.from_numpy(own[at])
        return RowSplits(parts, {part: subset.digest(at) for part, at in rows.items()})

    def _labels(self, table: Table, size: int) -> np.ndarray:
        labels = np.array(table["label"], np.int64)
        if len(labels) != size:
            refuse(self.where, f"a file has {len(labels):,} sentences, not {size:,}", "copy the whole set")
        if labels.min() < 0 or labels.max() >= self.classes:
            refuse(self.where, f"has labels outside 0..{self.classes - 1}", "copy the files with labels")
        return labels

    def read(self, path: Path, *also: str) -> Table:
        """Columns of a parquet file. ConfigError where it cannot be read or lacks one."""
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_table(path, columns=[*self.columns, "label", *also]).to_pydict()
        except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:50]
            refuse(self.where, f"{files.short(path)} cannot be read ({reason})", "copy the file again")


class GlueOptions(SentenceOptions):
    """Options of GLUE."""

    subset: Literal["sst2", "rte", "mrpc", "cola"] = Field(description="sst2, rte, mrpc or cola")


@DATASETS.register("glue")
class Glue(SentenceSet):
    """Four sets of GLUE (Wang et al. 2019, arXiv 1804.07461): sentiment, entailment, paraphrase, acceptability.

    Local: ``glue/<subset>/{train,validation}.parquet`` (mrpc: train, test); else the hub's. The public validation split,
    whose labels are known, is the test split; of mrpc the test split is, and its validation split belongs to train.
    """

    Options = GlueOptions
    options: GlueOptions
    repo = "nyu-mll/glue"
    rows: ClassVar[dict[str, tuple[int, int]]] = {
        "sst2": (67_349, 872), "rte": (2_490, 277), "mrpc": (4_076, 1_725), "cola": (8_551, 1_043)
    }  # fmt: skip
    pairs: ClassVar[tuple[str, ...]] = ("rte", "mrpc")
    tested: ClassVar[dict[str, str]] = {"mrpc": "test"}  # the others are tested on their validation split

    @property
    def sizes(self) -> tuple[int, int]:
        return self.rows[self.options.subset]

    @property
    def columns(self) -> tuple[str, ...]:
        return ("sentence1", "sentence2") if self.options.subset in self.pairs else ("sentence",)

    @property
    def title(self) -> str:
        return f"{self.name}-{self.options.subset}"

    @property
    def test_part(self) -> str:
        return self.tested.get(self.options.subset, "validation")

    def paths(self) -> list[Path]:
        folder = self.local(f"glue/{self.options.subset}")
        layout = f"glue/{self.options.subset}/{{train,{self.test_part}}}.parquet"
        if folder is None:
            hub.check(self.repo, self.where, layout)
            return []
        paths = [folder / f"{part}.parquet" for part in ("train", self.test_part)]
        for path in paths:
            files.check_parquet(path, self.where)
        return paths

    def tables(self, paths: list[Path]) -> tuple[Table, Table]:
        if paths:
            train, test = (self.read(path) for path in paths)
            return train, test
        names = ("train", self.test_part, *(["validation"] if self.options.subset in self.tested else []))
        train, test, *more = (self._from_hub(name) for name in names)
        return {key: [value for table in (train, *more) for value in table[key]] for key in train}, test

    def _from_hub(self, split: str) -> Table:
        rows = hub.load(self.repo, split, self.where, f"glue/{self.options.subset}", config=self.options.subset)
        return {column: list(rows[column]) for column in (*self.columns, "label")}


@DATASETS.register("movie_reviews")
class MovieReviews(SentenceSet):
    """2,000 film reviews, half of them positive (Pang and Lee 2004, version 2.0): nine of its ten folds train, the last tests.

    Local only: ``text/movie_reviews/reviews.parquet`` with columns text, label and fold.
    """

    sizes = (1_800, 200)
    columns = ("text",)
    layout = "text/movie_reviews/reviews.parquet"

    def paths(self) -> list[Path]:
        path = self.local(self.layout)
        if path is None:
            refuse(self.where, "no local copy", f"put {self.layout} in data_dir")
        files.check_parquet(path, self.where)
        return [path]

    def tables(self, paths: list[Path]) -> tuple[Table, Table]:
        whole = self.read(paths[0], "fold")
        last = max(whole["fold"])
        at = {held: [i for i, fold in enumerate(whole["fold"]) if (fold == last) is held] for held in (False, True)}
        train, test = ({key: [values[i] for i in at[held]] for key, values in whole.items()} for held in (False, True))
        return train, test
