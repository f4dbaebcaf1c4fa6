"""Text to token numbers: bytes, a closed vocabulary made from the train split, or a tokenizer of transformers [no torch]."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sparselab.core.errors import refuse
from sparselab.inputs.data import cache, files, hub

BYTES = "bytes"
AUTO = (
    "auto"  # the tokenizer that belongs to the model, bytes where none does; a plan says which before anything is read
)
VOCABULARIES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)  # each makes a tokenizer
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json")
CHARACTERS, WORDS = "characters", "words"
UNKNOWN = "<unk>"  # what stands for a unit that the train split does not have
END = "<eos>"  # the word that a line's end becomes


def characters(text: str) -> Sequence[str]:
    """Return the text: its characters are its units."""
    return text


def words(text: str) -> Sequence[str]:
    """Return the words between white space; a line's end is the word ``<eos>``, as in pytorch/examples word_language_model."""
    return text.replace("\n", f" {END} ").split()


UNITS: dict[str, Callable[[str], Sequence[str]]] = {CHARACTERS: characters, WORDS: words}


def tokenizer_of(name: str) -> Tokenizer:
    """The tokenizer that ``dataset.tokenizer`` names; ConfigError where there is none such."""
    if name in (BYTES, AUTO):
        return Tokenizer()
    return Closed(name) if name in UNITS else Library(name)


def holds_tokenizer(folder: Path) -> bool:
    """True if a folder has the files of a tokenizer of transformers."""
    return any((folder / name).is_file() for name in VOCABULARIES)


class Tokenizer:
    """Bytes as they are: 256 tokens, nothing to load. The base of the others."""

    folder: Path | None = None
    """Folder of its files."""

    def learn(self, train: bytes) -> None:
        """Make the vocabulary, where it is the train split's. Before everything else."""

    @property
    def learns(self) -> bool:
        """True if it has to :meth:`learn` first."""
        return False

    def vocabulary(self) -> int:
        """Its size, without importing transformers; 0 where only loading can tell."""
        return 256

    def loaded_vocabulary(self) -> int:
        return self.vocabulary()

    def mark(self, fingerprint: str) -> str:
        """The fingerprint of a text under this tokenizer: another one makes other tokens of the same bytes."""
        return fingerprint

    def encode(self, text: bytes) -> np.ndarray:
        """Return the token numbers of a text. No special token is added.

        Args:
            text: UTF-8

        Returns:
            (tokens,) uint8 where the vocabulary allows, else int32.
        """
        return np.frombuffer(bytearray(text), np.uint8)

    def encode_each(self, texts: list[bytes], between: bytes) -> np.ndarray:
        """Return the token numbers of several texts in a row.

        Before each is the token that begins a text, where there is such a one.

        Args:
            texts: UTF-8 each
            between: stands between them where no token begins a text

        Returns:
            (tokens,) as :meth:`encode` gives them.
        """
        return self.encode(between.join(texts))

    def begun(self, text: str) -> list[int]:
        """Token numbers of the beginning of a text, with the token that begins one where the tokenizer puts it."""
        return self.encode(text.encode()).tolist()

    def spelled(self, numbers: list[int]) -> str:
        """The text of tokens, for people to read."""
        return bytes(numbers).decode("utf-8", errors="replace")

    @property
    def padding(self) -> int:
        """Return the token that stands where there is none; a network is told to look away from it."""
        return 0

    def encode_pairs(self, firsts: list[str], seconds: list[str] | None, length: int) -> np.ndarray:
        """Sentences, or pairs of them, cut at ``length``: (n, 3, length) int32 as ``core.data_types.Sentences`` says."""
        marked = [f"{a}\n".encode() for a in firsts] if seconds else [a.encode() for a in firsts]
        rows = [(list(a), [0] * len(a)) for a in marked]
        if seconds:
            rows = [(ids + list(b), kinds + [1] * len(b)) for (ids, kinds), b in
                    zip(rows, (b.encode() for b in seconds), strict=True)]  # fmt: skip
        return packed(rows, length, self.padding)

    def files(self) -> dict[str, bytes]:
        """Return the files for a network trained on its tokens, by name; none if numbers say it all."""
        return {}

    def count(self, text: bytes) -> int:
        """``len(encode(text))``."""
        return len(self.encode(text))

    def counts(self, sizes: dict[str, int]) -> dict[str, int]:
        """Tokens per split, from bytes per split; empty where only reading the text tells."""
        return sizes


