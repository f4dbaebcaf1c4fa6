"""A comparison as text: a line for each configuration, with what tells it from the others [no torch]."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from sparselab.core.errors import ConfigError
from sparselab.experiments.comparison.compare import (
    ABSENT,
    Group,
    against_the_first,
    differing,
    groups,
    mean_sd,
    metric_of,
)
from sparselab.experiments.comparison.found import read

MOST = 200  # lines
NAMED = 30  # runs that a command names
NUMBERS = 3  # columns at the end that hold numbers


def rows(found: Sequence[Group], metric: str) -> list[list[str]]:
    """Head and lines of the comparison."""
    keys, gaps = differing(found), against_the_first(found, metric)
    table = [[*keys, f"{metric} (mean ± sd, n)", "difference to the first (± se, n)", "p"]]
    for group, gap in zip(found, gaps, strict=True):
        values = list(group.values(metric).values())
        mean, sd = mean_sd(values)
        own = f"{mean:.6g}{'' if math.isnan(sd) else f' ± {sd:.2g}'} ({len(values)})"
        told = p = ABSENT
        if gap is not None:
            told = f"{gap.mean:+.4g}{'' if math.isnan(gap.error) else f' ± {gap.error:.2g}'} ({gap.seeds})"
            p = ABSENT if gap.p is None else "< 0.001" if gap.p < 0.001 else f"{gap.p:.3f}"
        elif group is not found[0]:
            told = "no seed in common"
        table.append([*(group.settings.get(key, ABSENT) for key in keys), own, told, p])
    return table


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """The table in columns of plain text; numbers stand to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    words = len(widths) - NUMBERS
    return [
        "  ".join(
            text.ljust(width) if number < words else text.rjust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def side_by_side(folders: Iterable[str]) -> list[str]:
    """Return lines about the finished runs in these folders, and the command that shows them again.

    None where there is nothing to compare: a single configuration, too many, or no number in common.
    """
    runs = [run for folder in folders if (run := read(Path(folder))) is not None]
    try:
        found = groups(runs)
        if not 1 < len(found) <= MOST:
            return []
        lines = aligned(rows(found, metric_of(found, "")))
    except ConfigError:
        return []
    if len(runs) <= NAMED:
        roots = {run.folder.parent for run in runs}
        where = [f"runs_dir={root}" for root in roots if root != Path("runs")]
        lines.append(f"again: sparselab compare {' '.join([*(run.id for run in runs), *where])}")
    return lines
