"""Source text with keys and values in it, some of which come twice: what a network looks up far away [no torch at import]."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_uppercase, digits
from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.errors import refuse
from sparselab.core.memo import once
from sparselab.inputs.data import files
from sparselab.inputs.data.dataset import DATASETS
from sparselab.inputs.data.seeds import generator
from sparselab.inputs.data.sets.text import PARTS, Origin, Stdlib, StdlibOptions
from sparselab.inputs.data.tokens import AUTO, BYTES

if TYPE_CHECKING:
    import numpy as np

    from sparselab.inputs.data.prompts import Prompt
    from sparselab.inputs.data.splits import TextSplits

KEYS = ascii_uppercase
LINE = len("#A=1234\n")
VALUE = 4  # digits


class NeedleOptions(StdlibOptions):
    """Options of source text with needles."""

    pairs: int = Field(ge=1, le=len(KEYS), description="keys with their values in a record, 1 to 26")
    records: int = Field(ge=100, description="records of the train split, at least 100")
    share: float = Field(
        ge=0, le=1, description="in [0, 1]: records of train and val with needles; the others are plain"
    )
    asked: int = Field(
        ge=1, description="tokens of a record that follow the last key: the value, and what comes after it"
    )
    draw: int = Field(ge=0, description="which keys, values and passages, a whole number, at least 0")


@dataclass(frozen=True)
class Record:
    """``dataset.block`` bytes: passage and lines ``#A=1234``, each key twice; value: of the last key, for a prompt."""

    text: bytes
    value: str


@DATASETS.register("needles")
class Needles(Stdlib):
    """Records of ``block`` bytes of the standard library's source, into which lines like ``#K=7306`` are put.

    A record has ``pairs`` such lines at random places of its passage, and all of them once more, in another order, before its
    last ``asked`` bytes; the last of these begins there with its value, and more of the passage follows. As a prompt a record
    of the test split ends behind the key, and the value has to be found where it stood first. Keys are capital letters,
    all different in a record, values four digits; generated, the same for the same ``draw``. Windows begin where records do.
    Val has a twentieth of the records that train has, test 1,000, all with needles. Passages are of the split's own files.
    """

    Options = NeedleOptions
    options: NeedleOptions

    def origin(self) -> Origin:
        o = self.options
        if o.tokenizer not in (AUTO, BYTES):
            refuse(
                f"dataset.tokenizer={o.tokenizer}"[:60], "records are counted in bytes", "write dataset.tokenizer=bytes"
            )
        if o.windows == "streams":
            refuse("dataset.windows=streams", "records do not go on from each other", "write dataset.windows=drawn")
        if o.asked <= VALUE:
            refuse(
                f"dataset.asked={o.asked}",
                f"a value has {VALUE} digits and a line's end",
                f"write at least {VALUE + 1}",
            )
        least = 2 * o.pairs * LINE + o.asked - VALUE - 1
        if o.block < least:
            problem = f"{o.pairs} pairs twice, and {o.asked} bytes behind the last key, take {least}"
            refuse(f"dataset.block={o.block}", problem, f"write at least {least}, or fewer dataset.pairs")
        origin = super().origin()
        counts = {part: self.counts[part] * o.block for part in PARTS}
        mark = (o.pairs, o.share, o.asked, o.draw, o.block, *counts.values())
        digest = files.listing_hash([(f"needles {mark} in {origin.fingerprint}", 1)])
        return Origin(origin.kind, digest, counts, origin.folder)

    @property
    def counts(self) -> dict[str, int]:
        """Records per split."""
        return dict(zip(PARTS, (self.options.records, max(self.options.records // 20, 1), 1000), strict=True))

    @property
    def passage_length(self) -> int:
        """Bytes of a record with needles that are of the library's source; negative where there is no room."""
        return self.options.block - 2 * self.options.pairs * LINE

    def texts(self, origin: Origin) -> dict[str, bytes]:
        return {part: b"".join(record.text for record in self.records(origin)[part]) for part in PARTS}

    def records(self, origin: Origin) -> dict[str, list[Record]]:
        """The records of each split."""
        return once(("needles", origin.fingerprint), lambda: self._made(origin))

    def _made(self, origin: Origin) -> dict[str, list[Record]]:
        o, source = self.options, super().texts(origin)
        made: dict[str, list[Record]] = {}
        for part in PARTS:
            rng, count = generator("needles", o.draw, part), self.counts[part]
            if len(source[part]) <= o.block:
                refuse(
                    f"dataset.block={o.block}",
                    f"the {part} split has only {len(source[part])} bytes",
                    "write a smaller one",
                )
            plain = rng.random(count) >= (1.0 if part == "test" else o.share)
            made[part] = [self._record(rng, source[part], bool(bare)) for bare in plain]
        return made

    def _record(self, rng: np.random.Generator, source: bytes, plain: bool) -> Record:
        o = self.options
        length = o.block if plain else self.passage_length
        start = int(rng.integers(len(source) - length))
        passage = source[start : start + length]
        if plain:
            return Record(passage, "")
        keys = [KEYS[number] for number in rng.permutation(len(KEYS))[: o.pairs]]
        values = ["".join(digits[one] for one in row) for row in rng.integers(0, 10, (o.pairs, VALUE))]
        lines = [f"#{key}={value}\n".encode() for key, value in zip(keys, values, strict=True)]
        after = o.asked - VALUE - 1
        passage, behind = passage[: length - after], passage[length - after :]
        places = sorted(rng.integers(0, len(passage) + 1, o.pairs).tolist())
        text, reached = b"", 0
        for place, line in zip(places, lines, strict=True):
            text, reached = text + passage[reached:place] + line, place
        again = rng.permutation(o.pairs).tolist()
        text += passage[reached:] + b"".join(lines[number] for number in again) + behind
        return Record(text, values[again[-1]])

    def load(self) -> TextSplits:
        from dataclasses import replace

        return replace(super().load(), apart=True)

    def prompt_length(self) -> int | None:
        return self.options.block - self.options.asked

    def prompts(self, splits: TextSplits, count: int, seed: int) -> list[Prompt]:
        """Return records of the test split up to their last key, with the value that stands for it.

        Args:
            splits: as loaded; not looked at
            count: how many, at most
            seed: which records

        Returns:
            Prompts of one length, with answers.
        """
        import torch

        from sparselab.inputs.data.prompts import Prompt

        found = self.records(self.origin())["test"]
        encode, length = self.tokenizer().encode, self.options.block - self.options.asked
        return [
            Prompt(torch.from_numpy(encode(found[number].text[:length])).long(), found[number].value)
            for number in generator("prompts", seed).permutation(len(found))[:count]
        ]

    def answer(self, text: str) -> str | None:
        return text[:VALUE]
