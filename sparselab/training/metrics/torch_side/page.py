"""Features and their contexts as a page of grey pixels. Imports Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from sparselab.training.metrics.feature import Feature

WIDTH, LINE, EDGE, SIZE = 860, 20, 14, 14  # pixels: of the page, of a line, of the margin, of the letters
MIDDLE = 400  # where the token that fires begins
PAPER, INK, MARKED = 255, 30, 205


def page(features: Sequence[Feature]) -> np.ndarray:
    """Grey values 0 to 255, uint8 (height, width): for each feature a heading, and a line for each context."""
    lines = sum(2 + len(feature.contexts) for feature in features)
    image = Image.new("L", (WIDTH, 2 * EDGE + LINE * max(lines, 1)), PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(SIZE)
    at = EDGE
    for feature in features:
        heading = f"feature {feature.number}: fires for {100 * feature.density:.2f} % of the tokens"
        draw.text((EDGE, at), heading, fill=INK, font=font)
        at += LINE
        for context in feature.contexts:
            before, token, after = map(_plain, (context.before, context.token, context.after))
            start = MIDDLE - draw.textlength(before, font=font)
            draw.text((start, at), before, fill=INK, font=font)
            draw.rectangle((0, at, EDGE + 50, at + LINE), fill=PAPER)  # a long context ends where the code stands
            draw.text((EDGE, at), f"{context.code:.2f}", fill=INK, font=font)
            end = MIDDLE + draw.textlength(token, font=font)
            draw.rectangle((MIDDLE - 1, at, end + 1, at + LINE - 2), fill=MARKED)
            draw.text((MIDDLE, at), token, fill=INK, font=font)
            draw.text((end, at), after, fill=INK, font=font)
            at += LINE
        at += LINE
    return np.asarray(image)


def _plain(text: str) -> str:
    """One line of characters that the font has; others are shown as dots."""
    return "".join("|" if c == "\n" else c if c.isprintable() and ord(c) < 256 else "·" for c in text)
