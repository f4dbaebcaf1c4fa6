"""How the skipped share is divided among blocks: alike, by influence, or searched for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sparselab.core.errors import ConfigError
from sparselab.inference.routing.rule import TokenRule
from sparselab.inference.routing.tokens.decider import ByPosition, Decider, Part
from sparselab.inference.routing.tokens.frozen import Frozen, last_loss
from sparselab.inference.routing.tokens.genetic import Settings, Shares, evolve, project
from sparselab.inference.routing.tokens.influence import influences
from sparselab.inference.routing.tokens.routed import check_halves
from sparselab.inputs.data.seeds import generator
from sparselab.storage.ids import canonical

if TYPE_CHECKING:
    from sparselab.inference.routing.rule import TokenRuleOptions

Made = Callable[[list[float]], Decider]
_found: dict[str, Shares] = {}


def check_fit(rule: TokenRule, frozen: Frozen) -> None:
    """ConfigError where shares and protected blocks do not fit the network, RunFailed where blocks have no such half."""
    found = rule.unfit(frozen.trunk.depth, frozen.target)
    if found:
        raise ConfigError(found)
    if rule.options.scope != "block":
        check_halves(frozen.trunk, f"routing={rule.name}", frozen.windows("routing")[0][0][:1])


def allocated(rule: TokenRule, frozen: Frozen) -> list[float]:
    """Divide the skipped share among blocks, with the static router where a search asks how good an allocation is."""
    check_fit(rule, frozen)
    if rule.options.shares is not None:
        return list(rule.options.shares)
    return list(ALLOCATIONS[rule.options.allocation](rule, frozen))


def uniform(rule: TokenRule, frozen: Frozen) -> Shares:
    """The same share of every block that may be skipped."""
    upper = rule.upper(frozen.trunk.depth)
    return project([frozen.target] * len(upper), frozen.target, upper)


def by_influence(rule: TokenRule, frozen: Frozen) -> Shares:
    """Shares in inverse proportion to the influence of each block, as far as they stay between 0 and 1."""
    upper = rule.upper(frozen.trunk.depth)
    windows = [tokens for tokens, _ in frozen.windows("routing")]
    found = influences(frozen.trunk.blocks, frozen.trunk.logits, windows)
    wish = [top / max(one, 1e-6) for one, top in zip(found, upper, strict=True)]
    scale = frozen.target * len(wish) / sum(wish)
    return project([scale * one for one in wish], frozen.target, upper)


def genetic(rule: TokenRule, frozen: Frozen) -> Shares:
    """Search with the static router; cells that differ in what they do with the result share it."""
    o = rule.options
    keys = ("population", "generations", "elite", "mutation", "protect_first", "protect_last", "scope")
    key = canonical([frozen.about, frozen.target, *(getattr(o, name) for name in keys)])
    if key not in _found:
        start = [uniform(rule, frozen), by_influence(rule, frozen)]
        parts = parts_of(o)
        _found[key] = searched(rule, frozen, start, lambda shares: ByPosition(shares, parts), o.generations, "static")
    return _found[key]


def searched(
    rule: TokenRule, frozen: Frozen, start: list[Shares], made: Made, generations: int, purpose: str
) -> Shares:
    """Search for the shares with the least loss at the last position of calibration windows.

    Args:
        rule: of which the options count
        frozen: the network
        start: allocations to begin with
        made: shares to what chooses tokens
        generations: after the first
        purpose: another word is another draw

    Returns:
        (blocks,) shares.
    """
    o = rule.options
    windows = frozen.windows("routing")

    def fitness(shares: Shares) -> float:
        frozen.check("between two allocations")
        return -last_loss(frozen, made(list(shares)), windows)

    settings = Settings(o.population, generations, o.elite, o.mutation)
    rng = generator("allocation", purpose, frozen.seed)
    return evolve(fitness, start, frozen.target, rule.upper(frozen.trunk.depth), settings, rng)[0]


def parts_of(options: TokenRuleOptions) -> tuple[Part, ...]:
    """Name the parts of a block that a token skips."""
    return (options.scope,)


ALLOCATIONS: Mapping[str, Callable[[TokenRule, Frozen], Shares]] = {
    "uniform": uniform, "influence": by_influence, "genetic": genetic,
}  # fmt: skip