def packed(rows: list[tuple[list[int], list[int]]], length: int, pad: int) -> np.ndarray:
    """(n, 3, length) int32 of rows (tokens, kinds): tokens, presence, kinds. A row without a token has one of padding."""
    made = np.zeros((len(rows), 3, length), np.int32)
    made[:, 0] = pad
    for row, (ids, kinds) in zip(made, rows, strict=True):
        count = min(len(ids), length)
        row[0, :count], row[2, :count] = ids[:count], kinds[:count]
        row[1, : max(count, 1)] = 1
    return made


class Closed(Tokenizer):
    """The units of the train split in the order in which they first appear; all others are ``<unk>``.

    unit: ``characters`` or ``words``.
    """

    def __init__(self, unit: str):
        self.unit = unit
        self.numbers: dict[str, int] = {}

    @property
    def learns(self) -> bool:
        return True

    def learn(self, train: bytes) -> None:
        self.numbers = {unit: number for number, unit in enumerate(dict.fromkeys(self._units(train)))}
        self.numbers.setdefault(UNKNOWN, len(self.numbers))

    def vocabulary(self) -> int:
        return len(self.numbers)

    def mark(self, fingerprint: str) -> str:
        return hashlib.sha256(f"{fingerprint}\0{self.unit}".encode()).hexdigest()

    def encode(self, text: bytes) -> np.ndarray:
        unknown = self.numbers[UNKNOWN]
        small = len(self.numbers) <= 256
        numbers = (self.numbers.get(unit, unknown) for unit in self._units(text))
        return np.fromiter(numbers, np.uint8 if small else np.int32)

    def spelled(self, numbers: list[int]) -> str:
        units = list(self.numbers)
        return ("" if self.unit == CHARACTERS else " ").join(units[number] for number in numbers)

    def count(self, text: bytes) -> int:
        return len(self._units(text))

    def counts(self, sizes: dict[str, int]) -> dict[str, int]:
        return {}

    def _units(self, text: bytes) -> Sequence[str]:
        return UNITS[self.unit](text.decode("utf-8", errors="replace"))


