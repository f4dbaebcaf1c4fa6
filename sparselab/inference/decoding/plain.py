"""One token after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparselab.inference.decoding.decoding import DECODINGS
from sparselab.inference.decoding.loop import Loop, Text

if TYPE_CHECKING:
    from sparselab.inference.decoding.cached.writing import Writing


@DECODINGS.register("plain")
class Plain(Loop):
    """Every token in a pass of its own, under the network's rules."""

    def write(self, writing: Writing) -> Text:
        tokens = [writing.begin()]
        while not writing.over(tokens):
            logits = writing.reader.read([[tokens[-1]]])[0, -1]
            tokens.append(writing.choose(logits, len(tokens)))
        return Text(tokens)
