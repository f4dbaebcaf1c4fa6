"""sparselab: accuracy-versus-sparsity tables, one cell at a time."""

__version__ = "0.1.0"
