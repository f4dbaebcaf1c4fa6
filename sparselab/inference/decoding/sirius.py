"""Sirius: the network under its rules drafts, and the network without them corrects (arXiv 2409.03856)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.inference.decoding.decoding import DECODINGS
from sparselab.inference.decoding.loop import Loop, LoopOptions, Text

if TYPE_CHECKING:
    from sparselab.inference.decoding.cached.writing import Writing


@DECODINGS.register("sirius")
class Sirius(Loop):
    """Drafts of a period, each checked by one dense pass (Zhou et al. 2024, arXiv 2409.03856).

    The dense network gives the first token of a period; the ruled one drafts the others, in ``width`` branches. One dense
    pass over the period overwrites its keys and values. Of each branch those drafted tokens are accepted that come before the
    first with softmax(logits / ``likelihood_temperature``) below ``threshold``; the branch with the most goes on, and the
    dense network's own next token follows. The rest is taken back.
    """

    class Options(LoopOptions):
        period: int = Field(ge=2, description="tokens between two checks, at least 2")
        threshold: float = Field(
            ge=0, description="the least likelihood of an accepted token, at least 0; above 1 none is"
        )
        width: int = Field(ge=1, description="branches that are drafted, at least 1")
        likelihood_temperature: float = Field(gt=0, description="above 0: of the likelihoods that are compared")
        branch_stop: float | None = Field(
            gt=0,
            le=1,
            description="in (0, 1]: above this likelihood of a branch's best token its others are left, or null",
        )
        rewrite: bool = Field(description="true: a check overwrites keys and values (false shows what that is worth)")
        shared_mask: bool = Field(description="true: one mask for all branches of a text")

    options: Options
    needs_rules = True

    @property
    def ahead(self) -> int:
        return self.options.period - 1

    def misfits(self) -> list[Issue]:
        o = self.options
        if not o.temperature or o.width == 1:
            return []
        problem = "branches are ranked by likelihood, and drawn tokens are not"
        return [Issue(f"decoding.width={o.width}", problem, "write decoding.width=1, or decoding.temperature=0")]

    def write(self, writing: Writing) -> Text:
        from sparselab.inference.decoding.cached.correcting import write

        return write(writing, self.options)

    def metrics(self, counts: Mapping[str, float], density: float) -> dict[str, float]:
        """Return the average advance length, and weights read per token; of whole periods where there are such.

        Args:
            counts: of all texts
            density: of a drafted token

        Returns:
            effective_density: ((P - 1) rho + 1) / AAL. advance: AAL, tokens that a check adds. advance_share: of P.
                corrected_share: dense tokens in the place of rejected ones, of all that were added. taken_back: rejected,
                of all drafted ones.
        """
        kind = "whole" if counts.get("whole_checks") else "short"
        checks, advanced, drafted = (counts.get(f"{kind}_{key}", 0) for key in ("checks", "advanced", "drafted"))
        if not checks:  # all texts ended with their first token
            return {"effective_density": 1.0}
        both = {key: counts.get(f"whole_{key}", 0) + counts.get(f"short_{key}", 0) for key in ("advanced", "drafted")}
        advance = advanced / checks
        return {
            "effective_density": (drafted / checks * density + 1) / advance,
            "advance": advance,
            "advance_share": advance / self.options.period,
            "corrected_share": counts.get("corrections", 0) / both["advanced"],
            "taken_back": counts.get("rejected", 0) / max(both["drafted"], 1),
        }
