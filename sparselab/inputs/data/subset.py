"""Deterministic parts of a labelled set [no torch]."""

from __future__ import annotations

import hashlib

import numpy as np

from sparselab.inputs.data.seeds import generator

SEED = 20240229  # the splits of every run are the same: this is not the run's seed


def balanced(labels: np.ndarray, count: int, part: str) -> np.ndarray:
    """``count`` rows of ``labels`` (n,), ascending, with class counts as equal as the classes allow.

    The classes take turns until ``count`` rows are found, each giving its rows in a fixed random order. Fewer rows than
    there are classes are one of each of ``count`` classes, drawn with them. ``part`` separates the draws of one set from
    each other (test, validation, limits).
    """
    shuffled = generator("split", SEED, part).permutation(len(labels))
    first = np.unique(labels[shuffled], return_index=True)[1]  # the place of each class's first row
    if count < len(first):  # taking turns would always take the classes with the lowest numbers
        return np.sort(shuffled[np.sort(first)[:count]])
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.unique(labels, return_counts=True)[1]
    turn = np.concatenate([np.arange(n) for n in counts]) if len(counts) else np.empty(0, np.int64)
    return np.sort(by_class[np.argsort(turn, kind="stable")[:count]])


def shots(labels: np.ndarray, count: int, part: str) -> np.ndarray:
    """``count`` rows of every class of ``labels`` (n,), ascending, all of a smaller class. ``part`` fixes the draw."""
    shuffled = generator("split", SEED, part).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.unique(labels, return_counts=True)[1]
    place = np.concatenate([np.arange(n) for n in counts]) if len(counts) else np.empty(0, np.int64)
    return np.sort(by_class[place < count])


def without(rows: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Leave positions out.

    Args:
        rows: (n,) positions
        taken: (m,) positions

    Returns:
        (k,) those of ``rows`` that are not taken, in their order.
    """
    return rows[~np.isin(rows, taken)]


def digest(rows: np.ndarray) -> str:
    """Sixteen hex digits that name a selection of rows."""
    return hashlib.sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()[:16]
