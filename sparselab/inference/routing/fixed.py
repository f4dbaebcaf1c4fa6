"""Tokens by position or by chance: the static router of FTP, and the baselines that it has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sparselab.core.errors import Issue
from sparselab.core.options import Options
from sparselab.inference.routing.rule import ROUTINGS, Rule, TokenRule, TokenRuleOptions

if TYPE_CHECKING:
    from sparselab.inference.routing.tokens.frozen import Frozen, Routes


@ROUTINGS.register("static_tokens")
class StaticTokens(TokenRule):
    """Keeps the first token and the latest ones, whatever the text: the static router of FTP (arXiv 2412.11494).

    Of L tokens the first L - round(s_i L) in the order 0, L-1, L-2, …, 1 go through block i.
    """

    def prepare(self, frozen: Frozen) -> Routes:
        from sparselab.inference.routing.tokens.static import prepare

        return prepare(self, frozen)


@ROUTINGS.register("random_tokens")
class RandomTokens(TokenRule):
    """Keeps L - round(s_i L) random tokens, the last among them: other ones in every block, window and pass."""

    class Options(TokenRuleOptions):
        keep_last: bool = Field(description="true: the last token is one of those that stay, where any does")
        draw: int = Field(ge=0, description="which random tokens, a whole number, at least 0")

    options: Options

    def prepare(self, frozen: Frozen) -> Routes:
        from sparselab.inference.routing.tokens.chance import prepare

        return prepare(self, frozen)


class AllTokensOptions(Options):
    """No options."""

    defaults_from: ClassVar[str] = "routing/all_tokens"


@ROUTINGS.register("all_tokens")
class AllTokens(Rule):
    """Everything goes through every block: the network as it is, scored like those under a rule."""

    Options: ClassVar[type[Options]] = AllTokensOptions

    def aimless(self, target: float | None) -> list[Issue]:
        return [Issue(f"sparsity={target:g}", "is not for a rule that skips nothing", "leave it out")] if target else []

    def prepare(self, frozen: Frozen) -> Routes:
        from sparselab.inference.routing.tokens.static import nothing

        return nothing(frozen)


class TruncateOptions(Options):
    """Options of a shorter input."""

    defaults_from: ClassVar[str] = "routing/truncate"


@ROUTINGS.register("truncate")
class Truncate(Rule):
    """Deletes from the input what the static router skips; the tokens that stay keep their positions.

    It is what the static router amounts to at the last position where all blocks have one share, at the price of no router.
    """

    Options: ClassVar[type[Options]] = TruncateOptions

    def aimless(self, target: float | None) -> list[Issue]:
        return [] if target else [Issue(f"routing={self.name}", "has no sparsity to reach", "write sparsity=0.3")]

    def prepare(self, frozen: Frozen) -> Routes:
        from sparselab.inference.routing.tokens.shorter import prepare

        return prepare(frozen)
