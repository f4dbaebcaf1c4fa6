"""Facts about a dataset before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSpec:
    """The facts a plan needs.

    task:        ``image`` or ``text``.
    shape:       (channels, height, width) of an image; (tokens,) of a training window of text.
    classes:     classes of an image set; size of the vocabulary of a text.
    train/val/test: examples per split (images; windows of text). 0 where only loading can tell.
    fingerprint: a SHA-256 over the bytes of a bundled set or a local copy; over the name of a hub set, whose content
                 is known once it is loaded (:attr:`sparselab.inputs.data.splits.Splits.content`, which the record carries).
    source:      ``bundled``, ``local`` or ``hub``.
    path:        where a local copy lies; never part of a cell's id.
    forgets:     whether a part of the training data is to be forgotten.
    streams:     whether windows of a text are read in order, as parallel streams, and not drawn at random.
    title:       the name a table must print (``cifar10-jpeg`` for the re-compressed copy, say).
    """

    name: str
    task: str
    shape: tuple[int, ...]
    classes: int
    train: int
    val: int
    test: int
    fingerprint: str
    source: str
    path: str = ""
    title: str = ""
    forgets: bool = False
    streams: bool = False
