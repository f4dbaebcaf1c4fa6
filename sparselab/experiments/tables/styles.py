"""How the curves of a figure are told apart, in every rendering of it: a colour, a shape and a dash each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLOURS, SHAPES, DASHES = 8, 8, 4  # how many of each a rendering has
JOINTS = (" · ", ", ")  # between the two parts of a curve's name


@dataclass(frozen=True)
class Style:
    """Numbers of a colour, of a marker's shape and of a dash; a rendering has its own list of each."""

    colour: int
    shape: int
    dash: int


def styles(names: Sequence[str]) -> list[Style]:
    """A style for each curve, no two alike as long as there are enough.

    Up to eight differ in colour and, once more, in shape. More of them are readable only by their two parts ("MLP 16 · ERK"):
    the colour then says one part, shape and dash the other. Without such names a second round of colours has other shapes, too.
    """
    parts = _parts(names) if len(names) > COLOURS else None
    if parts is None:
        rounds = ((n, n // COLOURS) for n in range(len(names)))
        return [Style(n % COLOURS, (n + turn) % SHAPES, turn % DASHES) for n, turn in rounds]
    firsts, seconds = (list(dict.fromkeys(part)) for part in zip(*parts, strict=True))
    swap = len(firsts) > len(seconds)
    colours, shapes = (firsts, seconds) if swap else (seconds, firsts)
    return [
        Style(
            colours.index(pair[not swap]) % COLOURS,
            shapes.index(pair[swap]) % SHAPES,
            shapes.index(pair[swap]) % DASHES,
        )
        for pair in parts
    ]


def _parts(names: Sequence[str]) -> list[tuple[str, str]] | None:
    """The two parts of every name, where all have them and both take several values that a style can show."""
    for joint in JOINTS:
        pairs = [tuple(name.split(joint)) for name in names]
        if all(len(pair) == 2 for pair in pairs):
            firsts, seconds = (len(set(part)) for part in zip(*pairs, strict=True))
            if firsts > 1 and seconds > 1 and max(firsts, seconds) <= COLOURS and min(firsts, seconds) <= SHAPES:
                return [(pair[0], pair[1]) for pair in pairs]
    return None