class Library(Tokenizer):
    """A tokenizer of transformers: a folder, or a name on the hub."""

    def __init__(self, name: str):
        self.name = name
        folder = Path(name).expanduser()
        self.folder = folder if folder.is_dir() else None
        self.where = f"dataset.tokenizer={files.short(name)}"
        builtin = f"{BYTES}, {', '.join(UNITS)}"
        if self.folder is not None:
            self._check_folder()
        elif name.startswith((".", "/", "~")) or name.count("/") > 1:
            refuse(self.where, "no such folder", f"write {builtin}, a tokenizer's folder, or its name on the hub")
        elif (switch := hub.offline()) and not hub.cached(name, "models"):
            problem = f"no such folder, and {switch} keeps the hub off"
            refuse(self.where, problem, f"write {builtin}, or a tokenizer's folder")

    def vocabulary(self) -> int:
        """Its size from its files; 0 where they do not say."""
        if self.folder is None or not (path := self.folder / "tokenizer.json").is_file():
            return 0
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known = content["model"]["vocab"]
            largest = max(known.values()) if isinstance(known, dict) else len(known) - 1
            return max([largest, *(token["id"] for token in content.get("added_tokens") or [])]) + 1
        except (OSError, ValueError, KeyError, TypeError):
            refuse(self.where, "its tokenizer.json is damaged", "copy the tokenizer again")

    def loaded_vocabulary(self) -> int:
        return self.vocabulary() or len(self._loaded())

    def mark(self, fingerprint: str) -> str:
        own = files.content_hash(self._files(self.folder)) if self.folder else self.name
        return hashlib.sha256(f"{fingerprint}\0{own}".encode()).hexdigest()

    def files(self) -> dict[str, bytes]:
        if self.folder is not None:
            return {path.name: path.read_bytes() for path in self._files(self.folder)}
        with tempfile.TemporaryDirectory() as folder:
            self._loaded().save_pretrained(folder)
            return {path.name: path.read_bytes() for path in self._files(Path(folder))}

    @cached_property
    def padding(self) -> int:
        """Its own padding token, else the one that ends or stands for an unknown; from its files where they say it."""
        for name in ("pad_token", "eos_token", "unk_token"):
            number = self._special(name)
            if number is not None:
                return number
        return 0

    def _special(self, name: str) -> int | None:
        if self.folder is None or not (self.folder / "tokenizer.json").is_file():
            return getattr(self._loaded(), f"{name}_id")
        try:
            told = json.loads((self.folder / "tokenizer_config.json").read_text(encoding="utf-8")).get(name)
            content = json.loads((self.folder / "tokenizer.json").read_text(encoding="utf-8"))
            token = told["content"] if isinstance(told, dict) else told
            added = {one["content"]: one["id"] for one in content.get("added_tokens") or []}
            known = content["model"]["vocab"]
            return added.get(token, known.get(token) if isinstance(known, dict) else None)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return getattr(self._loaded(), f"{name}_id")

    def encode_pairs(self, firsts: list[str], seconds: list[str] | None, length: int) -> np.ndarray:
        text = "\0".join([*firsts, "\0", *(seconds or [])]).encode()
        return self._kept(f"pairs {length}\0".encode() + text, lambda: self._encode_pairs(firsts, seconds, length))

    def _encode_pairs(self, firsts: list[str], seconds: list[str] | None, length: int) -> np.ndarray:
        """With the special tokens that the tokenizer puts around a sentence or a pair."""
        if not firsts:
            return packed([], length, self.padding)
        made = self._loaded()(firsts, seconds, truncation=True, max_length=length, verbose=False)
        ids = made["input_ids"]
        kinds = made.get("token_type_ids") or [[0] * len(row) for row in ids]
        return packed(list(zip(ids, kinds, strict=True)), length, self.padding)

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        """Return the files of a tokenizer; a model's weights and configs may lie in the same folder."""
        return sorted({path for name in TOKENIZER_FILES for path in folder.glob(name) if path.is_file()})

    def encode(self, text: bytes) -> np.ndarray:
        return self._kept(text, lambda: self._encode(text))

    def encode_each(self, texts: list[bytes], between: bytes) -> np.ndarray:
        whole = between.join(texts)
        return self._kept(b"each\0" + between + b"\0" + whole, lambda: self._encode_each(texts, whole))

    def _kept(self, text: bytes, make: Callable[[], np.ndarray]) -> np.ndarray:
        key = f"tokens-{hashlib.sha256(self.mark('').encode() + hashlib.sha256(text).digest()).hexdigest()[:32]}"
        return cache.array(key, make) if self.folder else make()

    def begun(self, text: str) -> list[int]:
        tokenizer = self._loaded()
        numbers = list(tokenizer(text, verbose=False)["input_ids"])
        last = {tokenizer.eos_token_id, getattr(tokenizer, "sep_token_id", None)} - {tokenizer.bos_token_id, None}
        return numbers[:-1] if len(numbers) > 1 and numbers[-1] in last else numbers

    def spelled(self, numbers: list[int]) -> str:
        return str(self._loaded().decode(numbers, clean_up_tokenization_spaces=False))

    def counts(self, sizes: dict[str, int]) -> dict[str, int]:
        return {}

    def _encode(self, text: bytes) -> np.ndarray:
        tokenizer = self._loaded()
        ids = tokenizer(text.decode("utf-8", errors="replace"), add_special_tokens=False, verbose=False)["input_ids"]
        return np.array(ids, np.int32)

    def _encode_each(self, texts: list[bytes], whole: bytes) -> np.ndarray:
        tokenizer = self._loaded()
        first = tokenizer.bos_token_id
        if first is None:
            return self._encode(whole)
        words = [text.decode("utf-8", errors="replace") for text in texts]
        rows = tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
        return np.array([number for row in rows for number in (first, *row)], np.int32)

    def _loaded(self) -> Any:
        return self._library

    @cached_property
    def _library(self) -> Any:
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder or self.name)
        except Exception as error:  # the library's failures share no base class
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:60]
            refuse(self.where, f"cannot be loaded ({reason})", f"write {BYTES}, or a tokenizer's folder")

    def _check_folder(self) -> None:
        if self.folder is not None and not holds_tokenizer(self.folder):
            refuse(self.where, "the folder holds no tokenizer.json", "name a tokenizer's folder")
