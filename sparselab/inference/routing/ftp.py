"""FTP: a small trained router sends tokens past blocks (arXiv 2412.11494)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.inference.routing.rule import ROUTINGS, TokenRule, TokenRuleOptions

if TYPE_CHECKING:
    from sparselab.inference.routing.tokens.frozen import Frozen, Routes


@ROUTINGS.register("ftp")
class FTP(TokenRule):
    """One router for all blocks, of two layers, that reads four numbers of a token; the network is frozen.

    Position, the attention that the token got in the block that last computed it, the rank of that, and s_i. It is trained
    towards the static router (a loss that fades), towards the share s_i, and towards the outputs of the whole network.
    Afterwards the search for the s_i is repeated with it.
    """

    class Options(TokenRuleOptions):
        inputs: list[Literal["position", "score", "rank", "share", "hidden"]] = Field(
            min_length=1, description="position, score, rank, share, hidden: what the router reads of a token"
        )
        score_from: Literal["last", "mean", "causal"] = Field(
            description="last, mean or causal: queries whose attention scores a token (its last, all, its own)"
        )
        select: Literal["threshold", "topk"] = Field(
            description="threshold (kept where p > 0.5) or topk (the largest p, exactly as many as asked)"
        )
        keep_last: bool = Field(description="true: the last token is kept in every block that is not skipped whole")
        width: int = Field(ge=1, description="hidden width of the router, at least 1")
        steps: int = Field(ge=0, description="updates of the router, on one window each")
        lr: float = Field(gt=0, description="learning rate of AdamW, above 0")
        guide: float = Field(ge=0, description="weight of the loss towards the static router, at least 0; it fades")
        sparsity_loss: float = Field(ge=0, description="weight of the loss of too few skipped tokens, at least 0")
        distill: float = Field(ge=0, description="weight of the loss against the whole network, at least 0")
        distill_at: Literal["all", "last"] = Field(
            description="all or last: positions whose outputs are compared with the whole network's"
        )
        refine: int = Field(ge=0, description="generations of the search with the trained router, at least 0")

    options: Options

    def aimless(self, target: float | None) -> list[Issue]:
        o, found = self.options, super().aimless(target)
        if not o.steps:
            fix = "write routing.steps=1000, or routing=static_tokens"
            found.append(Issue("routing.steps=0", "leaves no router trained to choose tokens", fix))
        if o.score_from == "causal" and o.select == "topk":
            problem = "compares all tokens, also with later ones"
            found.append(Issue("routing.select=topk", problem, "write routing.select=threshold"))
        return found

    def read(self, windows: int, depth: int) -> float:
        o = self.options
        again = o.population + o.refine * (o.population - o.elite)
        refined = windows * again if o.refine and o.allocation == "genetic" and o.shares is None else 0
        return super().read(windows, depth) + refined + 4 * o.steps

    def prepare(self, frozen: Frozen) -> Routes:
        from sparselab.inference.routing.tokens.learning import prepare

        return prepare(self, frozen)
