"""SparseD: one block mask for each head, made after the first steps and used again in all others (arXiv 2509.24014)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.inference.attention.rule import ATTENTIONS, Tiles
from sparselab.inference.attention.stepped import Stepped, SteppedOptions

if TYPE_CHECKING:
    from torch import Tensor


@ATTENTIONS.register("sparsed")
class SparseD(Stepped):
    """Full attention for the first steps of a text, then the tiles that hold most of it at the end of these (Algorithm 1).

    At the last full step every layer averages its softmax over tiles, A' (eq. 4), and keeps for each head and tile of queries
    the largest ``1 - sparsity`` of the tiles among the prompt's keys and, apart from these, among those that are generated
    (eq. 5 and 6). All later steps use that mask. A tile with keys of both belongs to the prompt.

    ``selection=repo`` is INV-WZQ/SparseD as released: int(n (1 - sparsity)) + 1 of all n tiles, of which those among generated
    keys are dropped; then as many of the share among generated keys, by a softmax over these alone.
    """

    class Options(SteppedOptions):
        isolated: bool = Field(description="true: apart among prompt and generated keys; false: among all")
        reuse: bool = Field(description="true: one mask for a text; false: a new one in every step")
        selection: Literal["paper", "repo"] = Field(
            description="paper: tiles are chosen inside each part; repo: as released"
        )
        score_scale: Literal["sqrt_dim", "sqrt_heads"] = Field(
            description="sqrt_dim, or sqrt_heads as released for LLaDA: what scores are divided by for a mask"
        )
        edges: Literal["padded", "valid"] = Field(
            description="of tiles that stand over the end: padded (divide by the whole tile, as released) or valid"
        )
        score: Literal["attention", "random"] = Field(
            description="attention, or random: the same counts of tiles, drawn (shows what the scores are worth)"
        )
        draw: int = Field(ge=0, description="which random tiles, a whole number, at least 0")

    options: Options
    needs_steps = True

    def __init__(self, options: Options, sparsity: float | None = None):
        super().__init__(options, sparsity)
        self.masks: dict[int, Tensor] = {}
        self.same: Counter[str] = Counter()
        self._made = 0

    def look(self, tiles: Tiles) -> None:
        assert self.at is not None
        if self.at.number == 0:
            self.masks.pop(tiles.layer, None)
        if self.at.number == self.full - 1:
            self.masks[tiles.layer] = self.mask(tiles)

    def choose(self, tiles: Tiles) -> Tensor:
        first = self.at is None or self.at.number == 0  # of a text without full steps
        if first or tiles.layer not in self.masks:
            self.masks[tiles.layer] = self.mask(tiles)
        elif not self.options.reuse:
            mask = self.mask(tiles)
            self._compare(self.masks[tiles.layer], mask)
            return mask & tiles.valid
        return self.masks[tiles.layer] & tiles.valid

    def mask(self, tiles: Tiles) -> Tensor:
        """Make a mask of the scores of a step.

        Args:
            tiles: the scores of a layer, cut into tiles, and where keys may be seen

        Returns:
            (n, heads, query tiles, key tiles) bool.
        """
        from sparselab.inference.attention.tiled.mass import selected

        assert tiles.scores is not None
        self.spent += tiles.scores.numel() * tiles.width
        self._made += 1
        generated = tiles.scores.shape[-1] if self.at is None else self.at.generated
        return selected(tiles, self.options, 1 - (self.sparsity or 0.0), generated, self._made)

    def _compare(self, before: Tensor, after: Tensor) -> None:
        """Count how much of a mask there was in the first one, and how much of a head's there is in the next head's."""
        kept = after.sum().item()
        self.same.update({
            "kept": kept,
            "steps": (after & before).sum().item(),
            "heads": (after & after.roll(1, 1)).sum().item(),
        })  # fmt: skip

    def measures(self) -> dict[str, float]:
        """Return what masks of later steps have in common, where there are such.

        Returns:
            same_over_steps: share of a mask's tiles that the text's first mask had. same_over_heads: share that another head
                has in the same step. same_gain: their difference.
        """
        if not self.same["kept"]:
            return {}
        steps, heads = (self.same[name] / self.same["kept"] for name in ("steps", "heads"))
        return {"same_over_steps": steps, "same_over_heads": heads, "same_gain": steps - heads}
