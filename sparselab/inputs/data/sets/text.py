"""Text as tokens in memory [no torch at import]."""

from __future__ import annotations

import hashlib
import os
import re
import sysconfig
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sparselab.core.data_spec import DataSpec
from sparselab.core.data_types import NextTokens, Tokens
from sparselab.core.errors import refuse
from sparselab.core.memo import once
from sparselab.core.options import Options, off
from sparselab.inputs.data import files, hub
from sparselab.inputs.data.dataset import DATASETS, Dataset
from sparselab.inputs.data.seeds import generator
from sparselab.inputs.data.tokens import CHARACTERS, WORDS, Tokenizer, tokenizer_of

if TYPE_CHECKING:
    import numpy as np

    from sparselab.inputs.data.prompts import Prompt
    from sparselab.inputs.data.splits import TextSplits

PARTS = ("train", "val", "test")
OPENING = b"Once upon a time"  # of a paragraph, it begins a story
BREAK = b"\n\n"  # between stories


class TextOptions(Options):
    """Options of every text."""

    defaults_from: ClassVar[str] = "dataset/_text"

    block: int = Field(ge=2, description="tokens in a window, at least 2")
    tokenizer: str = Field(
        min_length=1,
        description="auto (the model's own, else bytes), bytes, characters or words of the train split, a tokenizer's"
        " folder, or its name on the hub",
    )
    windows: Literal["drawn", "streams"] = off(
        "drawn",
        description="drawn at random, or streams: as many as a batch has windows, each read in order (truncated BPTT)",
    )
    limit_test: int | None = off(None, ge=2, description="tokens of test to score, one passage of it; null for all")
    test_draw: int = off(
        0, ge=0, description="which passage of limit_test tokens; one for each seed shows their scatter"
    )


@dataclass(frozen=True)
class Origin:
    """The place of a text.

    kind: ``bundled``, ``local`` or ``hub``. sizes: bytes per split where they are known without reading, else empty.
    """

    kind: str
    fingerprint: str
    sizes: dict[str, int]
    folder: Path | None = None
    title: str = ""


