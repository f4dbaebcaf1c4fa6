"""sparselab: accuracy-versus-sparsity tables, one cell at a time."""

import os

__version__ = "0.1.0"

# Threads that wait by spinning slow a shared machine down (docs/decisions.md has what was measured). OpenMP reads this once,
# when torch is imported; a value that the user set stands.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
