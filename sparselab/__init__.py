"""sparselab: accuracy-versus-sparsity tables, one cell at a time."""

import os

__version__ = "0.1.0"

# Threads that wait by spinning slow a shared machine down two- to tenfold; threads that sleep at once lose a third of an idle
# one, since waking takes longer than the gap between two products. GNU's OpenMP, which torch brings, spins a bounded while
# (docs/decisions.md has the measurements). It reads this once, when torch is imported; what the user set stands.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