class TextSet(Dataset):
    """A text in three parts. Subclasses say where it lies and return its bytes."""

    task = "language_modeling"
    Options: ClassVar[type[TextOptions]] = TextOptions
    options: TextOptions
    vocabularies: ClassVar[dict[str, int]] = {}
    """Sizes of the vocabularies that tokenizers learn from the published text, ``<unk>`` and ``<eos>`` included."""

    @abstractmethod
    def origin(self) -> Origin:
        """Return the checked place of the text; ConfigError if it is not there."""

    def encode(self, tokenizer: Tokenizer, text: bytes) -> np.ndarray:
        """A split's text as token numbers, 1-D."""
        return tokenizer.encode(text)

    @abstractmethod
    def texts(self, origin: Origin) -> dict[str, bytes]:
        """The text of each split."""

    def places(self) -> tuple[str, ...]:
        return ("tokenizer",) if self.tokenizer().folder else ()

    def companions(self) -> dict[str, bytes]:
        return self.tokenizer().files()

    def tokenizer(self) -> Tokenizer:
        """The tokenizer asked for; a folder may be named as it lies below the folder of local copies."""
        name = self.options.tokenizer
        near = self.local(name) if "/" in name and not Path(name).expanduser().is_dir() else None
        return tokenizer_of(str(near or name))

    def announced(self) -> int:
        """Size of the vocabulary of a text on the hub under a tokenizer that learns from it; 0: only reading tells."""
        return self.vocabularies.get(self.options.tokenizer, 0)

    def _foreseen(self, origin: Origin, tokenizer: Tokenizer) -> tuple[int, dict[str, int]]:
        """(size of the vocabulary, tokens per split), as far as they are known without the hub."""
        if not tokenizer.learns:
            return tokenizer.vocabulary(), tokenizer.counts(origin.sizes)
        if origin.kind == "hub":
            return self.announced(), {}
        texts = self.texts(origin)
        tokenizer.learn(texts["train"])
        return tokenizer.vocabulary(), {part: tokenizer.count(texts[part]) for part in PARTS}

    def spec(self) -> DataSpec:
        origin = self.origin()
        tokenizer = self.tokenizer()
        classes, counts = self._foreseen(origin, tokenizer)
        counts = self._limited(counts)
        self._check_lengths(counts)
        block, streams = self.options.block, self.options.windows == "streams"
        predictions = {part: max(counts.get(part, 0) - 1, 0) for part in PARTS}
        windows = {part: -(-predictions[part] // block) for part in PARTS}
        if streams:
            windows["train"] = predictions["train"] // block  # in order: only whole windows
        return DataSpec(
            name=self.name,
            inputs=Tokens(block, classes, ordered=streams),
            targets=NextTokens(block, classes),
            train=windows["train"],
            val=windows["val"],
            test=windows["test"],
            fingerprint=tokenizer.mark(origin.fingerprint),
            source=origin.kind,
            path=str(origin.folder or ""),
            title=origin.title or self.name,
        )

    def load(self) -> TextSplits:
        import torch

        from sparselab.inputs.data.splits import TextSplits

        origin = self.origin()
        texts = self.texts(origin)
        tokenizer = self.tokenizer()
        tokenizer.learn(texts["train"])
        self._check_announced(origin, tokenizer)
        tokens = {part: self.encode(tokenizer, texts[part]) for part in PARTS}
        sizes = {part: len(ids) for part, ids in tokens.items()}
        limited = self._limited(sizes)
        self._check_lengths(limited)
        tokens["test"] = passage(tokens["test"], limited["test"], self.options.test_draw)
        scored = limited["test"] / sizes["test"]
        lengths = {part: len(text) for part, text in texts.items()}
        train, val, test = (torch.from_numpy(tokens[part]) for part in PARTS)
        return TextSplits(
            train,
            val,
            test,
            vocab=tokenizer.loaded_vocabulary(),
            block=self.options.block,
            streams=self.options.windows == "streams",
            bytes_per_split={**lengths, "test": round(lengths["test"] * scored)},
            digests={part: hashlib.sha256(text).hexdigest()[:16] for part, text in texts.items()},
        )

    def prompt_length(self) -> int | None:
        """Tokens of a prompt; None where only loading tells."""
        return self.options.block

    def prompts(self, splits: TextSplits, count: int, seed: int) -> list[Prompt]:
        """Return beginnings that a network is to write on from: windows of the test split, side by side.

        Args:
            splits: as loaded
            count: how many, at most
            seed: which of them

        Returns:
            Prompts; ConfigError where the text has no whole window.
        """
        from sparselab.inputs.data.prompts import Prompt

        block = self.options.block
        starts = generator("prompts", seed).permutation(len(splits.test) // block)[:count] * block
        if not len(starts):
            refuse(f"dataset.block={block}", "the test split has no whole window", "write a smaller one")
        return [Prompt(splits.test[start : start + block].long()) for start in starts]

    def answer(self, text: str) -> str | None:
        """Return the answer that a text gives; None where it gives none, or none can be right."""
        return None

    def _limited(self, counts: dict[str, int]) -> dict[str, int]:
        """Tokens per split with ``limit_test``, as far as they are known; ConfigError where there are not so many."""
        limit, draw = self.options.limit_test, self.options.test_draw
        if draw and limit is None:
            problem = "all of the test split is scored, and there is nothing to draw"
            refuse(f"dataset.test_draw={draw}", problem, "write dataset.limit_test, or leave it out")
        if limit is None or "test" not in counts:
            return counts
        if limit > counts["test"]:
            problem = f"the test split has {counts['test']:,} tokens"
            refuse(f"dataset.limit_test={limit}", problem, f"write at most {counts['test']}, or null")
        return {**counts, "test": limit}

    def _check_announced(self, origin: Origin, tokenizer: Tokenizer) -> None:
        """A network is made for the vocabulary that the plan announced."""
        announced = self.announced() if tokenizer.learns and origin.kind == "hub" else 0
        if announced and tokenizer.vocabulary() != announced:
            problem = (
                f"the hub's text has {tokenizer.vocabulary():,} tokens, not the {announced:,} of the published one"
            )
            refuse(self.where, problem, "put a local copy in data_dir")

    def _check_lengths(self, counts: dict[str, int]) -> None:
        """Training needs a whole window and its last target; evaluation pads, but predicts at least one token."""
        for part, count in counts.items():
            if part == "train" and count <= self.options.block:
                where = f"dataset.block={self.options.block}"
                refuse(where, f"the train split has only {count} tokens", f"write at most {max(count - 1, 2)}")
            if count < 2:
                refuse(self.where, f"the {part} split has only {count} tokens", "use a longer text")


class StdlibOptions(TextOptions):
    """Options of the standard library's source text."""

    max_bytes: int | None = Field(ge=1000, description="bytes of all splits, at least 1000; null for all")


@DATASETS.register("stdlib")
class Stdlib(TextSet):
    """The Python standard library's own source: real text that every machine has. It differs between Python versions.

    A file belongs to train (90 %), val (5 %) or test (5 %) by a hash of its path, and the files of a split follow each
    other in the order of their paths. ``max_bytes`` cuts the splits at 90, 5 and 5 % of it. What an installation adds
    or generates is left out, and so are files that are broken on purpose (lib2to3's and the tests' bad input).
    """

    Options: ClassVar[type[TextOptions]] = StdlibOptions
    options: StdlibOptions
    share = {"train": 90, "val": 5, "test": 5}
    skipped = frozenset(("site-packages", "dist-packages", "__pycache__", "lib2to3", "tokenizedata", "lib-dynload"))

    def origin(self) -> Origin:
        self.given_folder()
        entries = once(("stdlib", self._root()), lambda: list(self._entries()))  # walks a thousand folders
        if not entries:
            refuse(self.where, "this Python came without its source", "use dataset=tinyshakespeare")
        sizes = dict.fromkeys(PARTS, 0)
        for relative, size in entries:
            sizes[self._part(relative)] += size
        limited = {part: min(size, self._limit(part) or size) for part, size in sizes.items()}
        return Origin("bundled", files.listing_hash(entries), limited, self._root())

    def texts(self, origin: Origin) -> dict[str, bytes]:
        parts: dict[str, bytearray] = {part: bytearray() for part in PARTS}
        for relative, _ in self._entries():
            part = parts[self._part(relative)]
            if len(part) < (self._limit(self._part(relative)) or len(part) + 1):
                part += (self._root() / relative).read_bytes()
        return {part: bytes(text[: self._limit(part)]) for part, text in parts.items()}

    @staticmethod
    def _root() -> Path:
        return Path(sysconfig.get_paths()["stdlib"])

    def _entries(self) -> Iterator[tuple[str, int]]:
        """(path below the root with forward slashes, size) of every file, in order."""
        root = self._root()
        found = []
        for folder, folders, names in os.walk(root):
            folders[:] = [f for f in folders if f not in self.skipped and not f.startswith("config-")]
            for name in names:
                if name.endswith(".py") and not name.startswith(("_sysconfigdata", "bad", "sitecustomize")):
                    path = Path(folder, name)
                    found.append((path.relative_to(root).as_posix(), path.stat().st_size))
        yield from sorted(found)

    def _part(self, relative: str) -> str:
        percent = int.from_bytes(hashlib.sha256(relative.encode()).digest()[:4], "big") % 100
        return "train" if percent < 90 else "val" if percent < 95 else "test"

    def _limit(self, part: str) -> int | None:
        limit = self.options.max_bytes
        return None if limit is None else limit * self.share[part] // 100


@DATASETS.register("tinyshakespeare")
class TinyShakespeare(TextSet):
    """Forty thousand lines of Shakespeare (Karpathy 2015), 1.1 MB: the first 90 % train, then 5 % val and 5 % test."""

    repo = "karpathy/tiny_shakespeare"
    revision = "refs/convert/parquet"  # the hub's own conversion: datasets runs no loading scripts any more
    layout = "text/tinyshakespeare.txt"
    vocabularies: ClassVar[dict[str, int]] = {CHARACTERS: 66}

    def origin(self) -> Origin:
        path = self.local(self.layout, "tinyshakespeare.txt")
        if path is None:
            hub.check(self.repo, self.where, self.layout)
            return Origin("hub", files.listing_hash([(self.repo, 0)]), {})
        files.check_file(path, self.where)
        sizes = [len(range(path.stat().st_size)[part]) for part in self._parts(path.stat().st_size)]
        return Origin("local", files.content_hash([path]), dict(zip(PARTS, sizes, strict=True)), path)

    def texts(self, origin: Origin) -> dict[str, bytes]:
        if origin.folder is not None:
            text = origin.folder.read_bytes()
            return dict(zip(PARTS, (text[part] for part in self._parts(len(text))), strict=True))
        names = {"train": "train", "val": "validation", "test": "test"}
        return {
            part: "".join(hub.load(self.repo, name, self.where, self.layout, revision=self.revision)["text"]).encode()
            for part, name in names.items()
        }

    @staticmethod
    def _parts(size: int) -> tuple[slice, slice, slice]:
        first, second = size * 90 // 100, size * 95 // 100
        return slice(first), slice(first, second), slice(second, size)


class StoryOptions(TextOptions):
    """Options of TinyStories."""

    format: Literal["stories", "plain"] = Field(
        description="stories, as checkpoints read them (their tokenizer's first token, then the story), or plain",
    )


@DATASETS.register("tinystories")
class TinyStories(TextSet):
    """Stories for small children (Eldan and Li 2023), to score models that were trained on the whole set.

    Local: ``text/tinystories.txt``, the beginning of its training text; else the hub's validation split. Half of the bytes
    are train (enough to calibrate on, not to learn from), a tenth val, the rest test.

    ``format: stories`` is what karpathy/llama2.c trains on (tinystories.py): the token that begins a text before each story,
    where the tokenizer has one, and a single newline between paragraphs. The hub has a story in each row; the local file does
    not mark where one begins, so that only those are told that begin with :data:`OPENING`. ``plain``: the text as it lies.
    """

    Options = StoryOptions
    options: StoryOptions
    repo = "roneneldan/TinyStories"
    layout = "text/tinystories.txt"

    def origin(self) -> Origin:
        path = self.local(self.layout, "tinystories.txt")
        if path is None:
            hub.check(self.repo, self.where, self.layout)
            return Origin("hub", files.listing_hash([(self.repo, 0)]), {}, title="tinystories-validation")
        files.check_file(path, self.where)
        texts = once(("stories", self.options.format, files.content_hash([path])), lambda: self._local(path))
        return Origin("local", files.content_hash([path]), {part: len(texts[part]) for part in PARTS}, path)

    def texts(self, origin: Origin) -> dict[str, bytes]:
        if origin.folder is not None:
            return self._local(origin.folder)
        rows = hub.load(self.repo, "validation", self.where, self.layout)["text"]
        return self._parts([row.encode() for row in rows])

    def encode(self, tokenizer: Tokenizer, text: bytes) -> np.ndarray:
        plain = self.options.format == "plain"
        return tokenizer.encode(text) if plain else tokenizer.encode_each(text.split(BREAK), BREAK)

    def _local(self, path: Path) -> dict[str, bytes]:
        return self._parts(re.split(rb"\n\n(?=" + OPENING + rb")", path.read_bytes()))

    def _parts(self, stories: list[bytes]) -> dict[str, bytes]:
        """The three splits, cut at bytes of the plain text, else between stories."""
        if self.options.format == "plain":
            return dict(zip(PARTS, _shares(b"\n\n".join(stories)), strict=True))
        stories = [re.sub(rb"\n+", rb"\n", story.strip()) for story in stories]
        ends = list(accumulate(len(story) for story in stories))
        first, second = (bisect_left(ends, ends[-1] * share // 100) for share in (50, 60))
        shares = stories[:first], stories[first:second], stories[second:]
        return dict(zip(PARTS, (BREAK.join(share) for share in shares), strict=True))


def passage(tokens: np.ndarray, length: int, draw: int) -> np.ndarray:
    """Return tokens that follow each other, from a place that ``draw`` says; all where they are no more.

    Args:
        tokens: (n,) integers
        length: how many, at least 1
        draw: which passage, from 0

    Returns:
        (min(length, n),), a view.
    """
    room = len(tokens) - length
    start = int(generator("passage", draw).integers(room + 1)) if room else 0
    return tokens[start : start + length]


def _shares(text: bytes) -> tuple[bytes, bytes, bytes]:
    first, second = len(text) * 50 // 100, len(text) * 60 // 100
    return text[:first], text[first:second], text[second:]


class WikitextOptions(TextOptions):
    """Options of WikiText-2."""

    train_from: Literal["train", "valid"] = Field(
        description="train, or valid to train on nine tenths of the validation split"
    )


@DATASETS.register("wikitext2")
class Wikitext2(TextSet):
    """WikiText-2 (Merity et al. 2016). Local: ``text/wikitext2/{train,valid,test}.txt``; else the hub's raw version.

    With ``train_from: valid`` the first nine tenths of the validation split are train and the rest is val. Lines of
    the hub's raw version are joined by an empty line, as in the evaluation of the pruning literature since GPTQ. For
    ``tokenizer: words`` the hub's tokenised version is taken, line by line: its rare words are ``<unk>``.
    """

    Options = WikitextOptions
    options: WikitextOptions
    repo = "Salesforce/wikitext"
    layout = "text/wikitext2/{train,valid,test}.txt"
    # The embedding's rows in IntelLabs/distiller docs-src/docs/tutorial-lang_model.md.
    vocabularies: ClassVar[dict[str, int]] = {WORDS: 33_278}

    @property
    def by_words(self) -> bool:
        return self.options.tokenizer == WORDS

    def announced(self) -> int:
        return super().announced() if self.options.train_from == "train" else 0

    def origin(self) -> Origin:
        folder = self.local("text/wikitext2", "wikitext2")
        if folder is None:
            hub.check(self.repo, self.where, self.layout)
            title = self.name if self.by_words else f"{self.name}-raw"
            return Origin("hub", files.listing_hash([(self.repo, 0)]), {}, title=title)
        paths = [folder / f"{name}.txt" for name in self._names()]
        if self.options.train_from == "train" and not paths[0].exists():
            problem = f"{files.short(folder)} has no train.txt"
            refuse(self.where, problem, "write dataset.train_from=valid, or dataset=stdlib")
        for path in paths:
            files.check_file(path, self.where)
        sizes = {path.stem: path.stat().st_size for path in paths}
        lengths = {part: len(range(sizes[name])[cut]) for part, (name, cut) in self._parts(sizes["valid"]).items()}
        return Origin("local", files.content_hash(paths), lengths, folder)

    def texts(self, origin: Origin) -> dict[str, bytes]:
        if origin.folder is not None:
            whole = {name: (origin.folder / f"{name}.txt").read_bytes() for name in self._names()}
        else:
            on_hub = {"train": "train", "valid": "validation", "test": "test"}
            whole = {name: self._from_hub(on_hub[name]) for name in self._names()}
        return {part: whole[name][cut] for part, (name, cut) in self._parts(len(whole["valid"])).items()}

    def _from_hub(self, split: str) -> bytes:
        config = "wikitext-2-v1" if self.by_words else "wikitext-2-raw-v1"
        rows = hub.load(self.repo, split, self.where, self.layout, config=config)["text"]
        if self.by_words:  # a row is a line of the original file; those with nothing in them come without their end
            return "".join(row if row.endswith("\n") else f"{row}\n" for row in rows).encode()
        return "\n\n".join(rows).encode()

    def _names(self) -> tuple[str, ...]:
        return ("train", "valid", "test") if self.options.train_from == "train" else ("valid", "test")

    def _parts(self, valid: int) -> dict[str, tuple[str, slice]]:
        """Split: the file it is cut from, and where. ``valid`` is the length of the validation file."""
        everything = slice(None)
        if self.options.train_from == "train":
            return {"train": ("train", everything), "val": ("valid", everything), "test": ("test", everything)}
        first = valid * 9 // 10
        return {"train": ("valid", slice(first)), "val": ("valid", slice(first, None)), "test": ("test", everything)}


@DATASETS.register("ptb")
class PennTreebank(TextSet):
    """The Penn Treebank as language models read it: 10,000 words, the others ``<unk>`` (Mikolov et al. 2010).

    Local: ``text/ptb/ptb.{train,valid,test}.txt``; else the hub's, a sentence a line.
    """

    repo = "ptb-text-only/ptb_text_only"
    revision = "refs/convert/parquet"  # the hub's own conversion: datasets runs no loading scripts any more
    layout = "text/ptb/ptb.{train,valid,test}.txt"
    names: ClassVar[dict[str, str]] = {"train": "train", "val": "valid", "test": "test"}
    vocabularies: ClassVar[dict[str, int]] = {WORDS: 10_000}

    def origin(self) -> Origin:
        folder = self.local("text/ptb", "ptb")
        if folder is None:
            hub.check(self.repo, self.where, self.layout)
            return Origin("hub", files.listing_hash([(self.repo, 0)]), {})
        paths = {part: folder / f"ptb.{name}.txt" for part, name in self.names.items()}
        for path in paths.values():
            files.check_file(path, self.where)
        sizes = {part: path.stat().st_size for part, path in paths.items()}
        return Origin("local", files.content_hash(paths.values()), sizes, folder)

    def texts(self, origin: Origin) -> dict[str, bytes]:
        if origin.folder is not None:
            return {part: (origin.folder / f"ptb.{name}.txt").read_bytes() for part, name in self.names.items()}
        return {part: self._from_hub("validation" if part == "val" else part) for part in self.names}

    def _from_hub(self, split: str) -> bytes:
        rows = hub.load(self.repo, split, self.where, self.layout, revision=self.revision)["sentence"]
        return "".join(f"{row}\n" for row in rows).encode()
