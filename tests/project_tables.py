"""The project's own tables, read and checked once for all tests of a process. Nobody may change them."""

from __future__ import annotations

import functools

from sparselab.experiments.tables.load import load_all
from sparselab.experiments.tables.schema import Table


@functools.cache
def tables() -> tuple[Table, ...]:
    """Every table of every paper, in the order of their names."""
    return tuple(load_all())
