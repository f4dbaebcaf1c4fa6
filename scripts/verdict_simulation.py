"""Size and power of the rule that gives verdicts, by simulation; ``write`` puts the table into ``docs/verdicts.md``.

    python scripts/verdict_simulation.py [runs=600] [write]

A run is a table of 12 cells (6 rows, 2 columns) with 8 claims: an order of the columns in each row, their order on average,
and a trend along the rows. Cells of a seed share part of their deviation (the correlation), and cells scatter equally or up
to eightfold. At no effect every verdict is an error; otherwise each row's order is true by 5 of its standard errors.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import stdtr

from sparselab.core.options import validate
from sparselab.experiments.tables.claims import ALPHA, CLAIMS, Claim, Layout, judge
from sparselab.experiments.tables.statistics import Place, Samples, holm

ROWS, COLUMNS = tuple(f"r{number}" for number in range(6)), ("a", "b")
PLACES: list[Place] = [(row, column) for row in ROWS for column in COLUMNS]
LAYOUT = Layout(ROWS, COLUMNS, frozenset(PLACES), lambda place: None, 1)
DOCS = Path(__file__).resolve().parents[1] / "docs" / "verdicts.md"
BEGIN, END = "<!-- begin of the table -->", "<!-- end of the table -->"


def claims() -> list[Claim]:
    """The 8 claims of a table; the orders of single rows come first."""

    def made(kind: str, **options: object) -> Claim:
        return validate(CLAIMS[kind], {"kind": kind, "text": "a claim", **options})

    orders = [made("order", a={"row": r, "column": "a"}, b={"row": r, "column": "b"}) for r in ROWS]
    mean = made("order", a={"column": "a"}, b={"column": "b"}, combine="mean")
    return [*orders, mean, made("monotone", of={"column": "b"}, along="rows", direction="rising")]


CLAIMED = claims()


@dataclass(frozen=True)
class Setting:
    """How cells scatter. spread: the largest standard deviation over the smallest. correlation: within a seed."""

    seeds: int
    correlation: float
    spread: float

    @cached_property
    def sds(self) -> np.ndarray:
        """The standard deviation of each cell, unequal ones in an order that mixes the columns."""
        sds = np.geomspace(1, self.spread, len(PLACES))
        return sds[np.random.default_rng(0).permutation(len(PLACES))]

    def draw(self, rng: np.random.Generator, effect: float) -> Samples:
        """One table; each row's order is true by ``effect`` standard errors of its difference."""
        shared, own = rng.standard_normal((self.seeds, 1)), rng.standard_normal((self.seeds, len(PLACES)))
        values = self.sds * (math.sqrt(self.correlation) * shared + math.sqrt(1 - self.correlation) * own)
        a, b = self.sds[0::2], self.sds[1::2]
        values[:, 0::2] += effect * np.sqrt((a**2 + b**2 - 2 * self.correlation * a * b) / self.seeds)
        return {place: dict(enumerate(values[:, number].tolist())) for number, place in enumerate(PLACES)}


@dataclass(frozen=True)
class Found:
    """Shares of tables with a claim that holds, and with one that fails, and the mean share of orders that hold."""

    holds: float
    fails: float
    orders: float


def rule_2(samples: Samples) -> list[str]:
    """The verdicts of the project's own rule."""
    return [verdict.verdict for verdict in judge(CLAIMED, "cpu", LAYOUT, lambda metric: samples)]


def rule_1(samples: Samples) -> list[str]:
    """The verdicts of the earlier rule: one spread pooled over all cells, which count as independent; no guards of means."""
    values = np.array([list(samples[place].values()) for place in PLACES])
    seeds, df = values.shape[1], values.size - len(PLACES)
    error = math.sqrt(values.var(axis=1, ddof=1).mean() / seeds)
    means = dict(zip(PLACES, values.mean(axis=1), strict=True))
    p_holds, p_fails = [], []
    for claim in CLAIMED:
        bounds = claim.bounds(LAYOUT)
        guards = claim.guards(LAYOUT) if claim.kind == "monotone" else []
        ts = [
            sum(weight * means[at] for at, weight in bound.contrast.items())
            / (error * math.sqrt(sum(weight**2 for weight in bound.contrast.values())))
            for bound in [*bounds, *guards]
        ]
        p_holds.append(max(float(stdtr(df, -t)) for t in ts[: len(bounds)]))
        p_fails.append(min(1.0, len(ts) * min(float(stdtr(df, t)) for t in ts)))
    pairs = zip(holm(p_holds), holm(p_fails), strict=True)
    return ["fails" if fails <= ALPHA else "holds" if holds <= ALPHA else "inconclusive" for holds, fails in pairs]


RULES = {"rule 2": rule_2, "rule 1": rule_1}


def simulate(rule: str, setting: Setting, effect: float, runs: int, seed: int = 0) -> Found:
    """Return the rule's verdicts on ``runs`` tables."""
    rng = np.random.default_rng(seed)
    holds = fails = orders = 0.0
    for _ in range(runs):
        verdicts = RULES[rule](setting.draw(rng, effect))
        holds += "holds" in verdicts
        fails += "fails" in verdicts
        orders += verdicts[: len(ROWS)].count("holds") / len(ROWS)
    return Found(holds / runs, fails / runs, orders / runs)


def rows(runs: int, numbers_of_seeds: tuple[int, ...] = (5, 8)) -> Iterator[str]:
    """The lines of the table, after its two lines of headers."""
    told = ("errors, holds", "errors, fails", "power")
    heads = ["seeds", "correlation", "spreads", *(f"{rule}: {head}" for rule in RULES for head in told)]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join([' --: '] * len(heads))}|"
    for seeds in numbers_of_seeds:
        for correlation in (0.0, 0.5, 0.99, 0.9999):
            for spread in (1.0, 8.0):
                setting, cells = Setting(seeds, correlation, spread), []
                for rule in RULES:
                    null, true = (simulate(rule, setting, effect, runs) for effect in (0.0, 5.0))
                    cells += [null.holds, null.fails, true.orders]
                words = "equal" if spread == 1 else f"1 to {spread:g}"
                numbers = " | ".join(f"{number:.3f}" for number in cells)
                yield f"| {seeds} | {correlation:g} | {words} | {numbers} |"


def main(argv: list[str]) -> int:
    """Print the table, or write it where it belongs."""
    runs = next((int(word.partition("=")[2]) for word in argv if word.startswith("runs=")), 600)
    lines = []
    for line in rows(runs):
        print(line, flush=True)
        lines.append(line)
    if "write" in argv:
        before, _, rest = DOCS.read_text().partition(BEGIN)
        table = "\n".join(["", f"{runs} tables a line.", "", *lines, ""])
        DOCS.write_text(f"{before}{BEGIN}{table}{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
