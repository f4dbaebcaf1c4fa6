"""Two SVG files of one figure, told apart by what they show.

The last bit of a logarithm depends on the processor, and matplotlib names clip paths and markers by a hash of their
coordinates: equal records give equal pictures, not equal bytes.
"""

from __future__ import annotations

import re

NEAR = 0.01  # of a point, the unit of the coordinates: nobody can see less
# matplotlib's names of clip paths, hatches, images, markers and of the paths of collections. Glyphs keep theirs.
_ID = re.compile(r"(?<=[\"#])((?:C\d+_\d+_|image|[hmp])[0-9a-f]{10})(?=[\")])")
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")


def same_picture(one: bytes, other: bytes) -> bool:
    """True where the texts of two SVG files are equal but for their ids, and for coordinates to within :data:`NEAR`.

    An id is compared by where it occurs, so a reference to another clip path or marker is a difference.
    """
    if one == other:
        return True
    try:
        left, right = (_NUMBER.split(_with_plain_ids(data.decode())) for data in (one, other))
    except UnicodeDecodeError:
        return False
    return len(left) == len(right) and all(a == b or _near(a, b) for a, b in zip(left, right, strict=True))


def _with_plain_ids(text: str) -> str:
    """The text with its hashes replaced by their order of appearance."""
    order: dict[str, str] = {}
    return _ID.sub(lambda found: order.setdefault(found[1], f"id-{len(order)}"), text)


def _near(one: str, other: str) -> bool:
    """True for two numbers that differ by a hundredth at most; False where either is no number."""
    if not (_NUMBER.fullmatch(one) and _NUMBER.fullmatch(other)):
        return False
    return abs(float(one) - float(other)) <= NEAR
