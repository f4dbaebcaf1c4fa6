"""``seeds=`` on a table's command line: more seeds than the tier plans, or some of them."""

from __future__ import annotations

import re

from sparselab.spec.faults import refuse, short
from sparselab.tables.grid import tier_of
from sparselab.tables.schema import Table

FIX = "write seeds=+5 (the tier's and five more) or seeds=3,4 (these)"
MOST = 1000


def with_seeds(table: Table, tier: str, asked: str) -> Table:
    """The table with other seeds at ``tier``.

    ``+N``: the tier's seeds and the N that follow its largest; ``3,4``: these and no others. Refused for anything else.
    """
    plan = tier_of(table, tier)
    where = short(f"seeds={asked}")
    if found := re.fullmatch(r"\+([1-9]\d{0,3})", asked):
        seeds = [*plan.seeds, *(max(plan.seeds) + 1 + number for number in range(int(found[1])))]
    elif re.fullmatch(r"\d{1,9}(,\d{1,9})*", asked):
        seeds = [int(word) for word in asked.split(",")]
    else:
        refuse(where, "is neither a number of further seeds nor a list of seeds", FIX)
    if len(set(seeds)) < len(seeds):
        refuse(where, "the same seed twice", "write each seed once")
    if len(seeds) > MOST:
        refuse(where, f"more than {MOST:,} seeds", "ask for fewer")
    return table.model_copy(update={"tiers": {**table.tiers, tier: plan.model_copy(update={"seeds": seeds})}})
