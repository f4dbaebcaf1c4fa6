"""Which cells a command line asks for, and their plans [no torch]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparselab.config.members import groups
from sparselab.config.overrides import expand
from sparselab.config.schema import UNIDENTIFIED
from sparselab.config.trees import TABLE
from sparselab.core.errors import ConfigError, Issue, Issues, nearest, refuse, short
from sparselab.core.memo import sharing

if TYPE_CHECKING:
    from sparselab.experiments.tables.schema import Table
    from sparselab.running.engine import Plan

TIER = "tier"
SEEDS = "seeds"


@dataclass(frozen=True)
class Wanted:
    """A cell as it was asked for: what tells it from the others, and its overrides."""

    title: str
    overrides: tuple[str, ...]


@dataclass
class Asked:
    """The meaning of a command line.

    hydra: Hydra's own overrides. metric: the number to show, if a table has one. config_dir: the user's folder of configs.
    """

    name: str
    cells: list[Wanted]
    hydra: list[str]
    paper: str | None = None
    tier: str | None = None
    metric: str | None = None
    tables: tuple[Table, ...] = ()  # whose cells they are
    config_dir: str | None = None


@dataclass(frozen=True)
class Planned:
    """A cell that is known to be sound. ``work``: what it costs, in any unit. ``dependencies``: ids of cells that go first."""

    id: str
    folder: str
    title: str
    overrides: tuple[str, ...]
    work: float
    dependencies: tuple[str, ...] = ()
    force: bool = False


@dataclass
class Schedule:
    """All cells of a sweep by id, those that others need included."""

    cells: dict[str, Planned] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)  # ids of those that were asked for, not only needed
    count: int = 0  # how many were asked for, the same one counted as often as it was

    def levels(self) -> Iterator[list[Planned]]:
        """Cells that need nothing, then those that need only these, and so on."""
        placed: set[str] = set()
        rest = list(self.cells.values())
        while rest:
            ready = [cell for cell in rest if placed.issuperset(cell.dependencies)]
            yield ready
            placed |= {cell.id for cell in ready}
            rest = [cell for cell in rest if cell.id not in placed]


def read(overrides: list[str], config_dir: str | None = None) -> Asked:
    """Read tables (``paper=<slug>[/<table>][,…] tier=<tier> [seeds=+5]``) or a product of values. Raises ConfigError.

    config_dir: a user's folder of config groups, whose papers are known too.
    """
    labels = {TABLE: "", TIER: ""}
    rest = []
    known = [*groups(), "sparsity", "seed", "targets", *UNIDENTIFIED]
    for text in overrides:
        key, equals, value = text.partition("=")
        if key not in known and equals and "." not in key and nearest(key, known) == TABLE:
            refuse(short(text), "no such key", f'did you mean "{TABLE}={value}"?')  # else each default gets a line too
        if key == TABLE and equals and value not in ("null", ""):
            labels[key] = value
        else:
            rest.append(text)
    if not labels[TABLE]:
        cells, own = expand(overrides)
        return Asked("sweep", _titled([[text.replace("\\:", ":") for text in cell] for cell in cells]), own)
    tiers = [text.partition("=")[2] for text in rest if text.startswith(f"{TIER}=")]
    seeds = [text.partition("=")[2] for text in rest if text.startswith(f"{SEEDS}=")]
    rest = [text for text in rest if not text.startswith((f"{TIER}=", f"{SEEDS}="))]
    return _tables(labels[TABLE].split(","), tiers, seeds, rest, config_dir)


def _titled(cells: list[list[str]]) -> list[Wanted]:
    """Each cell is called by what not all of them say; the only one by all it says."""
    common = set.intersection(*map(set, cells)) if len(cells) > 1 else set()
    return [Wanted(" ".join(t for t in cell if t not in common) or "the defaults", tuple(cell)) for cell in cells]


def _tables(slugs: list[str], tiers: list[str], seeds: list[str], rest: list[str], config_dir: str | None) -> Asked:
    from sparselab.experiments.tables.grid import expand as cells_of
    from sparselab.experiments.tables.grid import merge, tier_of
    from sparselab.experiments.tables.load import load
    from sparselab.experiments.tables.seeds import with_seeds

    issues = Issues()
    if len(tiers) != 1 or "," in tiers[0]:
        issues.add(TIER, "one size of the table is needed", f"add {TIER}=smoke, cpu, gpu or paper")
    if len(seeds) > 1:
        issues.add(SEEDS, "is there twice", "give it once")
    extra, own = expand(rest)
    for text in dict.fromkeys(text for cell in extra for text in cell):
        if text.partition("=")[0] not in UNIDENTIFIED:
            issues.add(short(text), "the cells are the table's", f"leave it out, or sweep without {TABLE}=")
    if len(extra) > 1:
        issues.add(TABLE, "a table cannot be crossed with other values", "give one value for each key")
    tables: list[Table] = []
    for slug in slugs:
        with issues.collect():
            found = load(slug, search_path=config_dir)
            tables += [t for t in found if tiers and tiers[0] in t.tiers] or found[:1]
    issues.raise_if_any()
    tier, wanted = tiers[0], []
    for table in tables:
        tier_of(table, tier)
    if seeds:
        tables = [with_seeds(table, tier, seeds[0]) for table in tables]
    for table in tables:
        prefix = f"{table.output}: " if len(tables) > 1 else ""
        wanted += [
            Wanted(f"{prefix}{cell.row} · {cell.column} · seed {cell.seed}", merge(cell.overrides, extra[0]))
            for cell in cells_of(table, tier)
        ]
    metrics = {table.metric.key for table in tables}
    name = f"{' '.join(slugs)} {tier}"
    metric = metrics.pop() if len(metrics) == 1 else None
    return Asked(name, wanted, own, tables[0].paper, tier, metric, tuple(tables), config_dir)


def plan(asked: Asked, config_dir: str | None = None) -> list[tuple[Wanted, Plan]]:
    """The plan of every cell; ConfigError with the faults of all of them, before anything has run."""
    from sparselab.running.planning import plan_of

    plans: list[tuple[Wanted, Plan]] = []
    found: dict[Issue, list[str]] = {}
    with sharing():
        for cell in asked.cells:
            try:
                plans.append((cell, plan_of(list(cell.overrides), config_dir)))
            except ConfigError as refused:
                for issue in refused.issues:
                    found.setdefault(issue, []).append(cell.title)
    if found:
        raise ConfigError(_named(issue, titles, asked) for issue, titles in found.items())
    return plans


def _named(issue: Issue, titles: list[str], asked: Asked) -> Issue:
    """A fault of some cells of a table says of which; what was typed says it itself."""
    if asked.paper is None or len(titles) == len(asked.cells):
        return issue
    others = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
    return Issue(f"({titles[0]}){others} {issue.where}", issue.problem, issue.fix)


def schedule(plans: Iterable[tuple[Wanted, Plan]]) -> Schedule:
    """Return the order of the run: each cell once, after the cells that it needs. Raises ConfigError for two runs folders."""
    out, plans = Schedule(), list(plans)
    roots = {str(plan.config["runs_dir"]) for _, plan in plans}
    for wanted, plan in plans:
        out.count += 1
        out.asked.add(plan.id)
        _add(out, plan, wanted.title)
    unfolded: set[str] = set()
    for _, plan in plans:
        _add_parents(out, plan, unfolded)
    if len(roots) > 1:
        refuse("runs_dir", f"a sweep has one runs folder, not {len(roots)}", "start a sweep for each")
    return out


def _add(out: Schedule, plan: Plan, title: str) -> None:
    if plan.id in out.cells:
        return
    work = plan.work or plan.steps or 1
    overrides = tuple(text for text in plan.typed if not text.startswith(("force=", "debug=")))
    dependencies = tuple(parent.id for parent in plan.parent_plans)
    out.cells[plan.id] = Planned(
        plan.id, plan.folder, title, overrides, float(work), dependencies, plan.config["force"]
    )


def _add_parents(out: Schedule, plan: Plan, unfolded: set[str]) -> None:
    """Add what a plan needs. unfolded: ids of those whose parents are there; from cycles of copies many paths lead back."""
    if plan.id in unfolded:
        return
    unfolded.add(plan.id)
    for parent in plan.parent_plans:
        own = [text for text in parent.overrides if text.partition("=")[0] not in UNIDENTIFIED]
        _add(out, parent, f"for others: {' '.join(own)}")
        _add_parents(out, parent, unfolded)
